#include "train/run_state.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "io/safetensors.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "train/adapter_files.h"

namespace attune {

namespace fs = std::filesystem;

namespace {

/// The number in "step-000120", also as earlier versions wrote it ("step-00000120"); -1: none.
int64_t step_of(const std::string& folder) {
  const std::string name = fs::path(folder).filename().string(), digits = name.substr(5);
  int64_t step = -1;
  const std::from_chars_result read =
      std::from_chars(digits.data(), digits.data() + digits.size(), step);
  return read.ec == std::errc() && read.ptr == digits.data() + digits.size() ? step : -1;
}

}  // namespace

std::vector<std::string> run_checkpoints(const std::string& run) {
  std::vector<std::string> result;
  const std::string folder = run + "/checkpoints";
  if (!directory_exists(folder)) return result;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (entry.is_directory() && entry.path().filename().string().starts_with("step-"))
      result.push_back(entry.path().string());
  std::sort(result.begin(), result.end(), [](const std::string& a, const std::string& b) {
    const int64_t first = step_of(a), second = step_of(b);
    return first != second ? first < second : a < b;
  });
  return result;
}

void remove_left_overs(const std::string& run) {
  std::error_code ignored;
  for (const std::string& folder : {run, run + "/checkpoints"}) {
    if (!directory_exists(folder)) continue;
    std::vector<fs::path> found;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (name.find(".tmp") != std::string::npos || name.starts_with(".writing-"))
        found.push_back(entry.path());
    }
    for (const fs::path& path : found) fs::remove_all(path, ignored);
  }
}

void save_run_state(const std::string& run, const RunState& state, const NamedTensors& tensors,
                    int64_t keep) {
  const std::string name = format("step-{:06}", state.step);
  const std::string folder = run + "/checkpoints", fresh = folder + "/.writing-" + name;
  fs::remove_all(fresh);
  fs::create_directories(fresh);
  try {
    save_safetensors(fresh + "/state.safetensors", tensors);
    const Json json{{"format", "attune-run-state"},
                    {"version", 1},
                    {"step", state.step},
                    {"examples", state.examples},
                    {"epoch", state.position.epoch},
                    {"window", state.position.window},
                    {"batch", state.position.batch},
                    {"seconds", state.seconds},
                    {"evals", state.evals},
                    {"saves", state.saves},
                    {"best", state.best},
                    {"has_best", state.has_best},
                    {"best_step", state.best_step},
                    {"worse_evals", state.worse_evals},
                    {"log_bytes", state.log_bytes},
                    {"tokens", state.tokens},
                    {"first_loss", state.first_loss},
                    {"last_loss", state.last_loss},
                    {"cut_rows", state.cut_rows},
                    {"metrics", state.metrics},
                    {"eval_on", state.eval_on},
                    {"policies", state.policies},
                    {"moments", state.moments},
                    {"history", state.history},
                    {"sources", state.sources},
                    {"sha256", sha256_file(fresh + "/state.safetensors")}};
    write_file_atomic(fresh + "/state.json", json.dump() + "\n");
    replace_directory(fresh, folder + "/" + name);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    throw;
  }
  std::vector<std::string> all = run_checkpoints(run);
  for (size_t i = 0; i + static_cast<size_t>(std::max<int64_t>(1, keep)) < all.size(); ++i)
    fs::remove_all(all[i]);
}

