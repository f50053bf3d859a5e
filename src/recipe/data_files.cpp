// The files of a recipe: data.train, data.eval, eval_on.
#include "recipe/data_files.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/options.h"
#include "base/text.h"
#include "recipe/values.h"

namespace attune {

namespace {

const std::vector<Option>& data_options() {
  static const std::vector<Option> kOptions = {
      {"train", "any", "required", "",
       "a path, a list of paths, or {path, columns, limit, weight}"},
      {"eval", "any", "null", "",
       "the same as train, or a share of it such as 10%, or a number of its rows"},
      {"eval_on", "any", "[]", "", "further files to evaluate on, each under a name"},
      {"columns", "map", "{}", "", "role: column"},
      {"max_length", "int", "0", "[0, inf)", "tokens an input; 0: what the model takes"},
      {"too_long", "choice", "truncate", "truncate|stride|error",
       "what is done with longer inputs"},
      {"on_bad_row", "choice", "error", "error|skip", "what is done with rows that cannot be read"},
      {"header", "bool", "true", "", "CSV and TSV: the first line names the columns"},
  };
  return kOptions;
}

/// What an entry of a list of files may say.
enum class Use { Train, Eval, Named };

std::vector<Option> file_options(Use use) {
  std::vector<Option> options = {
      {"path", "string", "required", "", "the file"},
      {"columns", "map", "{}", "", "role: column, for this file"},
      {"limit", "int", "0", "[0, inf)", "rows read; 0: all"},
  };
  if (use == Use::Train)
    options.push_back({"weight", "number", "null", "(0, inf)", "share of the mixture"});
  if (use == Use::Named)
    options.push_back({"name", "string", "null", "", "what its metrics are called"});
  return options;
}

/// Role -> column; a role that no task knows is a mistake.
std::map<std::string, std::string> read_columns(const Node& node, const std::string& path) {
  static const std::vector<std::string> kRoles = {
      "text",       "text_pair", "label",  "labels",  "tokens", "tags",
      "question",   "context",   "source", "target",  "prompt", "messages",
      "sentence1",  "sentence2", "score",  "answers", "anchor", "positive",
      "completion", "negative",  "image",  "audio"};
  std::map<std::string, std::string> result;
  for (const auto& [role, column] : node.entries()) {
    if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end())
      fail(ErrorCode::BadInput, "{}: {}.{}: no task has such a column;{}", column.place().text(),
           path, role, suggestion(role, kRoles));
    result[role] = column.as_string(path + "." + role);
  }
  return result;
}

DataFile read_file_entry(const Node& node, const std::string& path, Use use) {
  const char* const forms = use == Use::Train  ? "a path, or {path, columns, limit, weight}"
                            : use == Use::Eval ? "a path, or {path, columns, limit}"
                                               : "a path, or {path, name, columns, limit}";
  DataFile file;
  if (node.is_map()) {
    const Options options(file_options(use), node, path);
    file.path = options.get<std::string>("path");
    file.columns = read_columns(options.node("columns"), path + ".columns");
    file.limit = options.get<int64_t>("limit");
    if (use == Use::Train && options.given("weight")) file.weight = options.get<double>("weight");
    if (use == Use::Named && options.given("name")) file.name = options.get<std::string>("name");
  } else {
    if (!node.is_scalar()) wrong_value(node, path, forms);
    file.path = node.text();
  }
  if (file.path.empty()) wrong_value(node, path, forms);
  return file;
}

std::vector<DataFile> read_files(const Node& node, const std::string& path, Use use) {
  if (!node.is_list()) return {read_file_entry(node, path, use)};
  if (node.items().empty()) wrong_value(node, path, "at least one file");
  std::vector<DataFile> files;
  for (size_t i = 0; i < node.items().size(); ++i)
    files.push_back(read_file_entry(node.items()[i], format("{}[{}]", path, i), use));
  return files;
}

std::vector<DataFile> read_train_files(const Node& node) {
  std::vector<DataFile> files = read_files(node, "data.train", Use::Train);
  const auto weighted = [](const DataFile& file) { return file.weight > 0; };
  const auto without = std::find_if_not(files.begin(), files.end(), weighted);
  if (std::any_of(files.begin(), files.end(), weighted) && without != files.end()) {
    const size_t at = static_cast<size_t>(without - files.begin());
    fail(ErrorCode::BadInput,
         "{}: data.train[{}]: {} has no weight, but another file has one; files are mixed by the "
         "weights of all of them, or without any each row comes once an epoch",
         node.items()[at].place().text(), at, without->path);
  }
  return files;
}

/// data.eval: files, a percentage, or an unquoted number of rows.
void read_eval(const Node& node, Recipe& recipe) {
  if (is_none(node)) return;
  if (!node.is_scalar()) {
    recipe.eval = read_files(node, "data.eval", Use::Eval);
    return;
  }
  double share = 0;
  if (read_percent(node.text(), share)) {
    if (!(share > 0 && share < 1)) wrong_value(node, "data.eval", "a share between 0% and 100%");
    recipe.eval_share = share;
    return;
  }
  const Json value = node.to_json();
  if (!value.is_number()) {
    recipe.eval = read_files(node, "data.eval", Use::Eval);
    return;
  }
  if (!value.is_number_integer() || value.get<int64_t>() < 1)
    wrong_value(node, "data.eval",
                "a path, a share such as 10%, or a number of rows of at least 1");
  recipe.eval_share = value.get<double>();
}

/// "data/dev.jsonl.gz" -> "dev".
std::string name_of_path(const std::string& path) {
  const std::string file = std::filesystem::path(path).filename().string();
  return file.substr(0, file.find('.', 1));
}

void check_name(const DataFile& file, const std::vector<DataFile>& before, const Node& node,
                const std::string& path) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  if (file.name.empty() || !std::all_of(file.name.begin(), file.name.end(), plain))
    fail(ErrorCode::BadInput,
         "{}: {}: \"{}\" cannot name a set; use letters, digits, \"_\", \"-\" and \".\", as in "
         "{{path: {}, name: dev}}",
         node.place().text(), path, file.name, file.path);
  for (const DataFile& other : before)
    if (other.name == file.name)
      fail(ErrorCode::BadInput,
           "{}: {}: {} and {} are both called \"{}\"; give them names, as in {{path: {}, name: "
           "dev}}",
           node.place().text(), path, other.path, file.path, file.name, file.path);
}

