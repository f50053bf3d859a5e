#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"

namespace attune {

namespace {

std::string parent(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// An open file that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int open_for_reading(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT)
    fail(ErrorCode::NotFound, "reading {}: there is no such file", path);
  if (fd < 0) fail(ErrorCode::Io, "reading {}: {}", path, std::strerror(errno));
  return fd;
}

size_t size_of(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail(ErrorCode::Io, "reading {}: {}", path, std::strerror(errno));
  if (S_ISDIR(info.st_mode))
    fail(ErrorCode::BadInput, "reading {}: this is a folder; a file is expected", path);
  return static_cast<size_t>(info.st_size);
}

}  // namespace

namespace {

/// All mappings by where they begin, so that they can be read from their files. Never destroyed.
struct Mappings {
  std::mutex mutex;
  std::map<const char*, std::pair<size_t, int>> all;  // bytes and descriptor
};
Mappings& mappings() {
  static Mappings* const only = new Mappings;
  return *only;
}

}  // namespace

MappedFile::MappedFile(const std::string& path, bool private_writable) : path_(path) {
  Descriptor file(open_for_reading(path));
  size_ = size_of(file.get(), path);
  if (size_ == 0) return;
  const int protection = private_writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* mapped = ::mmap(nullptr, size_, protection, MAP_PRIVATE, file.get(), 0);
  if (mapped == MAP_FAILED) fail(ErrorCode::Io, "mapping {}: {}", path, std::strerror(errno));
  data_ = static_cast<char*>(mapped);
  fd_ = file.release();
  const std::lock_guard<std::mutex> lock(mappings().mutex);
  mappings().all[data_] = {size_, fd_};
}

MappedFile::~MappedFile() {
  if (fd_ >= 0) {
    const std::lock_guard<std::mutex> lock(mappings().mutex);
    mappings().all.erase(data_);
    ::close(fd_);
  }
  if (data_ != nullptr) ::munmap(data_, size_);
}

std::optional<FilePlace> place_in_file(const void* begin, size_t bytes) {
  const char* at = static_cast<const char*>(begin);
  const std::lock_guard<std::mutex> lock(mappings().mutex);
  auto found = mappings().all.upper_bound(at);
  if (found == mappings().all.begin()) return std::nullopt;
  --found;
  const size_t offset = static_cast<size_t>(at - found->first);
  const auto [size, fd] = found->second;
  if (offset > size || bytes > size - offset) return std::nullopt;
  return FilePlace{fd, offset};
}

bool FilePlace::read(size_t begin, size_t bytes, void* to) const {
  char* out = static_cast<char*>(to);
  size_t at = offset + begin;
  while (bytes > 0) {
    const ssize_t got = ::pread(fd, out, bytes, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    at += static_cast<size_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

namespace {
void advise_pages(const void* begin, size_t bytes, int advice) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t from = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(begin) + bytes) / page * page;
  if (from < to) static_cast<void>(::madvise(reinterpret_cast<void*>(from), to - from, advice));
}
}  // namespace

void forget_pages(const void* begin, size_t bytes) {
  advise_pages(begin, bytes, MADV_DONTNEED);
}

void release_pages(const void* begin, size_t bytes) {
#ifdef MADV_PAGEOUT
  advise_pages(begin, bytes, MADV_PAGEOUT);
#else
  static_cast<void>(begin);
  static_cast<void>(bytes);
#endif
}

namespace {

/// At most `bytes` from `begin`; returns how many there were.
size_t read_at_most(const std::string& path, size_t begin, size_t bytes,
                    const std::function<void(std::string_view)>& see) {
  const Descriptor file(open_for_reading(path));
  static_cast<void>(size_of(file.get(), path));  // refuses what is no file
  std::vector<char> buffer(std::min(bytes, size_t{1} << 20));
  size_t done = 0;
  while (done < bytes) {
    const size_t want = std::min(buffer.size(), bytes - done);
    const ssize_t got = ::pread(file.get(), buffer.data(), want, static_cast<off_t>(begin + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(ErrorCode::Io, "reading {}: {}", path, std::strerror(errno));
    if (got == 0) break;
    see({buffer.data(), static_cast<size_t>(got)});
    done += static_cast<size_t>(got);
  }
  return done;
}

}  // namespace

void read_pieces(const std::string& path, const std::function<void(std::string_view)>& see) {
  read_at_most(path, 0, SIZE_MAX, see);
}

void read_pieces(const std::string& path, size_t begin, size_t bytes,
                 const std::function<void(std::string_view)>& see) {
  if (read_at_most(path, begin, bytes, see) < bytes)
    fail(ErrorCode::Io, "reading {}: it ends before byte {}; did another program cut it?", path,
         begin + bytes);
}

std::string without_end_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::string read_file(const std::string& path) {
  std::string content;
  read_pieces(path, [&](std::string_view piece) { content += piece; });
  return content;
}

namespace {

void write_all(int fd, const void* data, size_t bytes, const std::string& path) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::write(fd, at, bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0)
      fail(ErrorCode::Io, "writing {}: {}{}", path, std::strerror(errno),
           errno == ENOSPC ? "; free some space and go on with `attune resume`" : "");
    at += put;
    bytes -= static_cast<size_t>(put);
  }
}

}  // namespace

void write_file_atomic(const std::string& path, const std::function<void(const Sink&)>& write) {
  const std::string temporary = path + ".tmp." + std::to_string(::getpid());
  try {
    const Descriptor file(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file.get() < 0) fail(ErrorCode::Io, "writing {}: {}", path, std::strerror(errno));
    write([&](const void* data, size_t bytes) { write_all(file.get(), data, bytes, path); });
    if (::fsync(file.get()) != 0) fail(ErrorCode::Io, "writing {}: {}", path, std::strerror(errno));
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      fail(ErrorCode::Io, "writing {}: {}", path, std::strerror(errno));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(parent(path));
}

void write_file_atomic(const std::string& path, std::string_view content) {
  write_file_atomic(path, [&](const Sink& sink) { sink(content.data(), content.size()); });
}

void sync_directory(const std::string& path) {
  const Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder.get()) != 0)
    fail(ErrorCode::Io, "flushing the folder {}: {}", path, std::strerror(errno));
}

bool file_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool directory_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

FileLock::FileLock(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(ErrorCode::Io, "locking {}: {}", path, std::strerror(errno));
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t got = ::pread(fd_, holder, sizeof holder - 1, 0);
    ::close(fd_);
    fail(ErrorCode::Locked,
         "{} is in use by another attune (process {}); wait for it to end, or stop it",
         parent(path), got > 0 ? std::string(holder, static_cast<size_t>(got)) : "?");
  }
  const std::string self = std::to_string(::getpid());
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, self.data(), self.size(), 0) < 0)
    fail(ErrorCode::Io, "locking {}: {}", path, std::strerror(errno));
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace attune
