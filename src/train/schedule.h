#pragma once
#include <cstdint>
#include <string>

namespace attune {

/// Learning rate over the run. Progress is the share of the run done, at the middle of a step.
struct Schedule {
  enum class Kind : uint8_t { Linear, Cosine, Constant } kind = Kind::Linear;
  double warmup = 0;         // share of the run
  int64_t warmup_steps = 0;  // instead, when positive
};

/// Factor on the peak rate: rises linearly over the warm-up, then falls to 0 (linear, half a
/// cosine) or stays.
double schedule_factor(const Schedule& schedule, double progress, int64_t step);

/// When something happens again: every share of the run, steps, examples, minutes, epochs, or
/// never.
struct Interval {
  enum class Kind : uint8_t { Never, Share, Steps, Examples, Minutes, Epochs } kind = Kind::Never;
  double value = 0;
};

struct Clock {
  int64_t step = 0;
  double examples = 0, progress = 0, minutes = 0, epochs = 0;
};
/// How many times the interval has passed at this point; a change means it is due.
int64_t times_passed(const Interval& interval, const Clock& clock);

}  // namespace attune
