#include "recipe/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

namespace attune {

namespace {

/// Nodes a document may stand for once its aliases are written out: a recipe needs hundreds.
constexpr int64_t kMostNodes = 1000000;

bool is_variable_name(std::string_view name) {
  if (name.empty() || (name.front() >= '0' && name.front() <= '9')) return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
}

/// Replaces ${NAME} by the environment; $${ gives ${.
std::string expand(const std::string& text, const Node::Place& place) {
  if (text.find("${") == std::string::npos) return text;
  std::string result;
  for (size_t at = 0; at < text.size();) {
    if (text.compare(at, 3, "$${") == 0) {
      result += "${";
      at += 3;
      continue;
    }
    if (text.compare(at, 2, "${") != 0) {
      result += text[at++];
      continue;
    }
    const size_t close = text.find('}', at);
    const std::string name = close == std::string::npos ? "" : text.substr(at + 2, close - at - 2);
    if (!is_variable_name(name))
      fail(ErrorCode::BadInput,
           "{}: \"{}\": ${{ must be followed by a variable's name and }}; write $${{ for a plain "
           "${{",
           place.text(), text);
    const char* value = std::getenv(name.c_str());
    if (value == nullptr)
      fail(ErrorCode::BadInput,
           "{}: the environment variable {} is not set; set it, or write $${{{}}} for the plain "
           "text",
           place.text(), name, name);
    result += value;
    at = close + 1;
  }
  return result;
}

/// Builds nodes from yaml-cpp's events, which carry exact positions.
class NodeBuilder : public YAML::EventHandler {
 public:
  NodeBuilder(std::string file, std::string_view text) : file_(std::move(file)), text_(text) {}
  Node take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    // The mark of a value left out is where the next thing begins, often lines below its key.
    const bool after_key =
        !open_.empty() && open_.back().key && mark.line + 1 > open_.back().key_place.line;
    finish(Node::null(after_key ? open_.back().key_place : place(mark)), 1, anchor, "");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end())
      fail(ErrorCode::BadInput, "{}: this alias stands inside the value it refers to",
           place(mark).text());
    finish(found->second.first, found->second.second, 0, "");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    const Node::Place at = place(mark);
    if (quoted && !closes(static_cast<size_t>(mark.pos)))
      fail(ErrorCode::BadInput, "{}: not valid YAML: this quote is never closed", at.text());
    const bool is_key = !open_.empty() && open_.back().is_map && !open_.back().key;
    finish(Node::scalar(is_key ? value : expand(value, at), quoted, at), 1, anchor, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(false, mark, anchor);
  }
  void OnSequenceEnd() override {
    Frame frame = pop();
    finish(Node::list(std::move(frame.items), frame.place), frame.size, frame.anchor, "");
  }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(true, mark, anchor);
  }
  void OnMapEnd() override {
    Frame frame = pop();
    for (const auto& [key, value] : frame.merged) {
      const bool stated = std::any_of(
          frame.entries.begin(), frame.entries.end(),
          [&name = key](const std::pair<std::string, Node>& entry) { return entry.first == name; });
      if (!stated) frame.entries.emplace_back(key, value);
    }
    finish(Node::map(std::move(frame.entries), frame.place), frame.size, frame.anchor, "");
  }

 private:
  struct Frame {
    bool is_map = false;
    Node::Place place;
    YAML::anchor_t anchor = 0;
    int64_t size = 1;
    std::vector<Node> items;
    std::vector<std::pair<std::string, Node>> entries, merged;
    std::optional<std::string> key;
    Node::Place key_place;
    bool merge_key = false;
  };

  Node::Place place(const YAML::Mark& mark) const {
    return {file_, mark.line + 1, mark.column + 1};
  }

  /// yaml-cpp takes the end of the file for the end of a quote: a file cut short would go
  /// unnoticed.
  bool closes(size_t begin) const {
    if (begin >= text_.size() || (text_[begin] != '"' && text_[begin] != '\'')) return true;
    const char quote = text_[begin];
    for (size_t i = begin + 1; i < text_.size(); ++i) {
      if (quote == '"' && text_[i] == '\\') {
        ++i;
      } else if (text_[i] == quote) {
        if (quote == '"' || i + 1 == text_.size() || text_[i + 1] != quote) return true;
        ++i;
      }
    }
    return false;
  }

  void begin(bool is_map, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (!open_.empty() && open_.back().is_map && !open_.back().key)
      fail(ErrorCode::BadInput, "{}: expected a key, found a list or mapping", place(mark).text());
    Frame frame;
    frame.is_map = is_map;
    frame.place = place(mark);
    frame.anchor = anchor;
    open_.push_back(std::move(frame));
  }

  Frame pop() {
    Frame frame = std::move(open_.back());
    open_.pop_back();
    return frame;
  }

  void finish(Node node, int64_t size, YAML::anchor_t anchor, const std::string& raw) {
    if (anchor != 0) anchors_[anchor] = {node, size};
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = open_.back();
    frame.size += size;
    if (frame.size > kMostNodes)
      fail(ErrorCode::BadInput, "{}: its aliases stand for more than {} values",
           node.place().text(), kMostNodes);
    if (!frame.is_map) {
      frame.items.push_back(std::move(node));
    } else if (!frame.key) {
      take_key(frame, node, raw);
    } else {
      take_value(frame, std::move(node));
    }
  }

