#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"

namespace attune {

/// Bytes that arrive in pieces: kept in memory up to a limit, beyond it in an unlinked temporary
/// file that is mapped.
class Spill {
 public:
  explicit Spill(size_t memory_limit) : memory_limit_(memory_limit) {}
  ~Spill();
  Spill(const Spill&) = delete;
  Spill& operator=(const Spill&) = delete;
  /// Errors: Io when the temporary file cannot be written.
  void add(const char* data, size_t bytes);
  /// Ends adding; the view lives as long as this object.
  std::string_view finish();
  bool on_disk() const { return fd_ >= 0; }

 private:
  void write_out(const char* data, size_t bytes);
  size_t memory_limit_;
  std::string memory_;
  int fd_ = -1;
  size_t written_ = 0;
  void* mapped_ = nullptr;
};

/// The content of one user's file or of standard input: mapped, or decompressed once. A folder of
/// PNG and JPEG files is read as lines of JSON, one an image: {"image": file, "label": subfolder}.
class Source {
 public:
  static constexpr size_t kMemoryLimit = size_t{64} << 20;
  /// Errors: NotFound; BadInput for a folder without images, an empty file or UTF-16; Corrupt for
  /// damaged gzip or zstd; Unsupported for other containers (Parquet, zip, ...).
  explicit Source(const std::string& path, size_t memory_limit = kMemoryLimit);

  const std::string& name() const { return name_; }  // path, or "standard input"
  std::string_view bytes() const { return bytes_; }  // decompressed
  std::string_view text() const {
    return bytes_.substr(mark_bytes_);
  }  // without the byte-order mark
  size_t mark_bytes() const { return mark_bytes_; }
  bool compressed() const { return compressed_; }

  /// Says that these bytes of the text have been read. From time to time the pages read so far
  /// leave this process (the system keeps what it has room for), so that a file of any size takes
  /// no more than kResident bytes. Thread safe: a page that is still in use comes back.
  void seen(std::string_view part) const;
  /// The whole content in pieces, each of them seen() after its turn.
  void in_pieces(const std::function<void(std::string_view)>& see) const;

 private:
  static constexpr size_t kResident = size_t{16} << 20;
  static constexpr size_t kReach = size_t{64} << 10;  // pages that one touch brings along
  mutable std::atomic<size_t> resident_ = 0, last_reach_ = 0;
  std::string name_;
  std::unique_ptr<MappedFile> file_;
  std::unique_ptr<Spill> spill_;
  std::string_view bytes_;
  size_t mark_bytes_ = 0;
  bool compressed_ = false;
};

/// Decompress `content` into `out`; `name` leads the errors (Corrupt). Concatenated members are
/// read as one.
void gunzip(std::string_view content, const std::string& name, Spill& out);
void unzstd(std::string_view content, const std::string& name, Spill& out);

}  // namespace attune
