#include "report/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

namespace attune {
namespace progress_test {

/// A file in memory.
class Paper {
 public:
  Paper() : file_(open_memstream(&text_, &size_)) {}
  ~Paper() {
    std::fclose(file_);
    std::free(text_);
  }
  Paper(const Paper&) = delete;
  Paper& operator=(const Paper&) = delete;
  std::FILE* file() { return file_; }
  std::string text() {
    std::fflush(file_);
    return {text_, size_};
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_;
};

ProgressView sample() {
  ProgressView view;
  view.fraction = 0.5;
  view.step = 1200;
  view.loss = 0.43121;
  view.tokens_per_second = 12345.4;
  view.eta_seconds = 65;
  view.memory_bytes = 3LL << 29;
  return view;
}

TEST(ProgressLine, ShowsEverythingThatIsKnown) {
  EXPECT_EQ(progress_line(sample(), 0),
            "[============>           ]   50%  step 1,200  loss 0.4312  12,345 tokens/s  ETA 1m05s "
            " 1.5 GiB");
}

TEST(ProgressLine, FullBarHasNoHead) {
  ProgressView view;
  view.fraction = 1;
  EXPECT_EQ(progress_line(view, 0), "[========================]  100%  step 0");
}

TEST(ProgressLine, UnknownTotalHasNoBarPercentOrEta) {
  ProgressView view = sample();
  view.fraction = -1;
  EXPECT_EQ(progress_line(view, 0), "step 1,200  loss 0.4312  12,345 tokens/s  1.5 GiB");
}

TEST(ProgressLine, NarrowTerminalsLoseTheBarFirst) {
  EXPECT_EQ(progress_line(sample(), 79),
            " 50%  step 1,200  loss 0.4312  12,345 tokens/s  ETA 1m05s  1.5 GiB");
  EXPECT_EQ(progress_line(sample(), 10), " 50%  step");
}

TEST(Progress, PlainOutputIsALineEveryTenSeconds) {
  Paper paper;
  double now = 100;
  {
    Progress progress(paper.file(), Progress::Mode::Plain, 0, [&] { return now; });
    for (int step = 1; step <= 25; ++step) {
      now += 1;
      progress.update(step, step / 25.0, 2.0, step * 100, -1);
    }
  }
  EXPECT_EQ(paper.text(),
            "[>                       ]    4%  step 1  loss 2.0000  100 tokens/s  ETA 24s\n"
            "[==========>             ]   44%  step 11  loss 2.0000  100 tokens/s  ETA 14s\n"
            "[====================>   ]   84%  step 21  loss 2.0000  100 tokens/s  ETA 4.0s\n"
            "[========================]  100%  step 25  loss 2.0000  100 tokens/s  ETA 0.0s\n");
}

TEST(Progress, QuietModePrintsNothing) {
  Paper paper;
  {
    Progress progress(paper.file(), Progress::Mode::Quiet);
    progress.update(1, 0.5, 1.0, 1, 1);
    progress.hide();
  }
  EXPECT_EQ(paper.text(), "");
}

TEST(Progress, TerminalLineIsRedrawnInPlaceAndThrottled) {
  Paper paper;
  double now = 0;
  {
    Progress progress(paper.file(), Progress::Mode::Terminal, 0, [&] { return now; });
    now = 1;
    progress.update(1, -1, 1.0, -1, -1);
    now = 1.05;
    progress.update(2, -1, 1.0, -1, -1);  // too soon
    now = 1.2;
    progress.update(3, -1, 1.0, -1, -1);
    progress.hide();
  }
  EXPECT_EQ(paper.text(),
            "\rstep 1  loss 1.0000\x1b[K\rstep 3  loss 1.0000\x1b[K\r\x1b[K\rstep 3  loss "
            "1.0000\x1b[K\n");
}

TEST(Progress, LossIsSmoothedWithoutBiasAtTheStart) {
  Paper paper;
  Progress progress(paper.file(), Progress::Mode::Plain);
  EXPECT_TRUE(std::isnan(progress.smoothed_loss()));
  progress.update(1, -1, 4.0, 0, 0);
  EXPECT_DOUBLE_EQ(progress.smoothed_loss(), 4.0);
  progress.update(2, -1, 2.0, 0, 0);
  EXPECT_DOUBLE_EQ(progress.smoothed_loss(), (0.9 * 0.1 * 4.0 + 0.1 * 2.0) / (0.9 * 0.1 + 0.1));
  progress.update(3, -1, std::nan(""), 0, 0);  // a diverged step is the trainer's affair
  EXPECT_DOUBLE_EQ(progress.smoothed_loss(), (0.9 * 0.1 * 4.0 + 0.1 * 2.0) / (0.9 * 0.1 + 0.1));
}

TEST(Progress, EtaOfAResumedRunCountsFromWhereItBegan) {
  Paper paper;
  double now = 0;
  Progress progress(paper.file(), Progress::Mode::Plain, 0.5, [&] { return now; });
  now = 10;
  progress.update(60, 0.6, 1.0, -1, -1);
  EXPECT_EQ(paper.text(), "[==============>         ]   60%  step 60  loss 1.0000  ETA 40s\n");
}

TEST(Progress, LoadingTimeDoesNotCount) {
  Paper paper;
  double now = 0;
  Progress progress(paper.file(), Progress::Mode::Plain, 0, [&] { return now; });
  now = 100;
  progress.begin(0.5);
  now = 110;
  progress.update(60, 0.75, 1.0, 1000, -1);
  EXPECT_EQ(paper.text(),
            "[==================>     ]   75%  step 60  loss 1.0000  100 tokens/s  ETA 10s\n");
}

TEST(Progress, AFileIsNoTerminal) {
  std::FILE* file = std::tmpfile();
  EXPECT_EQ(Progress::mode_for(file, false), Progress::Mode::Plain);
  EXPECT_EQ(Progress::mode_for(file, true), Progress::Mode::Quiet);
  std::fclose(file);
}

}  // namespace progress_test
}  // namespace attune