  void take_key(Frame& frame, const Node& node, const std::string& raw) {
    // A null key is written "null" or "~": the text is what the user means (a label, say).
    const std::string text = node.is_scalar() ? (raw.empty() ? node.text() : raw) : "null";
    frame.merge_key = text == "<<" && !node.quoted();
    const bool twice =
        std::any_of(frame.entries.begin(), frame.entries.end(),
                    [&](const std::pair<std::string, Node>& entry) { return entry.first == text; });
    if (twice)
      fail(ErrorCode::BadInput, "{}: the key \"{}\" is there twice; remove one",
           node.place().text(), text);
    frame.key = text;
    frame.key_place = node.place();
  }

  void take_value(Frame& frame, Node node) {
    const std::string key = std::move(*frame.key);
    frame.key.reset();
    if (!frame.merge_key) {
      frame.entries.emplace_back(key, std::move(node));
      return;
    }
    const std::vector<Node> maps = node.is_list() ? node.items() : std::vector<Node>{node};
    for (const Node& map : maps) {
      if (!map.is_map())
        fail(ErrorCode::BadInput, "{}: << merges mappings, found {}", node.place().text(),
             map.shown());
      for (const auto& [name, value] : map.entries()) {
        const bool known = std::any_of(frame.merged.begin(), frame.merged.end(),
                                       [&key = name](const std::pair<std::string, Node>& entry) {
                                         return entry.first == key;
                                       });
        if (!known) frame.merged.emplace_back(name, value);
      }
    }
  }

  std::string file_;
  std::string_view text_;
  Node root_;
  std::vector<Frame> open_;
  std::map<YAML::anchor_t, std::pair<Node, int64_t>> anchors_;
};

/// Loads with includes; `trail` holds the files being loaded, outermost first.
Node load_included(const std::string& path, std::vector<std::string>& trail) {
  const std::string canonical = std::filesystem::weakly_canonical(path).string();
  if (std::find(trail.begin(), trail.end(), canonical) != trail.end())
    fail(ErrorCode::BadInput, "{}: it includes itself ({} -> {}); take one `include` out", path,
         join(trail, " -> "), canonical);
  trail.push_back(canonical);
  const Node own = parse_yaml(read_file(path), path);
  const Node* include = own.find("include");
  Node result;
  if (include != nullptr) {
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    for (const std::string& name : include->as_strings("include")) {
      const std::string target = (folder / name).string();
      if (!file_exists(target))
        fail(ErrorCode::NotFound,
             "{}: include: there is no file {} (paths are relative to the including file)",
             include->place().text(), target);
      result = merge_nodes(result, load_included(target, trail));
    }
  }
  trail.pop_back();
  if (include == nullptr) return own;
  std::vector<std::pair<std::string, Node>> entries;
  for (const auto& entry : own.entries())
    if (entry.first != "include") entries.push_back(entry);
  return merge_nodes(result, Node::map(std::move(entries), own.place()));
}

}  // namespace

Node parse_yaml(std::string_view text, const std::string& file) {
  if (const std::optional<size_t> bad = invalid_utf8(text))
    fail(ErrorCode::BadInput, "{}: not valid UTF-8 at byte {}; save the file as UTF-8", file, *bad);
  std::istringstream stream{std::string(text)};
  try {
    // The parser counts from after a byte-order mark.
    NodeBuilder builder(file, text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    NodeBuilder rest(file, {});
    if (parser.HandleNextDocument(rest))
      fail(ErrorCode::BadInput,
           "{}: one YAML document is expected, found more (after a line \"---\")", file);
    return builder.take();
  } catch (const YAML::Exception& error) {
    if (error.mark.is_null()) fail(ErrorCode::BadInput, "{}: not valid YAML: {}", file, error.msg);
    fail(ErrorCode::BadInput, "{}:{}:{}: not valid YAML: {}", file, error.mark.line + 1,
         error.mark.column + 1, error.msg);
  }
}

Node load_yaml(const std::string& path) {
  std::vector<std::string> trail;
  return load_included(path, trail);
}

Node merge_nodes(const Node& base, const Node& over) {
  if (!base.is_map() || !over.is_map()) return over;
  std::vector<std::pair<std::string, Node>> entries = base.entries();
  for (const auto& [key, value] : over.entries()) {
    const auto same = std::find_if(
        entries.begin(), entries.end(),
        [&name = key](const std::pair<std::string, Node>& entry) { return entry.first == name; });
    if (same == entries.end()) {
      entries.emplace_back(key, value);
    } else {
      same->second = merge_nodes(same->second, value);
    }
  }
  return Node::map(std::move(entries), over.place());
}

Node apply_set(const Node& root, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    fail(ErrorCode::BadInput, "--set {}: expected path=value, such as methods.0.lora.rank=16",
         assignment);
  const std::string path(trim(assignment.substr(0, equals)));
  const Node value = parse_yaml(assignment.substr(equals + 1), "--set " + path);
  try {
    return root.with(path, value);
  } catch (const Error& error) {
    throw Error(error.code(), format("--set {}: {}", assignment, error.what()));
  }
}

}  // namespace attune
