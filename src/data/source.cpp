#include "data/source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace attune {

Spill::~Spill() {
  if (mapped_) munmap(mapped_, written_);
  if (fd_ >= 0) close(fd_);
}

void Spill::add(const char* data, size_t bytes) {
  if (fd_ < 0 && memory_.size() + bytes <= memory_limit_) {
    memory_.append(data, bytes);
    return;
  }
  if (fd_ < 0) {
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
    std::string name = ((error ? "/tmp" : folder) / "attune-data-XXXXXX").string();
    fd_ = mkstemp(name.data());
    if (fd_ < 0)
      fail(ErrorCode::Io, "making a temporary file {}: {}; set TMPDIR to a folder with space", name,
           std::strerror(errno));
    unlink(name.c_str());
    write_out(memory_.data(), memory_.size());
    std::string().swap(memory_);
  }
  write_out(data, bytes);
}

void Spill::write_out(const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t done = write(fd_, data, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0)
      fail(ErrorCode::Io,
           "writing decompressed data to a temporary file after {}: {}; set TMPDIR to a folder "
           "with space",
           human_bytes(static_cast<double>(written_)), std::strerror(errno));
    data += done;
    bytes -= static_cast<size_t>(done);
    written_ += static_cast<size_t>(done);
  }
}

std::string_view Spill::finish() {
  if (fd_ < 0) return memory_;
  void* place = mmap(nullptr, written_, PROT_READ, MAP_PRIVATE, fd_, 0);
  if (place == MAP_FAILED)
    fail(ErrorCode::Io, "mapping a temporary file of {}: {}",
         human_bytes(static_cast<double>(written_)), std::strerror(errno));
  mapped_ = place;
  return {static_cast<const char*>(mapped_), written_};
}

namespace {

void read_stream(int fd, const std::string& name, Spill& out) {
  std::vector<char> buffer(size_t{1} << 20);
  for (;;) {
    const ssize_t bytes = read(fd, buffer.data(), buffer.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) fail(ErrorCode::Io, "reading {}: {}", name, std::strerror(errno));
    if (bytes == 0) return;
    out.add(buffer.data(), static_cast<size_t>(bytes));
  }
}

/// Names in a folder, sorted; empty when it cannot be read.
std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entries(folder.empty() ? "." : folder, error);
  if (error) return names;
  for (const std::filesystem::directory_entry& entry : entries)
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

[[noreturn]] void fail_missing(const std::string& path) {
  const std::filesystem::path place(path);
  const std::vector<std::string> near =
      nearest(place.filename().string(), names_in(place.parent_path()));
  if (near.empty()) fail(ErrorCode::NotFound, "reading data: {} does not exist", path);
  fail(ErrorCode::NotFound, "reading data: {} does not exist; its folder holds: {}", path,
       join(near, ", "));
}

[[noreturn]] void fail_folder(const std::string& path) {
  std::vector<std::string> names = names_in(path);
  if (names.size() > 5) names.resize(5);
  fail(ErrorCode::BadInput,
       "reading data: {} is a folder, expected a file; name the files in it{}{}", path,
       names.empty() ? "" : ", such as ", join(names, ", "));
}

bool names_image(const std::string& name) {
  std::string lower = name;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return ends_with(lower, ".png") || ends_with(lower, ".jpg") || ends_with(lower, ".jpeg");
}

/// A folder of images as lines of JSON, in order of names: {"image": file}, and with "label" those
/// in subfolders, whose names are the labels. False when there is none.
bool list_images(const std::string& path, Spill& out) {
  bool any = false;
  const auto add = [&](const std::string& file, const std::string* label) {
    Json line{{"image", file}};
    if (label != nullptr) line["label"] = *label;
    const std::string text = line.dump() + "\n";
    out.add(text.data(), text.size());
    any = true;
  };
  for (const std::string& name : names_in(path)) {
    const std::string place = (std::filesystem::path(path) / name).string();
    if (names_image(name)) add(place, nullptr);
    std::error_code error;
    if (!std::filesystem::is_directory(place, error)) continue;
    for (const std::string& file : names_in(place))
      if (names_image(file)) add((std::filesystem::path(place) / file).string(), &name);
  }
  return any;
}

[[noreturn]] void fail_empty(const std::string& name) {
  fail(ErrorCode::BadInput, "{}: the file is empty; expected at least one record", name);
}

/// Other containers, known by their first bytes, would only give a puzzling UTF-8 error.
void refuse_containers(std::string_view content, const std::string& name) {
  struct Container {
    std::string_view magic, name;
  };
  static constexpr Container kContainers[] = {{"PAR1", "a Parquet file"},
                                              {"ARROW1", "an Arrow file"},
                                              {"PK\x03\x04", "a zip archive or a spreadsheet"},
                                              {"BZh", "compressed with bzip2"},
                                              {"\xFD"
                                               "7zXZ",
                                               "compressed with xz"}};
  for (const Container& container : kContainers)
    if (starts_with(content, container.magic))
      fail(ErrorCode::Unsupported,
           "{} is {}, which cannot be read; convert it to JSONL or CSV (gzip and zstd are read)",
           name, container.name);
  if (starts_with(content, "\xFF\xFE") || starts_with(content, "\xFE\xFF"))
    fail(ErrorCode::BadInput,
         "{}: the text is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8", name);
}

}  // namespace

