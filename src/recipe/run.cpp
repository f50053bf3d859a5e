// A training run from start to finish: its directory, its trainer, its record (run.json).
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "kernels/kernels.h"
#include "recipe/hf_files.h"
#include "recipe/session.h"
#include "recipe/yaml.h"
#include "report/trainer_state.h"
#include "tensor/compat.h"
#include "tensor/process.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace fs = std::filesystem;

namespace {

/// Whether a run directory holds anything but the lock and what a run leaves that was killed before
/// its recipe stood there.
bool is_used(const std::string& run) {
  if (!directory_exists(run)) return false;
  const bool begun = file_exists(run + "/.lock") && !file_exists(run + "/recipe.yaml");
  for (const fs::directory_entry& entry : fs::directory_iterator(run)) {
    const std::string name = entry.path().filename().string();
    const bool left = begun && (name == "init" || starts_with(name, "bad_rows.txt") ||
                                starts_with(name, "recipe.yaml.tmp."));
    if (name != ".lock" && !left) return true;
  }
  return false;
}

void check_directory(const std::string& run, bool overwrite) {
  if (file_exists(run))
    fail(ErrorCode::BadInput, "the output directory {} is a file; give another `output`", run);
  if (is_used(run)) {
    if (!overwrite)
      fail(ErrorCode::BadInput,
           "the output directory {} exists already; give another `output`, or --overwrite to "
           "replace "
           "the run in it, or `attune resume {}` to go on with it",
           run, run);
    if (!file_exists(run + "/recipe.yaml"))
      fail(ErrorCode::BadInput,
           "--overwrite: {} holds no run of Attune (no recipe.yaml), so it is left alone; give "
           "another `output`",
           run);
  }
}

/// Empties a run directory, its lock apart. The caller holds the lock.
void clear_directory(const std::string& run) {
  std::vector<fs::path> old;
  for (const fs::directory_entry& entry : fs::directory_iterator(run))
    if (entry.path().filename() != ".lock") old.push_back(entry.path());
  for (const fs::path& path : old) fs::remove_all(path);
}

Json machine() {
  struct utsname name {};
  uname(&name);
  return Json{{"system", format("{} {}", name.sysname, name.release)},
              {"threads", kernels::threads()},
              {"instructions", kernels::isa_name(kernels::isa())}};
}

/// What the kept adapter takes: less than its tensors where they are mostly zeros.
int64_t stored_bytes(const std::string& run, const Cost& cost) {
  std::error_code absent;
  const uintmax_t file = fs::file_size(run + "/adapter/attune.safetensors", absent);
  return absent ? cost.stored_bytes : std::min(cost.stored_bytes, static_cast<int64_t>(file));
}

Json run_record(Session& session, const std::string& run, const Trainer::Result& result,
                const TrainConfig& config) {
  const Cost cost = session.adaptation().cost();
  return Json{
      {"metrics", result.metrics},
      {"eval_on", result.eval_on},
      {"kept", Json{{"step", result.kept_step},
                    {"which", config.best_metric.empty() ? "last" : "best " + config.best_metric}}},
      {"steps", result.steps},
      {"examples", result.examples},
      {"tokens", result.tokens},
      {"seconds", result.seconds},
      {"tokens_per_second",
       result.seconds > 0 ? static_cast<double>(result.tokens) / result.seconds : 0},
      {"first_loss", result.first_loss},
      {"last_loss", result.last_loss},
      {"stopped_early", result.stopped_early},
      {"rows_cut", result.cut_rows},
      {"rows_skipped", session.bad_rows().size()},
      {"costs", Json{{"trainable", cost.trainable},
                     {"head", cost.head},
                     {"stored_bytes", stored_bytes(run, cost)}}},
      {"storage", Json{{"weights", session.stored().weights}, {"bytes", session.stored().bytes}}},
      {"peak_bytes", peak_resident_bytes()},
      {"seed", session.recipe().seed},
      {"precision", dtype_name(session.model().numerics().compute)},
      {"versions", Json{{"attune", ATTUNE_VERSION}, {"libtorch", libtorch_version()}}},
      {"machine", machine()},
      {"sha256", session.sources()}};
}

/// "accuracy", or "NAME/accuracy", of the state that is kept; null when there is none.
Json kept_metric(const Trainer::Result& result, const std::string& name) {
  const size_t slash = name.find('/');
  const Json metrics = slash == std::string::npos
                           ? result.metrics
                           : result.eval_on.value(name.substr(0, slash), Json::object());
  return metrics.is_object() ? metrics.value(metric_name(name), Json()) : Json();
}

void write_trainer_state(const std::string& run, const Trainer::Result& result,
                         const TrainConfig& config) {
  TrainerState state;
  state.global_step = state.max_steps = result.steps;
  state.num_train_epochs = config.epochs;
  state.logging_steps = config.log_every;
  state.train_batch_size = config.batches.batch_size;
  if (!result.history.empty()) state.epoch = result.history.back().value("epoch", 0.0);
  const Json best = kept_metric(result, config.best_metric);
  if (best.is_number()) state.best_metric = best.get<double>();
  const std::vector<Json> records(result.history.begin(), result.history.end());
  write_file_atomic(run + "/trainer_state.json", trainer_state_json(state, records).dump(2) + "\n");
}

int finish(Session& session, const std::string& run, const Trainer::Result& result,
           const TrainConfig& config, Json& out) {
  if (result.signal != 0) {
    log_info("stopped at step {}; everything is saved. Go on with: attune resume {}", result.steps,
             run);
    out = Json{{"run", run}, {"interrupted", true}, {"step", result.steps}};
    return 128 + result.signal;
  }
  if (result.cut_rows > 0)
    log_warning("{} row(s) were longer than data.max_length and were cut",
                with_thousands(result.cut_rows));
  out = run_record(session, run, result, config);
  write_file_atomic(run + "/run.json", out.dump(2) + "\n");
  write_trainer_state(run, result, config);
  for (const TunerSpec& spec : session.adaptation().specs("default"))
    if (spec.method == "full") write_run_model(session, run);
  out["run"] = run;
  return 0;
}

void show_summary(const Session& session) {
  for (const std::string& line : session.summary()) log_info("{}", line);
}

/// A run must not empty the directory that holds what it starts from.
void check_not_emptied(const Recipe& recipe) {
  if (!directory_exists(recipe.output)) return;
  const std::string output = fs::canonical(recipe.output).string() + "/";
  const auto check = [&](const std::string& key, const std::string& path) {
    if (path.empty() || path == "-") return;
    if (starts_with(fs::weakly_canonical(path).string() + "/", output))
      fail(ErrorCode::BadInput,
           "{}: {} lies in the output directory {}, which is emptied before the run; give another "
           "`output`",
           key, path, recipe.output);
  };
  check("model", directory_exists(recipe.model) ? recipe.model : "");
  check("init_from", recipe.init_from);
  for (const DataFile& file : recipe.train) check("data.train", file.path);
  for (const DataFile& file : recipe.eval) check("data.eval", file.path);
  for (const DataFile& file : recipe.eval_on) check("eval_on." + file.name, file.path);
  if (recipe.init_from.empty()) return;
  if (starts_with(output, fs::weakly_canonical(recipe.init_from).string() + "/"))
    fail(ErrorCode::BadInput,
         "init_from: the output {} lies in the run {} that it starts from; give another `output`",
         recipe.output, recipe.init_from);
}

}  // namespace