namespace {

RunState parse_state(const Json& json) {
  RunState state;
  state.step = json.at("step").get<int64_t>();
  state.examples = json.at("examples").get<double>();
  state.position = {json.at("epoch").get<int64_t>(), json.at("window").get<int64_t>(),
                    json.at("batch").get<int64_t>()};
  state.seconds = json.at("seconds").get<double>();
  state.evals = json.at("evals").get<int64_t>();
  state.saves = json.at("saves").get<int64_t>();
  state.best = json.at("best").is_null() ? 0 : json.at("best").get<double>();
  state.has_best = json.at("has_best").get<bool>();
  state.best_step = json.at("best_step").get<int64_t>();
  state.worse_evals = json.at("worse_evals").get<int64_t>();
  state.log_bytes = json.at("log_bytes").get<int64_t>();
  state.tokens = json.at("tokens").get<int64_t>();
  state.first_loss = json.value("first_loss", 0.0);
  state.last_loss = json.value("last_loss", 0.0);
  state.cut_rows = json.value("cut_rows", int64_t{0});
  state.metrics = json.value("metrics", Json());
  state.eval_on = json.value("eval_on", Json::object());
  state.policies = json.at("policies").get<std::vector<std::string>>();
  state.moments = json.at("moments").get<std::vector<std::string>>();
  state.history = json.at("history");
  state.sources = json.value("sources", Json());
  return state;
}

/// A checkpoint that is as it was written.
struct Opened {
  RunState state;
  SafetensorsFile file;
};

Opened open_one(const std::string& folder) {
  const Json json = read_json(folder + "/state.json");
  const std::string path = folder + "/state.safetensors";
  if (json.at("sha256").get<std::string>() != sha256_file(path))
    fail(ErrorCode::Corrupt, "{}: its SHA-256 is not the one in state.json", path);
  return {parse_state(json), SafetensorsFile(path)};
}

void copy_tensors(const std::string& path, const SafetensorsFile& file,
                  const NamedTensors& tensors) {
  for (const std::pair<std::string, Tensor>& entry : tensors) {
    if (!file.has(entry.first))
      fail(ErrorCode::Corrupt, "{}: tensor {} is missing", path, entry.first);
    if (file.tensor(entry.first).sizes() != entry.second.sizes())
      fail(ErrorCode::Corrupt, "{}: tensor {} has another shape", path, entry.first);
  }
  at::NoGradGuard no_grad;
  for (const std::pair<std::string, Tensor>& entry : tensors) {
    const Tensor saved = file.tensor(entry.first);
    entry.second.detach().copy_(saved);
    release_pages(saved.data_ptr(), saved.nbytes());
    mark_changed(entry.second);
  }
}

}  // namespace

RunState load_run_state(const std::string& run, const TensorsOf& tensors) {
  std::vector<std::string> all = run_checkpoints(run);
  for (size_t i = all.size(); i-- > 0;) {
    bool asking = false;  // what `tensors` throws is about the recipe, not about this checkpoint
    try {
      const Opened opened = open_one(all[i]);
      asking = true;
      const NamedTensors targets = tensors(opened.state);
      asking = false;
      copy_tensors(all[i] + "/state.safetensors", opened.file, targets);
      return opened.state;
    } catch (const std::exception& error) {
      if (asking) throw;
      log_warning("skipping the damaged checkpoint {}: {}", all[i], error.what());
    }
  }
  fail(ErrorCode::NotFound,
       "resuming {}: there is no complete checkpoint in {}/checkpoints; start again with `attune "
       "train "
       "{}/recipe.yaml --overwrite`",
       run, run, run);
}

namespace {

/// "/eval_on/dev" -> "data of eval_on.dev"; "/model" -> "model".
std::string source_name(const std::string& pointer) {
  std::string name = pointer.substr(1);
  std::replace(name.begin(), name.end(), '/', '.');
  if (name == "model" || name == "tokenizer") return name;
  return name == "data" ? "data of data.train" : "data of " + name;
}

}  // namespace

void check_sources(const std::string& run, const Json& kept, const Json& here) {
  if (!kept.is_object()) return;
  const Json before = kept.flatten(), now = here.flatten();
  for (const auto& [name, hash] : before.items()) {
    if (hash.is_null() || !now.contains(name) || now[name] == hash) continue;
    fail(ErrorCode::BadInput,
         "resuming {}: the {} is not what the run was begun with (SHA-256 {}... then, {}... now), "
         "so it would not end as it would have; put back what was there, or start again with "
         "`attune train {}/recipe.yaml --overwrite`",
         run, source_name(name), hash.dump().substr(1, 16), now[name].dump().substr(1, 16), run);
  }
}

}  // namespace attune
