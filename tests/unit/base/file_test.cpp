#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <optional>
#include <stdexcept>

#include "base/json.h"
#include "base/log.h"
#include "base/threads.h"
#include "support/temp_folder.h"

namespace attune {
namespace file_test {

TEST(File, WrittenContentIsReadBackAndNoTemporaryFileStays) {
  const TempFolder folder;
  const std::string path = folder.file("a.txt");
  write_file_atomic(path, "one");
  write_file_atomic(path, std::string_view("two\0three", 9));
  EXPECT_EQ(read_file(path), std::string("two\0three", 9));
  const MappedFile mapped(path);
  EXPECT_EQ(mapped.view(), std::string_view("two\0three", 9));
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    files += entry.is_regular_file();
  EXPECT_EQ(files, 1);
  EXPECT_TRUE(file_exists(path));
  EXPECT_FALSE(file_exists(folder.path()));
  EXPECT_TRUE(directory_exists(folder.path()));
}

TEST(File, PiecesOfARangeAreThatRange) {
  const TempFolder folder;
  std::string content;
  for (int i = 0; i < 300'000; ++i) content += std::to_string(i);  // more than one piece
  const std::string path = folder.file("range");
  write_file_atomic(path, content);
  for (const auto& [begin, bytes] :
       {std::pair<size_t, size_t>{0, content.size()}, {12'345, 1'500'000}, {content.size(), 0}}) {
    std::string read;
    read_pieces(path, begin, bytes, [&](std::string_view piece) { read += piece; });
    EXPECT_EQ(read, content.substr(begin, bytes));
  }
  const std::string error = error_text(
      ErrorCode::Io, [&] { read_pieces(path, 10, content.size(), [](std::string_view) {}); });
  EXPECT_NE(error.find("it ends before byte"), std::string::npos) << error;
}

TEST(File, AFailedWriteLeavesTheOldFile) {
  const TempFolder folder;
  const std::string path = folder.file("a.txt");
  write_file_atomic(path, "old");
  EXPECT_THROW(write_file_atomic(path,
                                 [](const Sink& sink) {
                                   sink("half", 4);
                                   throw std::runtime_error("stopped");
                                 }),
               std::runtime_error);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(File, ErrorsNameThePath) {
  const TempFolder folder;
  const std::string missing = folder.file("missing");
  EXPECT_EQ(error_text(ErrorCode::NotFound, [&] { read_file(missing); }),
            "reading " + missing + ": there is no such file");
  EXPECT_EQ(error_text(ErrorCode::NotFound, [&] { MappedFile file(missing); }),
            "reading " + missing + ": there is no such file");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { read_file(folder.path()); }),
            "reading " + folder.path() + ": this is a folder; a file is expected");
  const std::string nowhere = folder.file("no/such/x");
  EXPECT_EQ(error_text(ErrorCode::Io, [&] { write_file_atomic(nowhere, "x"); }),
            "writing " + nowhere + ": No such file or directory");
  EXPECT_EQ(error_text(ErrorCode::Io, [&] { sync_directory(missing); }),
            "flushing the folder " + missing + ": No such file or directory");
  EXPECT_EQ(error_text(ErrorCode::Io, [&] { FileLock lock(nowhere); }),
            "locking " + nowhere + ": No such file or directory");
}

TEST(File, APrivateMappingMayBeWrittenWithoutTouchingTheFile) {
  const TempFolder folder;
  write_file_atomic(folder.file("a"), "abc");
  const MappedFile mapped(folder.file("a"), true);
  mapped.writable()[0] = 'X';
  EXPECT_EQ(mapped.view(), "Xbc");
  EXPECT_EQ(read_file(folder.file("a")), "abc");
}

TEST(FileLock, ASecondHolderIsRefusedAndToldTheProcess) {
  const TempFolder folder;
  const std::string path = folder.file("lock");
  {
    const FileLock first(path);
    EXPECT_EQ(error_text(ErrorCode::Locked, [&] { FileLock second(path); }),
              folder.path() + " is in use by another attune (process " +
                  std::to_string(::getpid()) + "); wait for it to end, or stop it");
  }
  const FileLock again(path);
}

TEST(Json, ErrorsNameLineAndColumn) {
  const std::string text =
      error_text(ErrorCode::BadInput, [] { parse_json("{\n  \"a\": tru\n}", "x.json"); });
  EXPECT_TRUE(text.starts_with("x.json:2:")) << text;
  EXPECT_NE(text.find("not valid JSON"), std::string::npos) << text;
  const TempFolder folder;
  write_file_atomic(folder.file("bad.json"), "{");
  EXPECT_TRUE(error_text(ErrorCode::Corrupt, [&] {
                read_json(folder.file("bad.json"));
              }).starts_with(folder.file("bad.json") + ":1:"));
  EXPECT_EQ(error_text(ErrorCode::NotFound, [&] { read_json(folder.file("no.json")); }),
            "reading " + folder.file("no.json") + ": there is no such file");
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(parse_json("{\"z\": 1, \"a\": 2}", "x").dump(), "{\"z\":1,\"a\":2}");
}

TEST(Threads, ParallelForCoversTheRangeOnce) {
  EXPECT_GE(available_threads(), 1);
  for (const int threads : {1, 2, 3, 7}) {
    std::vector<std::atomic<int>> seen(1000);
    parallel_for(1000, 10, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    for (const std::atomic<int>& count : seen) EXPECT_EQ(count, 1);
  }
  parallel_for(0, 1, 4, [](int64_t begin, int64_t end) { EXPECT_EQ(begin, end); });
}

TEST(Threads, ParallelForPassesOnAnException) {
  EXPECT_EQ(error_text(ErrorCode::Corrupt,
                       [] {
                         parallel_for(100, 1, 4, [](int64_t begin, int64_t) {
                           if (begin == 0) fail(ErrorCode::Corrupt, "piece 0");
                         });
                       }),
            "piece 0");
}

TEST(Log, MessagesGoToTheSinkOrNowhere) {
  std::vector<std::string> seen;
  log_info("dropped");
  set_log_sink([&](LogLevel level, const std::string& text) {
    seen.push_back((level == LogLevel::Warning ? "W " : "I ") + text);
  });
  log_info("{} rows", 3);
  log_warning("skipped {}", "one");
  set_log_sink({});
  log_info("dropped");
  EXPECT_EQ(seen, (std::vector<std::string>{"I 3 rows", "W skipped one"}));
}

TEST(Error, EveryCodeHasItsExitStatus) {
  const std::vector<std::pair<ErrorCode, int>> table = {
      {ErrorCode::BadInput, 2},    {ErrorCode::NotFound, 3},    {ErrorCode::Corrupt, 4},
      {ErrorCode::Unsupported, 5}, {ErrorCode::OutOfMemory, 6}, {ErrorCode::Io, 7},
      {ErrorCode::Diverged, 8},    {ErrorCode::ProofFailed, 9}, {ErrorCode::Locked, 10},
      {ErrorCode::Internal, 70}};
  for (const auto& [code, status] : table) EXPECT_EQ(exit_status(code), status) << error_name(code);
}

TEST(Error, AnAssertionIsOurBug) {
  const std::string text = error_text(ErrorCode::Internal, [] { ATTUNE_ASSERT(1 > 2); });
  EXPECT_NE(text.find("a condition that must hold does not: 1 > 2"), std::string::npos) << text;
}

TEST(PlaceInFile, ReadsWhatIsMappedWithoutTouchingIt) {
  const TempFolder folder;
  std::string content;
  for (int i = 0; i < 40000; ++i) content += static_cast<char>('a' + i % 23);
  write_file_atomic(folder.file("a"), content);
  write_file_atomic(folder.file("b"), "other");
  const char* gone = nullptr;
  {
    const MappedFile a(folder.file("a")), b(folder.file("b"), true);
    gone = a.data();
    const std::optional<FilePlace> place = place_in_file(a.data() + 7, 1000);
    ASSERT_TRUE(place);
    std::string read(100, ' ');
    EXPECT_TRUE(place->read(20, 100, read.data()));
    EXPECT_EQ(read, content.substr(27, 100));
    EXPECT_FALSE(place->read(39950, 100, read.data()));  // past the end of the file
    EXPECT_TRUE(place_in_file(a.data(), 40000));
    EXPECT_FALSE(place_in_file(a.data(), 40001));
    EXPECT_FALSE(place_in_file(&content, 1));
    ASSERT_TRUE(place_in_file(b.data(), 5)->read(0, 5, read.data()));
    EXPECT_EQ(read.substr(0, 5), "other");
  }
  EXPECT_FALSE(place_in_file(gone, 1));
}

TEST(ReleasePages, TheContentStaysChangedOrNot) {
  const TempFolder folder;
  std::string content;
  for (int i = 0; i < 40000; ++i) content += static_cast<char>('a' + i % 26);
  write_file_atomic(folder.file("a"), content);
  const MappedFile mapped(folder.file("a"), true);
  mapped.writable()[9000] = '#';
  content[9000] = '#';
  release_pages(mapped.data() + 100, mapped.size() - 100);
  EXPECT_EQ(mapped.view(), content);
}

}  // namespace file_test
}  // namespace attune
