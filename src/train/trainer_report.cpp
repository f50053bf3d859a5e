// What a run says and measures while it trains.
#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "metrics/registry.h"
#include "tensor/torch.h"
#include "train/evaluate.h"
#include "train/trainer.h"

namespace attune {

namespace {

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

bool lower_is_better(const std::string& name) {
  const MetricInfo* info = find_metric(metric_name(name));
  return info != nullptr && !info->higher_is_better;
}

}  // namespace

void Trainer::log(const Json& record) {
  log_->write(record);
  run_.log_bytes = static_cast<int64_t>(log_->size());
  run_.history.push_back(record);
}

void Trainer::report(const Window& window) {
  if (run_.step == 1) run_.first_loss = window.loss;
  run_.last_loss = window.loss;
  const double speed = static_cast<double>(window.tokens) / std::max(1e-9, window.seconds);
  if (run_.step == 1 || run_.step % std::max<int64_t>(1, config_.log_every) == 0 || finished()) {
    const double at = wall_time();
    Json record{{"step", run_.step},
                {"epoch", clock().epochs},
                {"loss", window.loss},
                {"lr", window.lr},
                {"grad_norm", window.norm},
                {"tokens_per_second", speed},
                {"peak_bytes", peak_resident_bytes()}};
    for (const std::pair<const std::string, Part>& part : window.parts) {
      const double value = part.second.sum / std::max(part.second.count, 1e-12);
      record["loss_parts"][part.first] = value;
      events_->scalar("train/loss_" + part.first, run_.step, value, at);
    }
    log(record);
    events_->scalar("train/loss", run_.step, window.loss, at);
    events_->scalar("train/learning_rate", run_.step, window.lr, at);
    events_->scalar("train/grad_norm", run_.step, window.norm, at);
    events_->flush();
  }
  session_tokens_ += window.tokens;
  progress_.update(run_.step, clock().progress, window.loss, session_tokens_,
                   peak_resident_bytes());
}

/// Of the metric that decides, which the session has made sure of; empty while it is undefined (a
/// correlation of constants).
std::optional<double> Trainer::best_value(const Evaluation& found) const {
  const std::string& name = config_.best_metric;
  if (found.numbers.contains(name)) return found.numbers[name].get<double>();
  const size_t slash = name.find('/');
  const Json metrics = slash == std::string::npos
                           ? found.metrics
                           : found.eval_on.value(name.substr(0, slash), Json());
  ATTUNE_ASSERT(metrics.is_object() && metrics.contains(metric_name(name)));
  return std::nullopt;
}

bool Trainer::settled() const {
  for (const std::unique_ptr<TrainingPolicy>& policy : parts_.policies)
    if (!policy->settled()) return false;
  return parts_.adaptation.settled();
}

void Trainer::save_result() {
  optimizer_.settle();
  parts_.save_result();
  optimizer_.let_go();
}

void Trainer::keep(const Evaluation& found) {
  run_.metrics = found.metrics;
  run_.eval_on = found.eval_on;
}

void Trainer::evaluate_now() {
  const Evaluation found = evaluate_all(parts_.model, parts_.task, parts_.eval, parts_.eval_on,
                                        config_.eval_batch_tokens);
  for (const auto& [name, value] : found.numbers.items())
    events_->scalar("eval/" + name, run_.step, value.get<double>(), wall_time());
  events_->flush();
  log(Json{{"step", run_.step}, {"epoch", clock().epochs}, {"eval", found.numbers}});
  progress_.hide();
  log_info("step {}: {}", run_.step, found.text());
  if (config_.best_metric.empty()) return keep(found);
  // A run that ends before its methods are done has nothing better than its last state.
  if (!settled() && !finished()) return;
  const std::optional<double> value = best_value(found);
  const double sign = lower_is_better(config_.best_metric) ? -1 : 1;
  const bool better = value && (!run_.has_best || sign * (*value - run_.best) > 0);
  if (better || !run_.has_best) {
    keep(found);
    save_result();
    run_.best_step = run_.step;
  }
  if (better) {
    run_.has_best = true;
    run_.best = *value;
    run_.worse_evals = 0;
    return;
  }
  ++run_.worse_evals;
  if (config_.patience == 0 || run_.worse_evals < config_.patience) return;
  stopped_early_ = true;
  progress_.hide();
  log_info("no better {} in {} evaluations: stopping early", config_.best_metric, run_.worse_evals);
}

}  // namespace attune
