// Command line -> request, with a parser generated from the table of commands.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <optional>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/schema.h"

namespace attune {

namespace {

/// "-o,--output" -> "output", "--max-length" -> "max_length", "RECIPE" -> "recipe".
std::string argument_name(const std::string& name) {
  std::string text = name.substr(name.rfind(',') == std::string::npos ? 0 : name.rfind(',') + 1);
  text = text.substr(std::min(text.find_first_not_of('-'), text.size()));
  for (char& c : text)
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

template <class T>
std::optional<T> read_number(const std::string& text) {
  T value{};
  const char* const end = text.data() + text.size();
  const std::from_chars_result read = std::from_chars(text.data(), end, value);
  if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
  if constexpr (std::is_floating_point_v<T>)
    if (!std::isfinite(value)) return std::nullopt;
  return value;
}

/// Where the parser writes one argument, and how it becomes JSON.
struct Slot {
  std::string name, kind, fallback;
  CLI::Option* option = nullptr;
  std::string text;
  std::vector<std::string> texts;
  bool flag = false;

  Json value() const {
    if (kind == "bool") return flag;
    if (kind == "list") return texts;
    if (option->count() == 0) return fallback.empty() ? Json() : Json(fallback);
    if (kind == "int") return *read_number<int64_t>(text);
    if (kind == "number") return *read_number<double>(text);
    return text;
  }

  /// What is wrong with the value; "" when nothing is.
  std::string problem() const {
    if (option->count() == 0) return "";
    if (kind == "int" && !read_number<int64_t>(text))
      return format("expected a whole number, found \"{}\"", text);
    if (kind == "number" && !read_number<double>(text))
      return format("expected a number, found \"{}\"", text);
    return "";
  }
};

/// The parser of one command; slots do not move once they are bound.
class CommandParser {
 public:
  CommandParser(CLI::App& app, const CommandSpec& spec)
      : spec_(spec), app_(app.add_subcommand(spec.name, spec.summary)) {
    app_->allow_extras();
    for (const PositionalSpec& positional : spec.positionals) add_positional(positional);
    for (const FlagSpec& flag : spec.flags) add_flag(flag, "Options");
    for (const FlagSpec& flag : common_flags()) add_flag(flag, "Every command");
    app_->footer("Examples:\n  " + join(spec.examples, "\n  "));
  }

  std::string help() const {
    std::string text = app_->help("attune");
    // What a command lists is part of its help.
    const bool lists = spec_.positionals.size() == 1 && spec_.positionals.front().name == "NAME";
    if (lists) text += format("\nNames: {}\n", join(schema_names(spec_.name), ", "));
    return text;
  }

  /// What is wrong beyond the values' kinds: unknown flags, too many or missing arguments. "" when
  /// nothing is.
  std::string problem() const {
    for (const std::string& extra : app_->remaining()) {
      if (extra.size() > 1 && extra.front() == '-')
        return format("unknown flag \"{}\";{}", extra,
                      suggestion(extra.substr(0, extra.find('=')), flag_names()));
      return format("\"{}\" is one argument too many; see attune {} --help", extra, spec_.name);
    }
    for (size_t i = 0; i < spec_.positionals.size(); ++i)
      if (spec_.positionals[i].required && slots_[i].option->count() == 0)
        return format("{} is missing: {}", spec_.positionals[i].name, spec_.positionals[i].help);
    for (const Slot& slot : slots_) {
      const std::string what = slot.problem();
      for (const Slot& other : slots_)
        if (&other != &slot && other.name == slot.name && other.option->count() > 0 &&
            slot.option->count() > 0)
          return format("{} and {} are both given; give one", slot.option->get_name(),
                        other.option->get_name());
      if (!what.empty())
        return format("{}: {}; see attune {} --help", slot.option->get_name(), what, spec_.name);
    }
    return "";
  }

  Json request() const {
    Json arguments = Json::object();
    for (const Slot& slot :
         slots_)  // a positional argument and a flag may be two ways to say the same
      if (!arguments.contains(slot.name) || arguments[slot.name].is_null())
        arguments[slot.name] = slot.value();
    return {{"command", spec_.name}, {"args", arguments}};
  }

 private:
  void add_positional(const PositionalSpec& positional) {
    Slot& slot = slots_.emplace_back();
    slot.name = argument_name(positional.name);
    slot.kind = positional.many ? "list" : "string";
    slot.option = positional.many ? app_->add_option(positional.name, slot.texts, positional.help)
                                  : app_->add_option(positional.name, slot.text, positional.help);
    slot.option->type_name("");
  }

  void add_flag(const FlagSpec& flag, const std::string& group) {
    Slot& slot = slots_.emplace_back();
    slot.name = argument_name(flag.name);
    slot.kind = flag.kind;
    slot.fallback = flag.fallback;
    const std::string help =
        flag.fallback.empty() ? flag.help : format("{} (default {})", flag.help, flag.fallback);
    if (flag.kind == "bool") {
      slot.option = app_->add_flag(flag.name, slot.flag, help);
    } else if (flag.kind == "list") {
      // One value a flag, taken as it is: what follows is the next flag or a positional argument.
      slot.option = app_->add_option(flag.name, slot.texts, help)
                        ->expected(1)
                        ->take_all()
                        ->allow_extra_args(false);
      slot.option->type_name("TEXT (repeatable)");
    } else {
      slot.option = app_->add_option(flag.name, slot.text, help);
      slot.option->type_name(flag.kind == "int" ? "N" : flag.kind == "number" ? "NUMBER" : "TEXT");
    }
    slot.option->group(group);
  }

  std::vector<std::string> flag_names() const {
    std::vector<std::string> names = {"--help"};
    for (const std::vector<FlagSpec>* flags : {&spec_.flags, &common_flags()})
      for (const FlagSpec& flag : *flags)
        for (const std::string& name : split(flag.name, ',')) names.push_back(name);
    return names;
  }

  const CommandSpec& spec_;
  CLI::App* app_;
  std::deque<Slot> slots_;  // positionals first; a deque, so that they stay where they are
};

std::string program_help() {
  std::string text =
      "attune: fine-tune pretrained transformers\n\nUsage: attune COMMAND "
      "[ARGUMENTS]\n\nCommands:\n";
  for (const CommandSpec& command : commands())
    text += format("  {:<12}{}\n", command.name, command.summary);
  text +=
      "\nattune COMMAND --help tells more, with examples; attune --version the "
      "version.\n\nExamples:\n";
  return text + "  " + commands().front().examples.front() + "\n  attune doctor\n";
}

ParsedCommand printed(std::string text) {
  ParsedCommand result;
  result.kind = ParsedCommand::Kind::Print;
  result.text = std::move(text);
  return result;
}

ParsedCommand refused(const std::string& where, const std::string& what) {
  ParsedCommand result;
  result.kind = ParsedCommand::Kind::Refuse;
  result.text = format("{}: bad input: {}\n", where, what);
  result.status = 2;
  return result;
}

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const CommandSpec& command : commands()) names.push_back(command.name);
  return names;
}

ParsedCommand parse_with(const CommandSpec& spec, std::vector<std::string> arguments) {
  const std::string where = "attune " + spec.name;
  CLI::App app("", "attune");
  app.require_subcommand(1);
  CommandParser parser(app, spec);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    return printed(parser.help());
  } catch (const CLI::ParseError& error) {
    return refused(where, format("{}; see {} --help", error.what(), where));
  }
  const std::string problem = parser.problem();
  if (!problem.empty()) return refused(where, problem);
  ParsedCommand result;
  result.request = parser.request();
  return result;
}

}  // namespace

ParsedCommand parse_command_line(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return refused("attune", "a command is missing; see attune --help");
  for (size_t i = 0; i < arguments.size(); ++i)
    if (const std::optional<size_t> bad = invalid_utf8(arguments[i]))
      return refused("attune",
                     format("argument {} is not valid UTF-8 (at its byte {})", i + 1, *bad));
  const std::string& name = arguments.front();
  if (name == "--help" || name == "-h" || name == "help") return printed(program_help());
  if (name == "--version") return printed(format("attune {}\n", program_version()));
  for (const CommandSpec& spec : commands())
    if (spec.name == name) return parse_with(spec, arguments);
  const std::string kind = name.front() == '-' ? "flag" : "command";
  const std::vector<std::string> known =
      name.front() == '-' ? std::vector<std::string>{"--help", "--version"} : command_names();
  return refused("attune", format("unknown {} \"{}\";{}", kind, name, suggestion(name, known)));
}

}  // namespace attune