/// A list of files, each under its `name` or else its file's name; or {name: file}.
void read_eval_on(const Node& node, const std::string& path, Recipe& recipe) {
  if (is_none(node)) return;
  const bool by_name = node.is_map() && node.find("path") == nullptr;
  std::vector<std::pair<std::string, Node>> entries;
  if (by_name) {
    entries = node.entries();
  } else if (node.is_list()) {
    for (const Node& item : node.items()) entries.emplace_back("", item);
  } else {
    entries.emplace_back("", node);
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string at =
        by_name ? format("{}.{}", path, entries[i].first) : format("{}[{}]", path, i);
    DataFile file = read_file_entry(entries[i].second, at, by_name ? Use::Eval : Use::Named);
    if (by_name) file.name = entries[i].first;
    if (file.name.empty()) file.name = name_of_path(file.path);
    check_name(file, recipe.eval_on, entries[i].second, at);
    recipe.eval_on.push_back(std::move(file));
  }
}

}  // namespace

void read_data(const Node& data, const Node& eval_on, Recipe& recipe) {
  const Options options(data_options(), data, "data");
  recipe.train = read_train_files(options.node("train"));
  read_eval(options.node("eval"), recipe);
  read_eval_on(eval_on, "eval_on", recipe);
  if (!recipe.eval_on.empty() && options.given("eval_on"))
    fail(ErrorCode::BadInput, "{}: eval_on is given outside of `data` too; give one",
         options.where("eval_on"));
  read_eval_on(options.node("eval_on"), "data.eval_on", recipe);
  recipe.columns = read_columns(options.node("columns"), "data.columns");
  // The columns of a single file are those of the run: predictions read theirs by the same names.
  if (recipe.train.size() == 1) {
    for (const std::pair<const std::string, std::string>& entry : recipe.train[0].columns)
      recipe.columns[entry.first] = entry.second;
    recipe.train[0].columns.clear();
  }
  recipe.max_length = options.get<int64_t>("max_length");
  recipe.too_long = options.get<std::string>("too_long");
  recipe.skip_bad_rows = options.get<std::string>("on_bad_row") == "skip";
  recipe.header = options.get<bool>("header");
}

}  // namespace attune
