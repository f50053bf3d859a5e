#include "train/schedule.h"

#include <algorithm>
#include <cmath>

namespace attune {

double schedule_factor(const Schedule& schedule, double progress, int64_t step) {
  const double middle = static_cast<double>(step) + 0.5,
               steps = static_cast<double>(schedule.warmup_steps);
  if (schedule.warmup_steps > 0 && middle < steps) return middle / steps;
  // The steps' share of the run, which has as many of them as the progress tells.
  const double share = schedule.warmup_steps > 0 ? progress * steps / middle : schedule.warmup;
  if (schedule.warmup_steps == 0 && share > 0 && progress < share) return progress / share;
  const double left = std::clamp((1 - progress) / std::max(1e-12, 1 - share), 0.0, 1.0);
  switch (schedule.kind) {
    case Schedule::Kind::Linear:
      return left;
    case Schedule::Kind::Cosine:
      return 0.5 * (1 + std::cos(M_PI * (1 - left)));
    case Schedule::Kind::Constant:
      break;
  }
  return 1;
}

int64_t times_passed(const Interval& interval, const Clock& clock) {
  if (interval.kind == Interval::Kind::Never || interval.value <= 0) return 0;
  double at = 0;
  switch (interval.kind) {
    case Interval::Kind::Share:
      at = clock.progress;
      break;
    case Interval::Kind::Steps:
      at = static_cast<double>(clock.step);
      break;
    case Interval::Kind::Examples:
      at = clock.examples;
      break;
    case Interval::Kind::Minutes:
      at = clock.minutes;
      break;
    case Interval::Kind::Epochs:
      at = clock.epochs;
      break;
    case Interval::Kind::Never:
      break;
  }
  return static_cast<int64_t>(std::floor(at / interval.value + 1e-9));
}

}  // namespace attune
