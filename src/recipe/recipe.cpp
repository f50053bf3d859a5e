#include "recipe/recipe.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "base/text.h"
#include "recipe/data_files.h"
#include "recipe/names.h"
#include "recipe/values.h"
#include "train/evaluate.h"

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
      {"storage", "any", "full", "",
       "how frozen projections are kept: full, int8, nf4, or {nf4: {double_quant: .., sites: ..}}"},
      {"train", "map", "{}", "", "how to train"},
      {"output", "string", "null", "", "run directory; default: runs/ and the recipe's name"},
      {"init_from", "string", "null", "", "a run to start from"},
      {"label_smoothing", "number", "0", "[0, 1)", "share of the target spread over all labels"},
      {"eval_on", "any", "[]", "", "further files to evaluate on, each under a name"},
      {"class_weights", "any", "null", "", "balanced, or {label: weight}"},
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
      {"lr", "any", "auto", "",
       "peak learning rate of all; auto: every method's own; {lora: 2e-3, head: 1e-2}: by method"},
      {"schedule", "any", "linear", "", "linear, cosine, constant"},
      {"clip", "number", "1", "[0, inf)", "largest gradient norm; 0: off"},
      {"precision", "choice", "auto", "auto|fp32|bf16|fp64",
       "number format of the forward and backward pass"},
      {"recompute", "any", "none", "",
       "none, blocks, or N: the (lowest N) blocks keep their input alone and are computed again in "
       "the backward pass"},
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

const std::vector<Option>& head_options() {
  static const std::vector<Option> kOptions = {
      {"pool", "choice", "auto", "auto|first|pooler|mean|max", "how a sequence becomes one vector"},
      {"dropout", "number", "auto", "[0, 1)",
       "dropout before the last projection; auto: the checkpoint's"},
  };
  return kOptions;
}

/// Of one kind of codes.
const std::vector<Option>& codes_options(const std::string& kind) {
  static const std::vector<Option> kSites = {
      {"sites", "globs", "[\"*\"]", "", "which projections inside blocks become codes"}};
  static const std::vector<Option> kNf4 = {
      kSites[0], {"double_quant", "bool", "true", "", "keep the scales as 8-bit codes too"}};
  return kind == "nf4" ? kNf4 : kSites;
}

StorageOptions read_storage(const Node& node) {
  const Named named = read_named(node, "storage");
  StorageOptions storage;
  storage.kind = named.name;
  const std::vector<std::string> kinds = {"full", "int8", "nf4"};
  if (std::find(kinds.begin(), kinds.end(), named.name) == kinds.end())
    fail(ErrorCode::BadInput, "{}: there is no storage \"{}\";{}", named.where(), named.name,
         suggestion(named.name, kinds));
  if (named.name == "full") {
    const Options none({}, named.options, "storage.full");
    return storage;
  }
  const Options options(codes_options(named.name), named.options, "storage." + named.name);
  storage.sites = options.get<std::vector<std::string>>("sites");
  if (named.name == "nf4") storage.double_quant = options.get<bool>("double_quant");
  return storage;
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
  const Node& rate = train.node("lr");
  const bool outside = !rate.is_scalar() || rate.text() != "auto";
  if (here && outside)
    fail(ErrorCode::BadInput, "{}: the learning rate is given at {} too; give one",
         train.where("lr"), options.where("lr"));
  if (here) recipe.lr = options.get<double>("lr");
  if (!outside) return;
  if (rate.is_map()) {
    recipe.rates = checked_rates(rate, "train.lr");
    return;
  }
  recipe.lr = rate.as_number("train.lr");
  if (!(recipe.lr > 0 && recipe.lr <= 1000))
    fail(ErrorCode::BadInput, "{}: {} is outside (0, 1000]", train.where("lr"), rate.shown());
}

/// accuracy, or NAME/accuracy of a set of eval_on.
void check_best(const Recipe& recipe, const Node& node) {
  const size_t slash = recipe.best_metric.find('/');
  check_metric(metric_name(recipe.best_metric), node);
  if (slash == std::string::npos) return;
  std::vector<std::string> names;
  for (const DataFile& file : recipe.eval_on) names.push_back(file.name);
  const std::string name = recipe.best_metric.substr(0, slash);
  if (std::find(names.begin(), names.end(), name) == names.end())
    fail(ErrorCode::BadInput, "{}{}train.best: eval_on has no set \"{}\";{}", node.place().text(),
         node.place().text().empty() ? "" : ": ", name, suggestion(name, names));
}

/// best: accuracy, or {metric: accuracy, patience: 5}.
void read_best(const Node& node, Recipe& recipe) {
  if (is_none(node)) return;
  if (node.is_scalar()) {
    recipe.best_metric = node.text();
    check_best(recipe, node);
    return;
  }
  const Options options(
      {{"metric", "string", "auto", "", "the metric; auto: the task's main one"},
       {"patience", "int", "0", "[0, inf)", "evaluations without improvement; 0: never stop"}},
      node, "train.best");
  recipe.best_metric = options.get<std::string>("metric");
  recipe.patience = options.get<int64_t>("patience");
  check_best(recipe, options.node("metric"));
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

int recompute_of(const Options& options) {
  const std::string text = options.node("recompute").text();
  if (text == "none") return 0;
  if (text == "blocks") return -1;
  int blocks = 0;
  const char* const end = text.data() + text.size();
  const std::from_chars_result read = std::from_chars(text.data(), end, blocks);
  if (read.ec != std::errc() || read.ptr != end || blocks < 0)
    fail(ErrorCode::BadInput,
         "{}: \"{}\" is not none, blocks or a number of blocks; none keeps everything for the "
         "backward pass, blocks needs least memory and about a third more time",
         options.where("recompute"), text);
  return blocks;
}

void read_train(const Node& node, Recipe& recipe) {
  const Options options(train_options(), node, "train");
  read_length(options, recipe);
  read_optimizer(options, recipe);
  recipe.schedule = read_schedule(options.node("schedule"), "train.schedule");
  recipe.clip = options.get<double>("clip");
  recipe.precision = options.get<std::string>("precision");
  recipe.recompute = recompute_of(options);
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
  recipe.output = without_end_slash(options.get<std::string>("output"));
  if (recipe.output.empty()) recipe.output = default_output(node, recipe.task);
  read_data(options.node("data"), options.node("eval_on"), recipe);
  recipe.methods = checked_methods(options.node("methods"));
  recipe.policies = checked_policies(options.node("policies"));
  recipe.objective = checked_objective(options.node("objective"));
  const Options head(head_options(), options.node("head"), "head");
  recipe.pool = head.get<std::string>("pool");
  if (head.node("dropout").text() != "auto") recipe.head_dropout = head.get<double>("dropout");
  recipe.storage = read_storage(options.node("storage"));
  recipe.label_smoothing = options.get<double>("label_smoothing");
  recipe.class_weights = read_class_weights(options.node("class_weights"));
  read_train(options.node("train"), recipe);
  return recipe;
}

}  // namespace attune
