#pragma once
#include <cstdint>
#include <string>

#include "base/json.h"

namespace attune {

/// A run's log: one JSON object a line, appended and handed to the system at once, so that a crash
/// of the program loses nothing. On disk: `log.jsonl`, UTF-8, `\n` after every record.
class LogWriter {
 public:
  /// Opens for appending, creating the file when it is missing. Errors: Io.
  explicit LogWriter(const std::string& path);
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  /// Errors: Io (disk full included); the record is then not in the log, not even in part.
  void write(const Json& record);
  /// Waits until everything written is on the disk; a checkpoint that remembers size() calls it
  /// first. Errors: Io.
  void sync();
  /// Bytes in the file; a checkpoint remembers it.
  uint64_t size() const { return size_; }
  /// Drops what was logged after a checkpoint. Errors: Corrupt when the file is shorter than that
  /// or `bytes` does not stand after a whole record; Io.
  void truncate_to(uint64_t bytes);

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  bool named_ = false;  // the file's name is on the disk too
};

}  // namespace attune
