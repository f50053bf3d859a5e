#include "report/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/text.h"

namespace attune {

namespace {

constexpr int kBarColumns = 24;
constexpr double kTerminalSeconds = 0.1, kPlainSeconds = 10;
constexpr double kNewestWeight = 0.1;

std::string bar(double fraction) {
  const int filled = static_cast<int>(fraction * kBarColumns);
  std::string inside(static_cast<size_t>(filled), '=');
  if (filled < kBarColumns) inside += '>';
  inside.resize(kBarColumns, ' ');
  return "[" + inside + "]";
}

int columns_of(std::FILE* out) {
  winsize size{};
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string progress_line(const ProgressView& view, int columns) {
  std::vector<std::string> parts;
  const bool known = view.fraction >= 0;
  const double fraction = std::clamp(view.fraction, 0.0, 1.0);
  if (known) parts.push_back(format("{:3}%", static_cast<int>(fraction * 100)));
  parts.push_back(format("step {}", with_thousands(view.step)));
  if (!std::isnan(view.loss)) parts.push_back(format("loss {:.4f}", view.loss));
  if (view.tokens_per_second >= 0)
    parts.push_back(format("{} tokens/s", with_thousands(std::llround(view.tokens_per_second))));
  if (known && view.eta_seconds >= 0)
    parts.push_back(format("ETA {}", human_seconds(view.eta_seconds)));
  if (view.memory_bytes >= 0) parts.push_back(human_bytes(static_cast<double>(view.memory_bytes)));
  std::string line = join(parts, "  ");
  const bool room = columns <= 0 || static_cast<int>(line.size()) + kBarColumns + 4 <= columns;
  if (known && room) line = bar(fraction) + "  " + line;
  if (columns > 0 && static_cast<int>(line.size()) > columns)
    line.resize(static_cast<size_t>(columns));
  return line;
}

Progress::Mode Progress::mode_for(std::FILE* out, bool quiet) {
  if (quiet) return Mode::Quiet;
  return ::isatty(::fileno(out)) == 1 ? Mode::Terminal : Mode::Plain;
}

Progress::Progress(std::FILE* out, Mode mode, double first_fraction, Clock clock)
    : out_(out),
      mode_(mode),
      clock_(clock ? std::move(clock) : steady_seconds),
      first_fraction_(first_fraction),
      begin_seconds_(clock_()) {}

Progress::~Progress() {
  finish();
}

void Progress::begin(double first_fraction) {
  first_fraction_ = first_fraction;
  begin_seconds_ = clock_();
}

void Progress::update(int64_t step, double fraction, double loss, int64_t tokens,
                      int64_t memory_bytes) {
  if (mode_ == Mode::Quiet) return;
  const double now = clock_();
  if (std::isfinite(loss)) {
    loss_sum_ = (1 - kNewestWeight) * loss_sum_ + kNewestWeight * loss;
    loss_weight_ = (1 - kNewestWeight) * loss_weight_ + kNewestWeight;
  }
  tokens_ = tokens;
  update_seconds_ = now;
  view_.step = step;
  view_.fraction = fraction;
  view_.memory_bytes = memory_bytes;
  pending_ = true;
  const double interval = mode_ == Mode::Terminal ? kTerminalSeconds : kPlainSeconds;
  if (!drawn_ || now - drawn_seconds_ >= interval) draw(now);
}

double Progress::smoothed_loss() const {
  return loss_sum_ / loss_weight_;
}

ProgressView Progress::view() const {
  ProgressView view = view_;
  const double seconds = update_seconds_ - begin_seconds_;
  view.loss = smoothed_loss();
  if (seconds > 0 && tokens_ >= 0) view.tokens_per_second = static_cast<double>(tokens_) / seconds;
  const double done = view_.fraction - first_fraction_;
  if (view_.fraction >= 0 && done > 0) view.eta_seconds = seconds * (1 - view_.fraction) / done;
  return view;
}

void Progress::draw(double now) {
  drawn_ = true;
  drawn_seconds_ = now;
  pending_ = false;
  if (mode_ == Mode::Plain) {
    std::fputs((progress_line(view(), 0) + "\n").c_str(), out_);
  } else {
    // One column stays free: a full line would wrap on some terminals. \x1b[K clears the rest of a
    // longer old line.
    std::fputs(("\r" + progress_line(view(), columns_of(out_) - 1) + "\x1b[K").c_str(), out_);
    on_screen_ = true;
  }
  std::fflush(out_);
}

void Progress::hide() {
  if (!on_screen_) return;
  std::fputs("\r\x1b[K", out_);
  std::fflush(out_);
  on_screen_ = false;
  pending_ = true;
}

void Progress::finish() {
  if (pending_) draw(update_seconds_);
  if (on_screen_) {
    std::fputs("\n", out_);
    std::fflush(out_);
  }
  on_screen_ = false;
}

}  // namespace attune
