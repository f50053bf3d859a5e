#include "train/trainer.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "tensor/autograd.h"
#include "tensor/memory.h"
#include "tensor/torch.h"
#include "train/calibrate.h"
#include "train/evaluate.h"
#include "train/signals.h"

namespace attune {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

int64_t peak_resident_bytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

Trainer::Trainer(TrainConfig config, TrainParts parts, Progress& progress)
    : config_(std::move(config)),
      parts_(std::move(parts)),
      progress_(progress),
      loader_(parts_.task, parts_.train, config_.seed, config_.batches),
      optimizer_(config_.adamw) {}

double Trainer::total_examples() const {
  return config_.epochs * static_cast<double>(loader_.examples());
}

double Trainer::progress_of(double examples, int64_t step, double seconds) const {
  double done = 0;
  if (config_.steps > 0) {
    done = static_cast<double>(step) / static_cast<double>(config_.steps);
  } else if (config_.minutes > 0) {
    done = seconds / (60 * config_.minutes);
  } else {
    done = examples / total_examples();
  }
  return std::min(1.0, done);
}

bool Trainer::finished() const {
  if (config_.steps > 0) return run_.step >= config_.steps;
  if (config_.minutes > 0) return run_.seconds >= 60 * config_.minutes;
  return run_.examples + 0.5 >= total_examples();
}

Clock Trainer::clock() const {
  return {run_.step, run_.examples, progress_of(run_.examples, run_.step, run_.seconds),
          run_.seconds / 60, run_.examples / static_cast<double>(loader_.examples())};
}

NamedTensors Trainer::state_tensors() {
  NamedTensors tensors;
  for (const std::string& set : parts_.adaptation.sets()) {
    for (const std::pair<std::string, Tensor>& entry : parts_.adaptation.tensors(set))
      tensors.emplace_back(set + "/" + entry.first, entry.second);
    for (const std::pair<std::string, Tensor>& entry : parts_.adaptation.states(set))
      tensors.emplace_back("state/" + entry.first, entry.second);
  }
  for (size_t i = 0; i < parts_.policies.size(); ++i)
    for (const std::pair<std::string, Tensor>& entry : parts_.policies[i]->tensors())
      tensors.emplace_back(format("policy/{}/{}", i, entry.first), entry.second);
  for (const std::pair<std::string, Tensor>& entry : optimizer_.state()) tensors.push_back(entry);
  return tensors;
}

void Trainer::restore() {
  run_ = load_run_state(parts_.run, [this](const RunState& state) {
    if (parts_.sources) check_sources(parts_.run, state.sources, parts_.sources());
    for (size_t i = 0; i < parts_.policies.size() && i < state.policies.size(); ++i)
      parts_.policies[i]->load_state(state.policies[i]);
    optimizer_.expect(params_, state.moments);
    return state_tensors();
  });
  optimizer_.compact();
  loader_.seek(run_.position, run_.cut_rows);
  stopped_early_ = config_.patience > 0 && run_.worse_evals >= config_.patience;
  log_info("going on from step {} ({:.1f} % done)", run_.step, 100 * clock().progress);
}

void Trainer::prepare(bool looking) {
  begin(false);
  if (!looking) parts_.adaptation.calibrate(state_->calibration);
  state_->calibration = {};
}

void Trainer::begin(bool resume) {
  params_ = parts_.adaptation.trainable();
  if (params_.empty())
    fail(ErrorCode::BadInput, "nothing to train: the methods of this recipe train no tensor");
  // A mask that several methods share is made anew at every call; a single one is the method's own.
  const std::vector<Param> again = parts_.adaptation.trainable();
  for (size_t i = 0; i < params_.size(); ++i)
    if (params_[i].mask.defined() && !params_[i].mask.is_same(again[i].mask)) united_.push_back(i);
  state_.reset(new TrainState{parts_.model, parts_.adaptation, params_, {}});
  state_->pass.seed = config_.seed;
  state_->fresh = !resume;
  if (!resume) parts_.adaptation.check(limits());
  if (!resume)
    state_->calibration =
        calibration_of({parts_.model, parts_.objective, parts_.task, parts_.train,
                        parts_.class_weights, config_.batches, config_.seed, params_});
  for (const std::unique_ptr<TrainingPolicy>& policy : parts_.policies) policy->begin(*state_);
  if (parts_.policies.empty()) optimizer_.leave_rows_behind();  // a policy may read any value
  if (resume) restore();
}

Trainer::Result Trainer::run(bool resume) {
  const SignalWatch watch;
  if (resume) begin(true);
  if (state_ == nullptr) prepare();
  log_ = std::make_unique<LogWriter>(parts_.run + "/log.jsonl");
  log_->truncate_to(
      static_cast<uint64_t>(run_.log_bytes));  // what came after the checkpoint happens again
  events_ = std::make_unique<EventWriter>(parts_.run);
  const int64_t start_step = run_.step;
  progress_.begin(clock().progress);
  return_free_memory();  // what reading the files has left
  while (!finished() && !stopped_early_ && SignalWatch::received() == 0) {
    Window window = load_window();
    train_window(window);
    report(window);
    const int64_t evals = times_passed(config_.eval_every, clock());
    const bool evaluates = parts_.eval.size() > 0 || !parts_.eval_on.empty();
    if (evaluates && (evals > run_.evals || finished())) {
      run_.evals = evals;
      evaluate_now();
    }
    const int64_t saves = times_passed(config_.save_every, clock());
    if (saves > run_.saves || finished() || stopped_early_) {
      run_.saves = saves;
      save_now();
    }
  }
  const int signal = finished() || stopped_early_ ? 0 : SignalWatch::received();
  if (signal != 0 && run_.step > start_step) save_now();
  progress_.finish();
  optimizer_.settle();
  if (signal == 0 && !settled())
    log_warning(
        "the run ended before its methods and policies were done with what they do in stages; the "
        "result is the last state");
  if (signal == 0 && config_.best_metric.empty()) parts_.save_result();
  Result result{run_.metrics,
                run_.eval_on,
                run_.step,
                run_.tokens,
                static_cast<int64_t>(run_.examples),
                run_.seconds,
                run_.first_loss,
                run_.last_loss,
                config_.best_metric.empty() ? run_.step : run_.best_step,
                stopped_early_,
                signal,
                loader_.cut_rows(),
                run_.history};
  return result;
}

Trainer::Window Trainer::load_window() {
  Window window;
  double examples = run_.examples;
  for (int64_t i = 0; i < config_.accumulate; ++i) {
    window.items.push_back(loader_.next());
    Loader::Item& item = window.items.back();
    if (parts_.class_weights.defined()) item.batch.fields["class_weights"] = parts_.class_weights;
    window.examples += static_cast<double>(item.examples.size());
    window.tokens += item.tokens;
    examples += static_cast<double>(item.examples.size());
    if (config_.steps == 0 && config_.minutes == 0 && examples + 0.5 >= total_examples()) break;
  }
  return window;
}

Loss Trainer::chain(const Batch& batch, size_t policy) {
  if (policy == parts_.policies.size()) return parts_.objective.compute(parts_.model, batch);
  return parts_.policies[policy]->around(
      *state_, batch, [this, policy](const Batch& inner) { return chain(inner, policy + 1); });
}

void Trainer::diverged(const Window& window, const char* what) {
  std::vector<std::string> rows;
  for (const Loader::Item& item : window.items)
    for (const Example& example : item.examples) rows.push_back(parts_.train.where(example.id));
  const size_t shown = std::min<size_t>(rows.size(), 5);
  const std::string more = rows.size() > shown ? format(" and {} more", rows.size() - shown) : "";
  rows.resize(shown);
  fail(ErrorCode::Diverged,
       "training: the {} is not a finite number at step {} (rows {}{}). The last checkpoint in "
       "{}/checkpoints is kept. "
       "Lower train.lr (now {}), or look at these rows",
       what, run_.step + 1, join(rows, ", "), more, parts_.run, config_.lr);
}

void Trainer::refresh_united_masks() {
  if (united_.empty()) return;
  const std::vector<Param> latest = parts_.adaptation.trainable();
  for (const size_t i : united_) params_[i].mask = latest[i].mask;
}

void Trainer::before_step(const Pass& pass) {
  state_->pass = pass;
  state_->restart = false;
  refresh_united_masks();
  for (Param& param : params_) param.frozen = false;  // policies hold back step by step
  for (const std::unique_ptr<TrainingPolicy>& policy : parts_.policies) policy->begin_part(*state_);
  for (const std::unique_ptr<TrainingPolicy>& policy : parts_.policies)
    policy->before_step(*state_);
  if (state_->restart) optimizer_.forget();
  for (const Param& param : params_) param.value.set_requires_grad(!param.frozen);
}

/// Gradients of the window's summed loss.
void Trainer::accumulate(Window& window) {
  clear_gradients(params_);
  for (Loader::Item& item : window.items) {
    item.batch.pass = state_->pass;
    const Loss loss = chain(item.batch, 0);
    Tensor sum = loss.total.sum;
    const Tensor penalty = parts_.adaptation.penalty();
    if (penalty.defined()) sum = sum + penalty.to(at::kDouble) * loss.total.count;
    window.loss += sum.item<double>();
    for (const std::pair<const std::string, Score>& part : loss.parts)
      window.add_part(part.first, part.second.sum.item<double>(), part.second.count);
    if (penalty.defined())
      window.add_part("penalty", penalty.item<double>() * loss.total.count, loss.total.count);
    window.count += loss.total.count;
    if (!std::isfinite(window.loss)) diverged(window, "loss");
    if (sum.requires_grad()) backward(sum, parts_.model.numerics().recompute != 0);
  }
  parts_.adaptation.after_backward(state_->pass);
  for (const std::unique_ptr<TrainingPolicy>& policy : parts_.policies)
    policy->after_backward(*state_);
}

void Trainer::update(Window& window) {
  const double count = std::max(window.count, 1e-12);
  window.loss /= count;
  window.norm = gradient_norm(params_) / count;
  if (!std::isfinite(window.norm)) diverged(window, "gradient");
  const double clip = config_.clip > 0 ? std::min(1.0, config_.clip / (window.norm + 1e-6)) : 1.0;
  const double share = std::max(1e-12, state_->part_end - state_->part_begin);
  const double progress =
      std::clamp((state_->pass.progress - state_->part_begin) / share, 0.0, 1.0);
  window.lr =
      config_.lr * schedule_factor(config_.schedule, progress, run_.step - state_->part_step);
  optimizer_.step(params_, window.lr, clip / count);
  parts_.adaptation.after_step(state_->pass);
  for (const std::unique_ptr<TrainingPolicy>& policy : parts_.policies) policy->after_step(*state_);
}

void Trainer::train_window(Window& window) {
  const double started = now();
  const double after = progress_of(run_.examples + window.examples, run_.step + 1, run_.seconds);
  Pass pass;
  pass.training = true;
  pass.step = run_.step;
  pass.progress = 0.5 * (clock().progress + after);
  pass.seed = config_.seed;
  before_step(pass);
  accumulate(window);
  update(window);
  window.seconds = now() - started;
  run_.step += 1;
  run_.examples += window.examples;
  run_.tokens += window.tokens;
  run_.seconds += window.seconds;
  run_.position = loader_.position();
}

void Trainer::save_now() {
  optimizer_.settle();
  for (const Param& param : params_)
    if (!std::isfinite(param.value.detach().sum().item<double>()))
      fail(ErrorCode::Diverged,
           "training: the tensor {} is not finite after step {}, so this state is not saved. The "
           "last checkpoint in "
           "{}/checkpoints is kept. Lower train.lr (now {})",
           param.name, run_.step, parts_.run, config_.lr);
  run_.policies.clear();
  for (const std::unique_ptr<TrainingPolicy>& policy : parts_.policies)
    run_.policies.push_back(policy->save_state());
  run_.moments = optimizer_.tensors();
  run_.cut_rows = loader_.cut_rows();
  // Hashing may take longer than a process that is being stopped has.
  if (run_.sources.is_null() && parts_.sources && SignalWatch::received() == 0)
    run_.sources = parts_.sources();
  log_->sync();  // a checkpoint says how long the log was: it must be on the disk before
  save_run_state(parts_.run, run_, state_tensors(), config_.keep);
  optimizer_.let_go();
}

}  // namespace attune
