// Recipes from a file, and from the flags of `attune train`.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "recipe/recipe.h"
#include "recipe/yaml.h"

namespace attune {

namespace {

bool states_optimizer_rate(const Node& root) {
  const Node* node = &root;
  for (const char* key : {"train", "optimizer", "adamw", "lr"}) {
    node = node->is_map() ? node->find(key) : nullptr;
    if (node == nullptr) return false;
  }
  return true;
}

/// An override of one of several ways to say one thing takes the place of the others: train.steps
/// of epochs.
Node without_rivals(Node root, std::string_view path) {
  static const std::vector<std::vector<std::string>> kRivals = {{"epochs", "steps", "minutes"},
                                                                {"batch_tokens", "batch_size"}};
  if (path == "train.lr" && states_optimizer_rate(root))
    return root.with("train.optimizer.adamw.lr", Node());
  const Node* train = root.is_map() ? root.find("train") : nullptr;
  if (train == nullptr || !train->is_map() || !path.starts_with("train.")) return root;
  const std::vector<std::string> stated = train->keys();
  for (const std::vector<std::string>& group : kRivals) {
    if (std::find(group.begin(), group.end(), path.substr(6)) == group.end()) continue;
    for (const std::string& rival : group)
      if (rival != path.substr(6) && std::find(stated.begin(), stated.end(), rival) != stated.end())
        root = root.with("train." + rival, Node());
  }
  return root;
}

Recipe with_sets(Node root, const std::vector<std::string>& sets) {
  for (const std::string& assignment : sets)
    root = apply_set(
        without_rivals(root, trim(std::string_view(assignment).substr(0, assignment.find('=')))),
        assignment);
  return Recipe::from_node(root);
}

/// The flags of a request laid over a recipe's mapping, each value with its flag as place.
class FlagRecipe {
 public:
  FlagRecipe(const Json& args, Node root) : args_(args), root_(std::move(root)) {}

  Node build() {
    text("model", "model");
    text("task", "task");
    text("output", "output");
    files("train", "data.train");
    files("eval", "data.eval");
    columns();
    for (const char* name : {"epochs", "lr", "batch_size", "batch_tokens", "seed", "threads"})
      put(name, std::string("train.") + name);
    put("max_length", "data.max_length");
    methods();
    return std::move(root_);
  }

 private:
  const Json* given(const std::string& name) const {
    const Json::const_iterator found = args_.find(name);
    if (found == args_.end() || found->is_null() || (found->is_array() && found->empty()))
      return nullptr;
    return &*found;
  }
  static Node::Place place(std::string name) {
    for (char& c : name) c = c == '_' ? '-' : c;
    return {"--" + name, 0, 0};
  }
  std::vector<std::string> texts(const Json& value) const {
    if (value.is_string()) return {value.get<std::string>()};
    return value.get<std::vector<std::string>>();
  }

  void put(const std::string& name, const std::string& path) {
    if (const Json* value = given(name))
      root_ = without_rivals(root_, path).with(path, Node::from_json(*value, place(name)));
  }
  void text(const std::string& name, const std::string& path) { put(name, path); }

  /// One file stays a plain value, so that "10%" and 1000 keep their meaning for data.eval.
  void files(const std::string& name, const std::string& path) {
    const Json* value = given(name);
    if (value == nullptr) return;
    std::vector<Node> items;
    for (const std::string& item : texts(*value))
      items.push_back(Node::scalar(item, false, place(name)));
    root_ = root_.with(
        path, items.size() == 1 ? items.front() : Node::list(std::move(items), place(name)));
  }

  void columns() {
    const Json* value = given("columns");
    if (value == nullptr) return;
    std::vector<std::pair<std::string, Node>> entries;
    for (const std::string& item : texts(*value)) {
      for (const std::string& part : split(item, ',')) {
        const size_t equals = part.find('=');
        if (equals == std::string::npos || equals == 0 || equals + 1 == part.size())
          fail(ErrorCode::BadInput,
               "--columns {}: expected role=column, as in text=description,label=section", item);
        entries.emplace_back(part.substr(0, equals),
                             Node::scalar(part.substr(equals + 1), true, place("columns")));
      }
    }
    root_ = root_.with("data.columns", Node::map(std::move(entries), place("columns")));
  }

  void methods() {
    const Json* value = given("method");
    if (value == nullptr) return;
    std::vector<Node> items;
    for (const std::string& item : texts(*value)) {
      const Node node = parse_yaml(item, "--method");
      if (node.is_scalar() && node.text() == "none") continue;
      items.push_back(node);
    }
    root_ = root_.with("methods", Node::list(std::move(items), place("method")));
  }

  const Json& args_;
  Node root_;
};

}  // namespace

Recipe load_recipe(const std::string& path, const std::vector<std::string>& sets,
                   const Json& flags) {
  return with_sets(FlagRecipe(flags, load_yaml(path)).build(), sets);
}

Recipe recipe_from_flags(const Json& args, const std::vector<std::string>& sets) {
  for (const char* name : {"model", "task", "train"}) {
    const Json::const_iterator found = args.find(name);
    const bool absent =
        found == args.end() || found->is_null() || (found->is_array() && found->empty());
    if (absent && sets.empty())
      fail(ErrorCode::BadInput,
           "training without a recipe file: --{} is missing; give a recipe, or --model, --task "
           "and --train",
           name);
  }
  return with_sets(FlagRecipe(args, Node::map({}, {"the flags", 0, 0})).build(), sets);
}

}  // namespace attune
