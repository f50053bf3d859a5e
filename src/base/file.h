#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace attune {

/// A file mapped read-only into memory; unmapped by the destructor.
class MappedFile {
 public:
  /// Throws NotFound or Io. `private_writable`: copy-on-write pages, never written back.
  explicit MappedFile(const std::string& path, bool private_writable = false);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const char* data() const { return data_; }
  char* writable() const { return data_; }
  size_t size() const { return size_; }
  std::string_view view() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  char* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;  // open while mapped
};

/// Where mapped bytes stand in their file, for reading a few of many: a page that is touched brings
/// its neighbours into the process.
struct FilePlace {
  int fd = -1;
  size_t offset = 0;
  /// `bytes` from `begin` of the place; false when they could not be read.
  bool read(size_t begin, size_t bytes, void* to) const;
};
/// The place of `bytes` from `begin` when a MappedFile holds them, good as long as it does. The file
/// knows nothing of what was written to private pages.
std::optional<FilePlace> place_in_file(const void* begin, size_t bytes);

/// Lets the system take back the whole pages between: those of a mapped file come back from the
/// file when they are read again, changed ones are kept. A hint; where the system knows no such
/// call, nothing happens.
void release_pages(const void* begin, size_t bytes);

/// Takes the whole pages between, of a mapping that is only read, out of this process; the system
/// still has them if it has room.
void forget_pages(const void* begin, size_t bytes);

/// A file's content from begin to end, piece by piece. Throws NotFound, Io.
void read_pieces(const std::string& path, const std::function<void(std::string_view)>& see);
/// `bytes` of it from `begin`. Throws Io too when the file ends before.
void read_pieces(const std::string& path, size_t begin, size_t bytes,
                 const std::function<void(std::string_view)>& see);

/// A directory's path without the slashes at its end; "/" stays.
std::string without_end_slash(std::string path);

/// Whole content of a file. Throws NotFound, Io.
std::string read_file(const std::string& path);

/// Writes a file so that it is never seen half done: temporary name in the same folder, fsync,
/// rename, fsync of the folder. Throws Io (disk full included), leaving the old file in place.
void write_file_atomic(const std::string& path, std::string_view content);

/// The same for content that is produced in pieces: `write(sink)` calls sink(data, bytes).
using Sink = std::function<void(const void* data, size_t bytes)>;
void write_file_atomic(const std::string& path, const std::function<void(const Sink&)>& write);

/// Flushes a directory's entries to disk.
void sync_directory(const std::string& path);

bool file_exists(const std::string& path);
bool directory_exists(const std::string& path);

/// An exclusive advisory lock on a file, held until destruction. Throws Locked, naming the holder's
/// process id.
class FileLock {
 public:
  explicit FileLock(const std::string& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
  std::string path_;
};

}  // namespace attune
