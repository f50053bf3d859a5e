// train, resume, check.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "recipe/session.h"
#include "tensor/process.h"

namespace attune {

namespace {

Recipe recipe_of(const Json& args) {
  const std::string path = text_arg(args, "recipe");
  const std::vector<std::string> sets = list_arg(args, "set");
  Recipe recipe = path.empty() ? recipe_from_flags(args, sets) : load_recipe(path, sets, args);
  if (path.empty()) log_info("recipe made from the flags:\n{}", recipe.resolved_yaml());
  return recipe;
}

std::string metric_line(const Json& metrics) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : metrics.items())
    if (value.is_number_float()) parts.push_back(format("{} {:.4f}", name, value.get<double>()));
  return join(parts, ", ");
}

/// "24: enc.*.self.q (12), enc.*.self.v (12)": how many sites, and which, all layers in one.
std::string sites_in_short(const Names& sites) {
  std::vector<std::pair<std::string, int64_t>> groups;
  for (const std::string& site : sites) {
    std::vector<std::string> parts = split(site, '.');
    for (std::string& part : parts)
      if (part.find_first_not_of("0123456789") == std::string::npos) part = "*";
    const std::string name = join(parts, ".");
    const auto same = [&](const std::pair<std::string, int64_t>& group) {
      return group.first == name;
    };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end())
      groups.emplace_back(name, 1);
    else
      ++found->second;
  }
  std::vector<std::string> shown;
  for (const std::pair<std::string, int64_t>& group : groups)
    shown.push_back(group.second > 1 ? format("{} ({})", group.first, group.second) : group.first);
  return format("{}{}{}", sites.size(), shown.empty() ? "" : ": ", join(shown, ", "));
}

int report_run(const Json& args, int status, const Json& result) {
  if (status != 0) {
    if (flag_arg(args, "json")) answer(args, result, "");
    return status;
  }
  const std::string run = result["run"].get<std::string>();
  std::string text = format(
      "{} steps, {} tokens in {} ({:.0f} tokens/s), peak memory {}", result["steps"].get<int64_t>(),
      with_thousands(result["tokens"].get<int64_t>()),
      human_seconds(result["seconds"].get<double>()), result["tokens_per_second"].get<double>(),
      human_bytes(result["peak_bytes"].get<double>()));
  if (result["metrics"].is_object())
    text += format("\n{} (step {}): {}", result["kept"]["which"].get<std::string>(),
                   result["kept"]["step"].get<int64_t>(), metric_line(result["metrics"]));
  const std::string model = directory_exists(run + "/model")
                                ? format(", a Hugging Face checkpoint in {}/model", run)
                                : "";
  text +=
      format("\nresult in {}/adapter{}; try: attune predict {} --text \"...\"", run, model, run);
  answer(args, result, text);
  return 0;
}

}  // namespace

int run_train(const Json& args) {
  Json result;
  const std::unique_ptr<Progress> progress = progress_of(args);
  const int status = train_run(recipe_of(args), flag_arg(args, "overwrite"), *progress, result);
  return report_run(args, status, result);
}

int run_resume(const Json& args) {
  if (args.contains("seed") && args["seed"].is_number())
    fail(ErrorCode::BadInput,
         "--seed {}: a run goes on with the seed it began with, or it would not end as it would "
         "have without the stop; for another seed start another run: attune train {}/recipe.yaml "
         "--seed {} --output DIR",
         args["seed"].dump(), text_arg(args, "run"), args["seed"].dump());
  Json result;
  const std::unique_ptr<Progress> progress = progress_of(args);
  const int status = resume_run(text_arg(args, "run"),
                                static_cast<int>(int_arg(args, "threads", 0)), *progress, result);
  return report_run(args, status, result);
}

int run_check(const Json& args) {
  Recipe recipe = recipe_of(args);
  start_threads(recipe.threads);
  check_output(recipe, true);
  if (directory_exists(recipe.output) && !std::filesystem::is_empty(recipe.output))
    log_warning("output: {} holds a run already; train replaces it only with --overwrite",
                recipe.output);
  Session session(std::move(recipe));
  session.train_config();  // mistakes that need no row come first
  const int64_t sample = std::min<int64_t>(session.train_view().size(), 20000);
  int64_t cut = 0, tokens = 0, longest = 0;
  for (int64_t i = 0; i < sample; ++i) {
    const Example example = session.train_view().encode(session.task(), i, true);
    const int64_t length = example.rows();
    tokens += length;
    longest = std::max(longest, length + example.dropped);
    cut += example.dropped > 0 ? 1 : 0;
  }
  session.check_rows();
  Progress silent(stderr, Progress::Mode::Quiet);
  Trainer(session.train_config(), session.parts(""), silent).prepare(true);
  Json rows{{"train", session.train_view().size()}, {"eval", session.eval_view().size()}};
  for (const NamedView& set : session.eval_on()) rows["eval_on"][set.name] = set.view.size();
  Json labels = Json::object();
  const std::vector<int64_t> counts = session.task().label_counts();
  for (size_t i = 0; i < counts.size(); ++i) labels[session.task().labels()[i]] = counts[i];
  const Cost cost = session.adaptation().cost();
  Json methods = Json::array();
  for (const std::pair<std::string, Names>& method : session.method_sites())
    methods.push_back(Json{{"method", method.first}, {"sites", method.second}});
  const Json object{{"ok", true},
                    {"rows", rows},
                    {"labels", labels},
                    {"tokens", Json{{"mean", static_cast<double>(tokens) /
                                                 static_cast<double>(std::max<int64_t>(1, sample))},
                                    {"longest", longest},
                                    {"rows_cut", cut},
                                    {"rows_read", sample}}},
                    {"methods", methods},
                    {"trained", Json{{"parameters", cost.trainable}, {"head", cost.head}}},
                    {"lr", session.train_config().lr},
                    {"rates", session.recipe().rates}};
  std::string text = join(session.summary(), "\n");
  for (const Json& method : methods)
    text += format("\nsites      {}: {}", method["method"].get<std::string>(),
                   sites_in_short(method["sites"].get<Names>()));
  text += format(
      "\nlengths    {:.1f} tokens on average, the longest {}; {} of {} rows read are cut by "
      "max_length",
      object["tokens"]["mean"].get<double>(), longest, cut, sample);
  if (!counts.empty()) {
    const int64_t least = *std::min_element(counts.begin(), counts.end());
    const int64_t most = *std::max_element(counts.begin(), counts.end());
    text += format("\nlabels     {}, from {} to {} rows each", counts.size(), least, most);
  }
  if (session.recipe().rates.empty()) text += format("\nlr         {}", session.recipe().lr);
  text += "\nno problem found";
  answer(args, object, text);
  return 0;
}

}  // namespace attune
