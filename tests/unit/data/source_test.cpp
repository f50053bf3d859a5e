#include "data/source.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <fstream>
#include <thread>

#include "base/hash.h"
#include "data/reader.h"
#include "data/records.h"
#include "support/temp_folder.h"

namespace attune {
namespace source_test {

std::string gzipped(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstandard(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::string numbers(int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += std::to_string(i * i) + "\n";
  return text;
}

TEST(Spill, ATemporaryFileThatCannotBeMadeIsNamed) {
  const char* const before = std::getenv("TMPDIR");
  const std::string kept = before == nullptr ? "" : before;
  ::setenv("TMPDIR", "/proc", 1);  // a folder in which nobody can make files
  Spill spill(4);
  const std::string text = error_text(ErrorCode::Io, [&] { spill.add("12345678", 8); });
  before == nullptr ? ::unsetenv("TMPDIR") : ::setenv("TMPDIR", kept.c_str(), 1);
  EXPECT_EQ(text.find("making a temporary file /proc/attune-data-"), 0u) << text;
  EXPECT_NE(text.find("; set TMPDIR to a folder with space"), std::string::npos) << text;
}

TEST(Source, CompressedFilesAreReadByTheirFirstBytes) {
  const TempFolder folder;
  const std::string text = numbers(400000);  // several output buffers
  ASSERT_GT(text.size(), size_t{3} << 20);
  for (const std::string& packed : {gzipped(text), zstandard(text)}) {
    const Source source(folder.write("a.txt", packed));
    EXPECT_TRUE(source.compressed());
    EXPECT_TRUE(source.bytes() == text);
  }
}

TEST(Source, ConcatenatedMembersAreOneText) {
  const TempFolder folder;
  EXPECT_EQ(Source(folder.write("a.gz", gzipped("one\n") + gzipped("two\n"))).text(), "one\ntwo\n");
  EXPECT_EQ(Source(folder.write("a.gz", gzipped("one\n") + std::string(512, '\0'))).text(),
            "one\n");
  EXPECT_EQ(Source(folder.write("a.zst", zstandard("one\n") + zstandard("two\n"))).text(),
            "one\ntwo\n");
}

TEST(Source, LargeContentGoesToDisk) {
  const TempFolder folder;
  const std::string text = numbers(100000);
  Spill small(1000), large(size_t{1} << 30);
  gunzip(gzipped(text), "a.gz", small);
  gunzip(gzipped(text), "a.gz", large);
  EXPECT_TRUE(small.finish() == text);
  EXPECT_TRUE(small.on_disk());
  EXPECT_TRUE(large.finish() == text);
  EXPECT_FALSE(large.on_disk());
  EXPECT_TRUE(Source(folder.write("a.zst", zstandard(text)), 1000).bytes() == text);
}

TEST(RowIndex, RecordsOfFourGibibytesAreRefused) {
  const TempFolder folder;
  std::deque<RowPlace> rows;
  const Source source(folder.write("a.csv", "text\n"));
  RowIndex index(rows, source, 0, 0, nullptr);
  EXPECT_NE(error_text(folder, ErrorCode::BadInput, [&] { index.add(0, size_t{4} << 30, 7); })
                .find("a.csv:7: this record has 4"),
            std::string::npos);
}

/// Of this process, in memory now.
size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST(Source, MemoryDoesNotGrowWithTheFile) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer's own memory is resident too";
#endif
  const TempFolder folder;
  std::string path;
  {
    std::string text;
    for (int i = 0; i < 2000; ++i)
      text += std::string(80'000, static_cast<char>('a' + i % 26)) + "\n";
    path = folder.write("a.txt", text);
  }
  const size_t before = resident_bytes();
  const Dataset data = Dataset::open(path);
  ASSERT_EQ(data.size(), 2000);
  EXPECT_LT(resident_bytes(), before + (size_t{64} << 20));
  for (int64_t i = 0; i < data.size(); ++i)
    ASSERT_EQ(data.at(i).value.at("text").get_ref<const std::string&>()[7],
              static_cast<char>('a' + i % 26));
  EXPECT_LT(resident_bytes(), before + (size_t{64} << 20));
  EXPECT_EQ(data.fingerprint(), sha256_file(path));
  EXPECT_LT(resident_bytes(), before + (size_t{64} << 20));
}

TEST(Source, EveryTruncationOfCompressedDataIsAnError) {
  const TempFolder folder;
  const std::string text = numbers(300);
  const std::string gzip = gzipped(text), zstd = zstandard(text);
  for (size_t bytes = 2; bytes < gzip.size(); ++bytes) {
    Spill out(size_t{1} << 20);
    const std::string error =
        error_text(folder, ErrorCode::Corrupt, [&] { gunzip(gzip.substr(0, bytes), "a.gz", out); });
    ASSERT_EQ(error, "a.gz: the gzip data ends early, after " + std::to_string(bytes) +
                         " bytes; the file is truncated, copy it again");
  }
  for (size_t bytes = 4; bytes < zstd.size(); ++bytes) {
    Spill out(size_t{1} << 20);
    const std::string error = error_text(folder, ErrorCode::Corrupt,
                                         [&] { unzstd(zstd.substr(0, bytes), "a.zst", out); });
    ASSERT_EQ(error.find("a.zst: the zstd data ends early"), 0u) << error;
  }
}

TEST(Source, DamagedCompressedDataIsAnError) {
  const TempFolder folder;
  std::string gzip = gzipped(numbers(300)), zstd = zstandard(numbers(300));
  gzip[gzip.size() - 6] ^= 1;  // checksum
  zstd[4] = static_cast<char>(0xFF);
  EXPECT_EQ(error_text(folder, ErrorCode::Corrupt, [&] { Source(folder.write("a.gz", gzip)); })
                .find("a.gz: damaged gzip data near byte "),
            0u);
  EXPECT_EQ(error_text(folder, ErrorCode::Corrupt, [&] { Source(folder.write("a.zst", zstd)); })
                .find("a.zst: damaged zstd data near byte "),
            0u);
}

TEST(Source, MissingFileListsItsFolder) {
  const TempFolder folder;
  folder.write("train.jsonl", "{}");
  EXPECT_EQ(error_text(folder, ErrorCode::NotFound, [&] { Source(folder.file("trian.jsonl")); }),
            "reading data: trian.jsonl does not exist; its folder holds: train.jsonl");
  EXPECT_EQ(error_text(folder, ErrorCode::NotFound, [&] { Source(folder.file("no/trian.jsonl")); }),
            "reading data: no/trian.jsonl does not exist");
}

TEST(Source, FolderIsRefusedWithItsFiles) {
  const TempFolder folder;
  std::filesystem::create_directory(folder.file("d"));
  folder.write("d/train.jsonl", "{}");
  EXPECT_EQ(
      error_text(folder, ErrorCode::BadInput, [&] { Source(folder.file("d")); }),
      "reading data: d is a folder, expected a file; name the files in it, such as train.jsonl");
}

TEST(FolderOfImages, IsARowAnImageInOrderOfNames) {
  const TempFolder folder;
  for (const char* name : {"b/2.JPG", "b/1.png", "a/x.jpeg", "a/notes.txt", "0.png"})
    folder.write(name, "x");
  const Dataset data = Dataset::open(folder.path());
  ASSERT_EQ(data.size(), 4);
  EXPECT_EQ(data.format_name(), "jsonl");
  EXPECT_EQ(data.at(0).value.dump(), "{\"image\":\"" + folder.file("0.png") + "\"}");
  const std::vector<std::string> files{"a/x.jpeg", "b/1.png", "b/2.JPG"};
  for (int64_t i = 0; i < 3; ++i) {
    const std::string& file = files[static_cast<size_t>(i)];
    const Json row = data.at(i + 1).value;
    EXPECT_EQ(row["image"], folder.file(file));
    EXPECT_EQ(row["label"], file.substr(0, 1));
  }
}

TEST(Source, EmptyFilesAreRefused) {
  const TempFolder folder;
  const std::string expected = ": the file is empty; expected at least one record";
  EXPECT_EQ(error_text(folder, ErrorCode::BadInput, [&] { Source(folder.write("a", "")); }),
            "a" + expected);
  EXPECT_EQ(
      error_text(folder, ErrorCode::BadInput, [&] { Source(folder.write("a", "\xEF\xBB\xBF")); }),
      "a" + expected);
  EXPECT_EQ(
      error_text(folder, ErrorCode::BadInput, [&] { Source(folder.write("a.gz", gzipped(""))); }),
      "a.gz" + expected);
}

TEST(Source, OtherContainersAndUtf16AreNamed) {
  const TempFolder folder;
  EXPECT_EQ(
      error_text(folder, ErrorCode::Unsupported, [&] { Source(folder.write("a", "PAR1....")); }),
      "a is a Parquet file, which cannot be read; convert it to JSONL or CSV (gzip and zstd are "
      "read)");
  EXPECT_EQ(error_text(folder, ErrorCode::BadInput,
                       [&] {
                         Source(folder.write("a", std::string("\xFF\xFE"
                                                              "a\0",
                                                              4)));
                       }),
            "a: the text is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8");
}

TEST(Source, PipesAreRead) {
  const TempFolder folder;
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] { std::ofstream(pipe) << "{\"a\": 1}\n{\"a\": 2}\n"; });
  const Dataset data = Dataset::open(pipe);
  writer.join();
  EXPECT_EQ(data.size(), 2);
}

TEST(Source, DashIsStandardInput) {
  const TempFolder folder;
  const std::string path = folder.write("a", "{\"a\": 1}\n");
  const int kept = dup(STDIN_FILENO);
  ASSERT_NE(freopen(path.c_str(), "r", stdin), nullptr);
  const Dataset data = Dataset::open("-");
  dup2(kept, STDIN_FILENO);
  close(kept);
  EXPECT_EQ(data.at(0).where(), "standard input:1");
}

TEST(Source, FormatSeesThroughCompressionSuffix) {
  const TempFolder folder;
  EXPECT_EQ(Dataset::open(folder.write("a.csv.gz", gzipped("a b,c\n1,2\n"))).format_name(), "csv");
}

}  // namespace source_test
}  // namespace attune
