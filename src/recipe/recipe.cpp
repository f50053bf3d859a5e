#include "recipe/recipe.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/options.h"
#include "base/text.h"
#include "recipe/names.h"
#include "recipe/values.h"

namespace attune {

namespace {

const std::vector<Option>& top_options() {
  static const std::vector<Option> kOptions = {
      {"model", "string", "required", "", "a model's directory or name"},
      {"task", "string", "required", "", "see attune tasks"},
      {"data", "map", "required", "", "data.train at least"},
      {"methods", "any", "[]", "", "tuning methods; none: full fine-tuning"},
      {"policies", "any", "[]", "", "training policies"},
      {"objective", "any", "auto", "", "the loss; auto: the task's own"},
      {"head", "map", "{}", "", "the task's head"},
      {"train", "map", "{}", "", "how to train"},
      {"output", "string", "null", "", "run directory; default: runs/ and the recipe's name"},
      {"init_from", "string", "null", "", "a run to start from"},
      {"label_smoothing", "number", "0", "[0, 1)", "share of the target spread over all labels"},
      {"eval_on", "any", "[]", "", "further files evaluated at the end (not built yet)"},
      {"class_weights", "any", "null", "", "balanced, or {label: weight}"},
  };
  return kOptions;
}

const std::vector<Option>& data_options() {
  static const std::vector<Option> kOptions = {
      {"train", "any", "required", "", "a path, a list of paths, or {path, columns, limit}"},
      {"eval", "any", "null", "",
       "the same as train, or a share of it such as 10%, or a number of its rows"},
      {"columns", "map", "{}", "", "role: column"},
      {"max_length", "int", "0", "[0, inf)", "tokens an input; 0: what the model takes"},
      {"too_long", "choice", "truncate", "truncate|stride|error",
       "what is done with longer inputs"},
      {"on_bad_row", "choice", "error", "error|skip", "what is done with rows that cannot be read"},
      {"header", "bool", "true", "", "CSV and TSV: the first line names the columns"},
  };
  return kOptions;
}

const std::vector<Option>& file_options() {
  static const std::vector<Option> kOptions = {
      {"path", "string", "required", "", "the file"},
      {"columns", "map", "{}", "", "role: column, for this file"},
      {"limit", "int", "0", "[0, inf)", "rows read; 0: all"},
      {"weight", "number", "1", "(0, inf)", "share of the mixture (not built yet)"},
  };
  return kOptions;
}

const std::vector<Option>& train_options() {
  static const std::vector<Option> kOptions = {
      {"epochs", "number", "3", "(0, 1000000]", "passes over the training rows"},
      {"steps", "int", "0", "[1, inf)", "optimizer steps, instead of epochs"},
      {"minutes", "number", "0", "(0, 1000000]", "time, instead of epochs"},
      {"batch_tokens", "int", "2048", "[1, inf)", "packed rows a micro-batch"},
      {"batch_size", "int", "0", "[1, inf)", "examples a micro-batch, instead of batch_tokens"},
      {"accumulate", "int", "1", "[1, inf)", "micro-batches a step"},
      {"optimizer", "any", "adamw", "", "adamw, or {adamw: {lr, betas, eps, weight_decay}}"},
      {"lr", "number", "auto", "(0, 1000]", "peak learning rate"},
      {"schedule", "any", "linear", "", "linear, cosine, constant"},
      {"clip", "number", "1", "[0, inf)", "largest gradient norm; 0: off"},
      {"precision", "choice", "auto", "auto|fp32|bf16|fp64",
       "number format of the forward and backward pass"},
      {"eval_every", "any", "10%", "", "how often to evaluate"},
      {"save_every", "any", "10%", "", "how often to save"},
      {"log_every", "int", "10", "[1, inf)", "steps between lines of the log"},
      {"keep", "int", "2", "[1, inf)", "checkpoints kept"},
      {"best", "any", "null", "", "a metric, or {metric, patience}"},
      {"seed", "int", "1", "[0, inf)", "seed of everything random"},
      {"threads", "int", "0", "[0, 4096]", "threads; 0: all this process may use"},
  };
  return kOptions;
}

const std::vector<Option>& adamw_options() {
  static const std::vector<Option> kOptions = {
      {"lr", "number", "auto", "(0, 1000]", "peak learning rate"},
      {"betas", "numbers", "[0.9, 0.999]", "[0, 1)", "decay of the two moments"},
      {"eps", "number", "1e-8", "(0, inf)", "added to the root of the second moment"},
      {"weight_decay", "number", "0.01", "[0, inf)", "decoupled weight decay"},
  };
  return kOptions;
}

bool is_none(const Node& node) {
  return node.is_null() || (node.is_scalar() && node.text() == "none");
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

DataFile read_file_entry(const Node& node, const std::string& path) {
  constexpr std::string_view kForms = "a path, or {path, columns, limit}";
  DataFile file;
  if (node.is_map()) {
    const Options options(file_options(), node, path);
    file.path = options.get<std::string>("path");
    file.columns = read_columns(options.node("columns"), path + ".columns");
    file.limit = options.get<int64_t>("limit");
    if (options.get<double>("weight") != 1)
      fail(ErrorCode::Unsupported,
           "{}: mixing files by weight is not built yet; leave it out, or set a limit",
           options.where("weight"));
  } else {
    if (!node.is_scalar()) wrong_value(node, path, kForms);
    file.path = node.text();
  }
  if (file.path.empty()) wrong_value(node, path, kForms);
  return file;
}

std::vector<DataFile> read_files(const Node& node, const std::string& path) {
  if (!node.is_list()) return {read_file_entry(node, path)};
  if (node.items().empty()) wrong_value(node, path, "at least one file");
  std::vector<DataFile> files;
  for (size_t i = 0; i < node.items().size(); ++i)
    files.push_back(read_file_entry(node.items()[i], format("{}[{}]", path, i)));
  return files;
}

/// data.eval: files, a percentage, or an unquoted number of rows.
void read_eval(const Node& node, Recipe& recipe) {
  if (is_none(node)) return;
  if (!node.is_scalar()) {
    recipe.eval = read_files(node, "data.eval");
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
    recipe.eval = read_files(node, "data.eval");
    return;
  }
  if (!value.is_number_integer() || value.get<int64_t>() < 1)
    wrong_value(node, "data.eval",
                "a path, a share such as 10%, or a number of rows of at least 1");
  recipe.eval_share = value.get<double>();
}

void read_data(const Node& node, Recipe& recipe) {
  const Options options(data_options(), node, "data");
  recipe.train = read_files(options.node("train"), "data.train");
  read_eval(options.node("eval"), recipe);
  recipe.columns = read_columns(options.node("columns"), "data.columns");
  recipe.max_length = options.get<int64_t>("max_length");
  recipe.too_long = options.get<std::string>("too_long");
  recipe.skip_bad_rows = options.get<std::string>("on_bad_row") == "skip";
  recipe.header = options.get<bool>("header");
}

Json read_class_weights(const Node& node) {
  constexpr std::string_view kForms = "balanced, or {label: weight}";
  if (is_none(node)) return nullptr;
  if (node.is_scalar() && node.text() == "balanced") return "balanced";
  if (!node.is_map()) wrong_value(node, "class_weights", kForms);
  Json weights = Json::object();
  for (const auto& [label, value] : node.entries()) {
    const std::string path = "class_weights." + label;
    const double weight = value.as_number(path);
    if (!(weight >= 0) || !std::isfinite(weight))
      wrong_value(value, path, "a weight of at least 0");
    weights[label] = weight;
  }
  return weights;
}

/// Of several ways to say one thing, at most one may be stated.
void at_most_one(const Options& options, const std::vector<std::string>& keys) {
  std::string first;
  for (const std::string& key : keys) {
    if (!options.given(key)) continue;
    if (!first.empty())
      fail(ErrorCode::BadInput, "{}: {} is given too (line {}); give one of {}", options.where(key),
           first, options.place(first).line, join(keys, ", "));
    first = key;
  }
}

void read_optimizer(const Options& train, Recipe& recipe) {
  const Node& node = train.node("optimizer");
  const Named named = read_named(node, "train.optimizer");
  if (named.name != "adamw")
    fail(ErrorCode::BadInput, "{}: there is no optimizer \"{}\";{}", named.where(), named.name,
         suggestion(named.name, {"adamw"}));
  const Options options(adamw_options(), named.options, "train.optimizer.adamw");
  const std::vector<double> betas = options.get<std::vector<double>>("betas");
  if (betas.size() != 2)
    wrong_value(options.node("betas"), "train.optimizer.adamw.betas", "two numbers");
  recipe.beta1 = betas[0];
  recipe.beta2 = betas[1];
  recipe.eps = options.get<double>("eps");
  recipe.weight_decay = options.get<double>("weight_decay");
  const bool here = options.node("lr").text() != "auto";
  const bool outside = train.node("lr").text() != "auto";
  if (here && outside)
    fail(ErrorCode::BadInput, "{}: the learning rate is given at {} too; give one",
         train.where("lr"), options.where("lr"));
  if (here) recipe.lr = options.get<double>("lr");
  if (outside) recipe.lr = train.get<double>("lr");
}

/// best: accuracy, or {metric: accuracy, patience: 5}.
void read_best(const Node& node, Recipe& recipe) {
  if (is_none(node)) return;
  if (node.is_scalar()) {
    recipe.best_metric = node.text();
    check_metric(recipe.best_metric, node);
    return;
  }
  const Options options(
      {{"metric", "string", "auto", "", "the metric; auto: the task's main one"},
       {"patience", "int", "0", "[0, inf)", "evaluations without improvement; 0: never stop"}},
      node, "train.best");
  recipe.best_metric = options.get<std::string>("metric");
  recipe.patience = options.get<int64_t>("patience");
  check_metric(recipe.best_metric, options.node("metric"));
}

/// How long to train and how much at a time.
void read_length(const Options& options, Recipe& recipe) {
  at_most_one(options, {"epochs", "steps", "minutes"});
  at_most_one(options, {"batch_tokens", "batch_size"});
  recipe.epochs = options.get<double>("epochs");
  recipe.steps = options.get<int64_t>("steps");
  recipe.minutes = options.get<double>("minutes");
  if (recipe.steps > 0 || recipe.minutes > 0) recipe.epochs = 0;
  recipe.batch_tokens = options.get<int64_t>("batch_tokens");
  recipe.batch_size = options.get<int64_t>("batch_size");
  if (recipe.batch_size > 0) recipe.batch_tokens = 0;
  recipe.accumulate = options.get<int64_t>("accumulate");
}

void read_train(const Node& node, Recipe& recipe) {
  const Options options(train_options(), node, "train");
  read_length(options, recipe);
  read_optimizer(options, recipe);
  recipe.schedule = read_schedule(options.node("schedule"), "train.schedule");
  recipe.clip = options.get<double>("clip");
  recipe.precision = options.get<std::string>("precision");
  recipe.eval_every = read_interval(options.node("eval_every"), "train.eval_every");
  recipe.save_every = read_interval(options.node("save_every"), "train.save_every");
  recipe.log_every = options.get<int64_t>("log_every");
  recipe.keep = options.get<int64_t>("keep");
  read_best(options.node("best"), recipe);
  recipe.seed = static_cast<uint64_t>(options.get<int64_t>("seed"));
  recipe.threads = options.get<int>("threads");
}

/// runs/ and the recipe file's name; from flags, the task's.
std::string default_output(const Node& root, const std::string& task) {
  const std::filesystem::path file(root.place().file);
  const std::string extension = file.extension().string();
  if (extension == ".yaml" || extension == ".yml" || extension == ".json")
    return "runs/" + file.stem().string();
  return "runs/" + task;
}

}  // namespace

Recipe Recipe::from_node(const Node& node) {
  const Options options(top_options(), node, "");
  Recipe recipe;
  recipe.model = options.get<std::string>("model");
  recipe.task = options.get<std::string>("task");
  check_task(recipe.task, options.node("task"));
  recipe.init_from = options.get<std::string>("init_from");
  recipe.output = options.get<std::string>("output");
  if (recipe.output.empty()) recipe.output = default_output(node, recipe.task);
  read_data(options.node("data"), recipe);
  recipe.methods = checked_methods(options.node("methods"));
  recipe.policies = checked_policies(options.node("policies"));
  recipe.objective = checked_objective(options.node("objective"));
  const Options head({{"pool", "choice", "auto", "auto|first|pooler|mean|max",
                       "how a sequence becomes one vector"}},
                     options.node("head"), "head");
  recipe.pool = head.get<std::string>("pool");
  recipe.label_smoothing = options.get<double>("label_smoothing");
  recipe.class_weights = read_class_weights(options.node("class_weights"));
  if (options.given("eval_on") && !options.node("eval_on").items().empty())
    fail(ErrorCode::Unsupported,
         "{}: evaluating further files is not built yet; run attune eval on each after the run",
         options.where("eval_on"));
  read_train(options.node("train"), recipe);
  return recipe;
}

}  // namespace attune
