#include "report/tensorboard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

namespace attune {
namespace tensorboard_test {

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += format("{:02x}", static_cast<uint8_t>(byte));
  return text;
}

class EventFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / "attune-events-XXXXXX").string();
    ASSERT_NE(mkdtemp(path_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::string path_;
};

// Both vectors were computed from the definitions of TFRecord and event.proto, apart from this
// code.
TEST(TensorBoard, FirstRecordEqualsTheReferenceBytes) {
  EXPECT_EQ(hex(tfrecord(version_event(1.0))),
            "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a");
}

TEST(TensorBoard, ScalarRecordEqualsTheReferenceBytes) {
  EXPECT_EQ(hex(tfrecord(scalar_event("train/loss", 10, 0.5, 2.0))),
            "200000000000000029eda950090000000000000040100a2a130a110a0a747261696e2f6c6f737315000000"
            "3f4da05bd9");
}

TEST(TensorBoard, LargeStepsTakeSeveralVarintBytes) {
  // 300 is 0xac 0x02 as a varint.
  EXPECT_NE(hex(scalar_event("a", 300, 0.0, 0.0)).find("10ac022a"), std::string::npos);
}

TEST_F(EventFolder, FileNameCarriesTimeHostProcessAndNumber) {
  const EventWriter first(path_), second(path_);
  const std::string name = std::filesystem::path(first.path()).filename().string();
  ASSERT_TRUE(starts_with(name, "events.out.tfevents."));
  const std::string rest = name.substr(20);
  ASSERT_GT(rest.size(), 11U);
  for (size_t i = 0; i < 10; ++i) EXPECT_TRUE(rest[i] >= '0' && rest[i] <= '9');
  EXPECT_EQ(rest[10], '.');
  EXPECT_TRUE(ends_with(name, format(".{}.0", static_cast<int64_t>(getpid()))));
  EXPECT_NE(first.path(), second.path());
}

TEST_F(EventFolder, PointsAreReadableAfterAFlushOrTheEnd) {
  const std::string point = tfrecord(scalar_event("train/loss", 10, 0.5, 2.0));
  std::string path, start;
  {
    EventWriter writer(path_);
    path = writer.path();
    start = read_file(path);
    EXPECT_EQ(start.size(), 40U);
    writer.scalar("train/loss", 10, 0.5, 2.0);
    writer.flush();
    EXPECT_EQ(read_file(path), start + point);
    writer.scalar("train/loss", 10, 0.5, 2.0);
  }
  EXPECT_EQ(read_file(path), start + point + point);
}

TEST(TensorBoard, MissingFolderIsAnIoError) {
  try {
    EventWriter writer("/nonexistent/attune");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Io);
    EXPECT_TRUE(starts_with(error.what(), "creating /nonexistent/attune/events.out.tfevents."))
        << error.what();
  }
}

}  // namespace tensorboard_test
}  // namespace attune
