#include "io/run_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace attune {

LogWriter::LogWriter(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(ErrorCode::Io, "opening the log {}: {}", path, std::strerror(errno));
  struct stat info {};
  if (::fstat(fd_, &info) != 0) {
    const int error = errno;
    ::close(fd_);
    fail(ErrorCode::Io, "opening the log {}: {}", path, std::strerror(error));
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

LogWriter::~LogWriter() {
  ::close(fd_);
}

void LogWriter::write(const Json& record) {
  const std::string line = record.dump() + "\n";
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t put = ::write(fd_, line.data() + done, line.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      const int error = errno;
      // Half a record would make the whole file unreadable; that this may fail as well changes
      // nothing.
      [[maybe_unused]] const int ignored = ::ftruncate(fd_, static_cast<off_t>(size_));
      fail(ErrorCode::Io, "writing the log {}: {}", path_, std::strerror(error));
    }
    done += static_cast<size_t>(put);
  }
  size_ += line.size();
}

void LogWriter::sync() {
  if (::fsync(fd_) != 0)
    fail(ErrorCode::Io, "writing the log {} to the disk: {}", path_, std::strerror(errno));
  if (named_) return;
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  sync_directory(folder.empty() ? "." : folder);  // the file's own entry, once
  named_ = true;
}

void LogWriter::truncate_to(uint64_t bytes) {
  char last = '\n';
  const bool readable =
      bytes <= size_ && (bytes == 0 || ::pread(fd_, &last, 1, static_cast<off_t>(bytes - 1)) == 1);
  if (!readable || last != '\n')
    fail(ErrorCode::Corrupt,
         "cutting the log {} back to {} bytes: it has {} bytes and no record ends there; the log "
         "does not "
         "belong to this checkpoint",
         path_, bytes, size_);
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0)
    fail(ErrorCode::Io, "cutting the log {} back to {} bytes: {}", path_, bytes,
         std::strerror(errno));
  size_ = bytes;
}

}  // namespace attune
