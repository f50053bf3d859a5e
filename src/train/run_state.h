#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "core/tuner.h"
#include "data/sampler.h"
#include "io/safetensors.h"

namespace attune {

/// The exact state of a run between two steps, beside its tensors (parameters, buffers, moments).
///
/// On disk: RUN/checkpoints/step-000120/state.json and state.safetensors. A checkpoint is written
/// to a hidden folder, synced and renamed, so a folder with its final name is complete; state.json
/// holds the SHA-256 of the tensor file.
struct RunState {
  int64_t step = 0;
  double examples = 0;  // consumed
  Sampler::Position position;
  double seconds = 0;            // of training, over all sessions
  int64_t evals = 0, saves = 0;  // intervals passed
  double best = 0;
  bool has_best = false;
  int64_t best_step = 0, worse_evals = 0;
  int64_t log_bytes = 0;
  int64_t tokens = 0;
  double first_loss = 0, last_loss = 0;
  int64_t cut_rows = 0;               // rows that max_length cut
  Json metrics;                       // of the state that is kept; null before the first evaluation
  Json eval_on = Json::object();      // the same of further evaluation sets, by name
  std::vector<std::string> policies;  // TrainingPolicy::save_state
  std::vector<std::string> moments;   // trained tensors that have optimizer moments
  Json history = Json::array();       // logged records, for trainer_state.json
  Json sources;                       // SHA-256 of model and data, by name; older ones have none
};

/// Writes a checkpoint and deletes the oldest beyond `keep`. Errors: Io; the earlier checkpoints
/// stay.
void save_run_state(const std::string& run, const RunState& state, const NamedTensors& tensors,
                    int64_t keep);
/// The live tensors that the values of a checkpoint go to, once it is known what it holds.
using TensorsOf = std::function<NamedTensors(const RunState&)>;
/// The newest complete checkpoint of a run: copies its tensors into those that `tensors` names.
/// Damaged ones are skipped with a warning. Errors: NotFound when there is none; whatever `tensors`
/// throws.
RunState load_run_state(const std::string& run, const TensorsOf& tensors);
/// Errors: BadInput when what a run is made from (RunState::sources) is not what it was; names that
/// a checkpoint does not have are not compared.
void check_sources(const std::string& run, const Json& kept, const Json& here);
/// Removes what a process that was killed left half written in a run directory. The caller holds
/// the run's lock.
void remove_left_overs(const std::string& run);
/// Names of the checkpoints of a run, oldest first.
std::vector<std::string> run_checkpoints(const std::string& run);

}  // namespace attune