Source::Source(const std::string& path, size_t memory_limit)
    : name_(path == "-" ? "standard input" : path) {
  struct stat info {};
  if (path == "-") {
    spill_ = std::make_unique<Spill>(memory_limit);
    read_stream(STDIN_FILENO, name_, *spill_);
    bytes_ = spill_->finish();
  } else if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) fail_missing(path);
    fail(ErrorCode::Io, "reading data: {}: {}", path, std::strerror(errno));
  } else if (S_ISDIR(info.st_mode)) {
    spill_ = std::make_unique<Spill>(memory_limit);
    if (!list_images(path, *spill_)) fail_folder(path);
    bytes_ = spill_->finish();
  } else if (S_ISREG(info.st_mode)) {
    if (info.st_size == 0) fail_empty(name_);
    file_ = std::make_unique<MappedFile>(path);
    bytes_ = file_->view();
  } else {
    // Pipes, as a shell's <(...) gives, have no size and cannot be mapped.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(ErrorCode::Io, "reading data: {}: {}", path, std::strerror(errno));
    spill_ = std::make_unique<Spill>(memory_limit);
    read_stream(fd, name_, *spill_);
    close(fd);
    bytes_ = spill_->finish();
  }
  const bool gzip = starts_with(bytes_, "\x1F\x8B"), zstd = starts_with(bytes_, "\x28\xB5\x2F\xFD");
  if (gzip || zstd) {
    std::unique_ptr<Spill> plain = std::make_unique<Spill>(memory_limit);
    gzip ? gunzip(bytes_, name_, *plain) : unzstd(bytes_, name_, *plain);
    bytes_ = plain->finish();
    spill_ = std::move(plain);
    file_.reset();
    compressed_ = true;
  }
  refuse_containers(bytes_, name_);
  if (starts_with(bytes_, "\xEF\xBB\xBF")) mark_bytes_ = 3;
  if (text().empty()) fail_empty(name_);
}

void Source::seen(std::string_view part) const {
  if (bytes_.size() <= kResident) return;
  if (file_ == nullptr && (spill_ == nullptr || !spill_->on_disk())) return;
  const size_t first = static_cast<size_t>(part.data() - bytes_.data()) / kReach,
               last = static_cast<size_t>(part.data() + part.size() - bytes_.data()) / kReach;
  const size_t before = last_reach_.exchange(last, std::memory_order_relaxed);
  const size_t reaches = last - first + (first == before ? 0 : 1);
  if (reaches == 0) return;
  if (resident_.fetch_add(reaches * kReach, std::memory_order_relaxed) + reaches * kReach <
      kResident)
    return;
  resident_.store(0, std::memory_order_relaxed);
  forget_pages(bytes_.data(), bytes_.size());
}

void Source::in_pieces(const std::function<void(std::string_view)>& see) const {
  constexpr size_t kPiece = size_t{4} << 20;
  for (size_t at = 0; at < bytes_.size(); at += kPiece) {
    const std::string_view piece = bytes_.substr(at, kPiece);
    see(piece);
    seen(piece);
  }
}

}  // namespace attune
