#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "recipe/yaml.h"

namespace attune {

namespace {

bool is_plain_char(unsigned char c, bool first) {
  if (std::isalnum(c) != 0 || c == '_' || c == '/' || c >= 0x80) return true;
  return first ? c == '.'
               : std::string_view(".@+*-%= ").find(static_cast<char>(c)) != std::string_view::npos;
}

/// Whether the text may stand without quotes and still be read as that text, by YAML 1.1 readers
/// too.
bool is_plain(std::string_view text) {
  if (text.empty() || text.front() == ' ' || text.back() == ' ') return false;
  for (size_t i = 0; i < text.size(); ++i)
    if (!is_plain_char(static_cast<unsigned char>(text[i]), i == 0)) return false;
  constexpr std::array<std::string_view, 8> kWords{"yes", "no", "on",   "off",
                                                   "y",   "n",  "true", "false"};
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (std::find(kWords.begin(), kWords.end(), lower) != kWords.end()) return false;
  return Node::scalar(std::string(text), false, {}).to_json().is_string();
}

std::string in_quotes(std::string_view text) {
  std::string result = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += text[i];
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (c < 0x20 || c == 0x7F) {
      result += format("\\x{:02x}", c);
    } else {
      result += text[i];
    }
  }
  return result + '"';
}

std::string text_of(std::string_view text) {
  std::string escaped;
  for (size_t i = 0; i < text.size(); ++i) {
    // A plain ${ would be read as a variable.
    if (text.substr(i).starts_with("${")) escaped += '$';
    escaped += text[i];
  }
  return is_plain(escaped) ? escaped : in_quotes(escaped);
}

std::string key_of(std::string_view key) {
  return is_plain(key) ? std::string(key) : in_quotes(key);
}

std::string scalar_of(const Json& value) {
  if (value.is_string()) return text_of(value.get_ref<const std::string&>());
  if (!value.is_number_float()) return value.dump();
  const double number = value.get<double>();
  if (std::isnan(number)) return ".nan";
  if (std::isinf(number)) return number > 0 ? ".inf" : "-.inf";
  const std::string text = format("{}", number);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

bool is_flow(const Json& value) {
  if (value.empty()) return true;
  return value.is_array() &&
         std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_number(); });
}

std::string flow_of(const Json& value) {
  if (value.is_object()) return "{}";
  std::vector<std::string> parts;
  for (const Json& item : value) parts.push_back(scalar_of(item));
  return "[" + join(parts, ", ") + "]";
}

/// Writes `value` after "key:" or "-"; blocks go on the next lines, `indent` deep.
void write(const Json& value, size_t indent, bool after_dash, std::string& out) {
  if (!value.is_structured() || is_flow(value)) {
    out += (value.is_structured() ? flow_of(value) : scalar_of(value)) + "\n";
    return;
  }
  bool first = after_dash;
  const auto margin = [&] {
    if (!first) out.append(indent, ' ');
    first = false;
  };
  if (value.is_array()) {
    for (const Json& item : value) {
      margin();
      out += "- ";
      write(item, indent + 2, true, out);
    }
    return;
  }
  for (const auto& [key, item] : value.items()) {
    margin();
    out += key_of(key) + ":";
    const bool block = item.is_structured() && !is_flow(item);
    out += block ? "\n" : " ";
    write(item, indent + 2, false, out);
  }
}

}  // namespace

std::string to_yaml(const Json& value) {
  std::string out;
  write(value, 0, false, out);
  return out;
}

}  // namespace attune
