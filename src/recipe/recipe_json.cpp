// A recipe written back, every default in place.
#include <filesystem>

#include "base/file.h"
#include "recipe/recipe.h"
#include "recipe/values.h"
#include "recipe/yaml.h"

namespace attune {

namespace {

Json file_json(const DataFile& file) {
  Json result = {{"path", file.path}};
  if (!file.name.empty()) result["name"] = file.name;
  if (!file.columns.empty()) result["columns"] = file.columns;
  if (file.limit != 0) result["limit"] = file.limit;
  if (file.weight > 0) result["weight"] = file.weight;
  return result.size() == 1 ? Json(file.path) : result;
}

/// One file too is written as a list: a path such as "10%" stays a path.
Json files_json(const std::vector<DataFile>& files) {
  Json result = Json::array();
  for (const DataFile& file : files) result.push_back(file_json(file));
  return result;
}

Json eval_json(const Recipe& recipe) {
  if (!recipe.eval.empty()) return files_json(recipe.eval);
  if (recipe.eval_share >= 1) return static_cast<int64_t>(recipe.eval_share);
  if (recipe.eval_share > 0) return percent_text(recipe.eval_share);
  return nullptr;
}

Json data_json(const Recipe& recipe) {
  Json result = {{"train", files_json(recipe.train)}, {"eval", eval_json(recipe)}};
  result["eval_on"] = files_json(recipe.eval_on);
  result["columns"] = recipe.columns.empty() ? Json::object() : Json(recipe.columns);
  result["max_length"] = recipe.max_length;
  result["too_long"] = recipe.too_long;
  result["on_bad_row"] = recipe.skip_bad_rows ? "skip" : "error";
  result["header"] = recipe.header;
  return result;
}

Json named_json(const NamedOptions& named) {
  if (named.options.empty()) return named.name;
  Json result = Json::object();
  result[named.name] = named.options;
  return result;
}

Json named_list_json(const std::vector<NamedOptions>& list) {
  Json result = Json::array();
  for (const NamedOptions& named : list) result.push_back(named_json(named));
  return result;
}

Json train_json(const Recipe& recipe) {
  Json result = Json::object();
  if (recipe.steps > 0) {
    result["steps"] = recipe.steps;
  } else if (recipe.minutes > 0) {
    result["minutes"] = recipe.minutes;
  } else {
    result["epochs"] = recipe.epochs;
  }
  if (recipe.batch_size > 0) {
    result["batch_size"] = recipe.batch_size;
  } else {
    result["batch_tokens"] = recipe.batch_tokens;
  }
  result["accumulate"] = recipe.accumulate;
  Json adamw = Json::object();
  adamw["betas"] = Json::array({recipe.beta1, recipe.beta2});
  adamw["eps"] = recipe.eps;
  adamw["weight_decay"] = recipe.weight_decay;
  result["optimizer"]["adamw"] = adamw;
  result["lr"] = recipe.lr > 0          ? Json(recipe.lr)
                 : recipe.rates.empty() ? Json("auto")
                                        : Json(recipe.rates);
  result["schedule"] = schedule_json(recipe.schedule);
  result["clip"] = recipe.clip;
  result["precision"] = recipe.precision;
  result["recompute"] = recipe.recompute < 0    ? Json("blocks")
                        : recipe.recompute == 0 ? Json("none")
                                                : Json(recipe.recompute);
  result["eval_every"] = interval_json(recipe.eval_every);
  result["save_every"] = interval_json(recipe.save_every);
  result["log_every"] = recipe.log_every;
  result["keep"] = recipe.keep;
  Json best;
  if (!recipe.best_metric.empty())
    best = Json{{"metric", recipe.best_metric}, {"patience", recipe.patience}};
  result["best"] = best;
  result["seed"] = recipe.seed;
  result["threads"] = recipe.threads;
  return result;
}

}  // namespace

Recipe Recipe::located() const {
  const auto absolute = [](const std::string& path) {
    return without_end_slash(std::filesystem::absolute(path).lexically_normal().string());
  };
  Recipe recipe = *this;
  if (directory_exists(model)) recipe.model = absolute(model);
  if (!init_from.empty()) recipe.init_from = absolute(init_from);
  for (std::vector<DataFile>* files : {&recipe.train, &recipe.eval, &recipe.eval_on})
    for (DataFile& file : *files)
      if (file.path != "-") file.path = absolute(file.path);
  recipe.output = absolute(output);
  return recipe;
}

Json Recipe::resolved() const {
  Json result = {{"model", model}, {"task", task}};
  if (!init_from.empty()) result["init_from"] = init_from;
  result["data"] = data_json(*this);
  result["methods"] = named_list_json(methods);
  result["policies"] = named_list_json(policies);
  result["objective"] = named_json(objective);
  result["head"]["pool"] = pool;
  result["head"]["dropout"] = head_dropout < 0 ? Json("auto") : Json(head_dropout);
  result["storage"] = storage.to_json();
  result["label_smoothing"] = label_smoothing;
  result["class_weights"] = class_weights;
  result["train"] = train_json(*this);
  result["output"] = output;
  return result;
}

std::string Recipe::resolved_yaml() const {
  return "# Every default filled in: running this recipe again repeats the run.\n" +
         to_yaml(resolved());
}

}  // namespace attune