void check_output(const Recipe& recipe, bool overwrite) {
  check_not_emptied(recipe);
  check_directory(recipe.output, overwrite);
}

int train_run(Recipe recipe, bool overwrite, Progress& progress, Json& result) {
  start_threads(recipe.threads);
  const std::string run = recipe.output;
  check_output(recipe, overwrite);
  Session session(std::move(recipe));  // everything is checked before anything is written
  session.check_rows();
  show_summary(session);
  const TrainConfig config = session.train_config();
  Trainer trainer(config, session.parts(run), progress);
  trainer.prepare();
  fs::create_directories(run);
  const FileLock lock(run + "/.lock");
  check_directory(run, overwrite);  // another process may have been quicker
  clear_directory(run);
  if (session.start() != nullptr) session.start()->keep_in(run);
  if (const std::vector<std::string> bad = session.bad_rows(); !bad.empty())
    write_file_atomic(run + "/bad_rows.txt", join(bad, "\n") + "\n");
  write_file_atomic(run + "/recipe.yaml", session.recipe().located().resolved_yaml());
  return finish(session, run, trainer.run(false), config, result);
}

int resume_run(const std::string& run, int threads, Progress& progress, Json& result) {
  if (!file_exists(run + "/recipe.yaml"))
    fail(ErrorCode::NotFound,
         "resuming {}: there is no recipe.yaml in it; give the directory of a run", run);
  const FileLock lock(run + "/.lock");
  remove_left_overs(run);
  Recipe recipe = load_recipe(run + "/recipe.yaml", {});
  recipe.output = run;
  if (const std::string start = kept_start(run); !start.empty()) recipe.init_from = start;
  if (threads > 0) recipe.threads = threads;
  start_threads(recipe.threads);
  Session session(std::move(recipe));
  const bool has_checkpoint = !run_checkpoints(run).empty();
  if (!has_checkpoint) log_info("no checkpoint yet: the run starts from its beginning");
  show_summary(session);
  const TrainConfig config = session.train_config();
  Trainer trainer(config, session.parts(run), progress);
  return finish(session, run, trainer.run(has_checkpoint), config, result);
}

}  // namespace attune
