#include "io/run_files.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "support/temp_folder.h"

namespace attune {
namespace run_files_test {

TEST(LogWriter, WhatIsSyncedIsWhatWasWritten) {
  const TempFolder folder;
  LogWriter log(folder.file("log.jsonl"));
  log.sync();
  log.write(Json{{"step", 1}});
  log.sync();
  EXPECT_EQ(read_file(folder.file("log.jsonl")).size(), log.size());
  LogWriter full("/dev/null");  // no file that a disk could hold
  EXPECT_EQ(error_text(ErrorCode::Io, [&] { full.sync(); })
                .find("writing the log /dev/null to the disk: "),
            0u);
}

TEST(LogWriter, EveryRecordIsALineThatIsReadableAtOnce) {
  const TempFolder folder;
  LogWriter log(folder.file("log.jsonl"));
  log.write(Json{{"step", 1}});
  EXPECT_EQ(read_file(folder.file("log.jsonl")), "{\"step\":1}\n");
  log.write(Json{{"step", 2}, {"text", "a\nb"}});
  EXPECT_EQ(read_file(folder.file("log.jsonl")), "{\"step\":1}\n{\"step\":2,\"text\":\"a\\nb\"}\n");
  EXPECT_EQ(log.size(), read_file(folder.file("log.jsonl")).size());
}

TEST(LogWriter, ResumingDropsWhatCameAfterTheCheckpoint) {
  const TempFolder folder;
  uint64_t kept = 0;
  {
    LogWriter log(folder.file("log.jsonl"));
    log.write(Json{{"step", 1}});
    kept = log.size();
    log.write(Json{{"step", 2}});
  }
  LogWriter log(folder.file("log.jsonl"));
  EXPECT_GT(log.size(), kept);
  log.truncate_to(kept);
  log.write(Json{{"step", 3}});
  EXPECT_EQ(read_file(folder.file("log.jsonl")), "{\"step\":1}\n{\"step\":3}\n");
  log.truncate_to(0);
  EXPECT_EQ(read_file(folder.file("log.jsonl")), "");
}

TEST(LogWriter, ALogOfAnotherRunIsRefused) {
  const TempFolder folder;
  LogWriter log(folder.write("log.jsonl", "{}\n{}\n"));
  const std::string text =
      "it has 6 bytes and no record ends there; the log does not belong to this checkpoint";
  EXPECT_EQ(error_text(folder, ErrorCode::Corrupt, [&] { log.truncate_to(7); }),
            "cutting the log log.jsonl back to 7 bytes: " + text);
  EXPECT_EQ(error_text(folder, ErrorCode::Corrupt, [&] { log.truncate_to(2); }),
            "cutting the log log.jsonl back to 2 bytes: " + text);
}

TEST(LogWriter, AMissingFolderIsAnIoError) {
  const TempFolder folder;
  EXPECT_EQ(
      error_text(folder, ErrorCode::Io, [&] { LogWriter log(folder.file("none/log.jsonl")); }),
      "opening the log none/log.jsonl: No such file or directory");
}

TEST(LogWriter, AFullDiskIsAnIoError) {
  const TempFolder folder;
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  LogWriter log("/dev/full");
  EXPECT_EQ(error_text(folder, ErrorCode::Io,
                       [&] {
                         log.write(Json{{"step", 1}});
                       }),
            "writing the log /dev/full: No space left on device");
}

}  // namespace run_files_test
}  // namespace attune
