#pragma once
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>

namespace attune {

/// What one progress line shows. Negative values, and a loss that is not a number, are left out.
struct ProgressView {
  double fraction =
      -1;  // share done, 0 to 1; negative: not known, then there is no bar, percent or ETA
  int64_t step = 0;
  double loss = std::numeric_limits<double>::quiet_NaN();  // smoothed
  double tokens_per_second = -1;
  double eta_seconds = -1;
  int64_t memory_bytes = -1;
};

/// `[=====>    ]  52%  step 1,200  loss 0.4312  12,345 tokens/s  ETA 1m05s  1.5 GiB`, cut to
/// `columns` (0: no limit); the bar gives way first.
std::string progress_line(const ProgressView& view, int columns);

/// Prints the progress of a training run.
class Progress {
 public:
  /// Terminal: one line redrawn in place, at most ten times a second. Plain: a line at the start,
  /// then every 10 s.
  enum class Mode { Terminal, Plain, Quiet };
  /// Seconds on a clock that never runs backwards.
  using Clock = std::function<double()>;

  /// Terminal when `out` is one, else Plain; Quiet when asked.
  static Mode mode_for(std::FILE* out, bool quiet);

  /// `first_fraction`: the share already done when a resumed run begins.
  Progress(std::FILE* out, Mode mode, double first_fraction = 0, Clock clock = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Starts the clock of tokens/s and ETA afresh, `first_fraction` of the run being done: call it
  /// after loading, right before the first step. The tokens of update() count from here.
  void begin(double first_fraction);
  /// After a step. `fraction`: share of the whole run done, negative when unknown; `tokens`: since
  /// the run (or its resumption) began; `loss`: of this step.
  void update(int64_t step, double fraction, double loss, int64_t tokens, int64_t memory_bytes);
  /// Takes the line off a terminal, so that another message can be printed; the next update draws
  /// it again.
  void hide();
  /// Prints the last state once more and ends the line. Also done by the destructor.
  void finish();

  /// Exponential mean of the losses, weight 0.1 for the newest, corrected for its start; NaN before
  /// the first.
  double smoothed_loss() const;

 private:
  ProgressView view() const;
  void draw(double now);

  std::FILE* out_;
  Mode mode_;
  Clock clock_;
  double first_fraction_;
  double begin_seconds_;
  bool drawn_ = false;
  double drawn_seconds_ = 0;  // when the last line was drawn
  bool on_screen_ = false, pending_ = false;
  double loss_sum_ = 0, loss_weight_ = 0;
  int64_t tokens_ = 0;
  double update_seconds_ = 0;
  ProgressView view_;
};

}  // namespace attune
