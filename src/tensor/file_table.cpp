#include "tensor/file_table.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <new>

#include "base/error.h"
#include "base/file.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

size_t page_bytes() {
  static const size_t bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

/// Private pages over a part of a file.
class FileTable {
 public:
  FileTable(FilePlace place, size_t bytes)
      : place_{::dup(place.fd), place.offset}, before_(place.offset % page_bytes()) {
    bytes_ = before_ + bytes;
    void* memory = place_.fd < 0 ? MAP_FAILED
                                 : ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE,
                                          place_.fd, static_cast<off_t>(place_.offset - before_));
    if (memory != MAP_FAILED) memory_ = static_cast<char*>(memory);
    own_.assign((bytes_ + page_bytes() - 1) / page_bytes(), false);
  }
  ~FileTable() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
    if (place_.fd >= 0) ::close(place_.fd);
  }
  FileTable(const FileTable&) = delete;
  FileTable& operator=(const FileTable&) = delete;

  /// Null where the system gave no mapping.
  char* data() const { return memory_ == nullptr ? nullptr : memory_ + before_; }

  void own(size_t begin, size_t end) {
    const size_t first = page_of(begin), last = page_of(end - 1);
    if (std::all_of(own_.begin() + static_cast<int64_t>(first),
                    own_.begin() + static_cast<int64_t>(last) + 1, [](bool own) { return own; }))
      return;
#ifdef MADV_POPULATE_WRITE
    // Where the system is older the pages come when they are read, with their neighbours.
    static_cast<void>(::madvise(memory_ + first * page_bytes(), (last - first + 1) * page_bytes(),
                                MADV_POPULATE_WRITE));
#endif
    std::fill(own_.begin() + static_cast<int64_t>(first),
              own_.begin() + static_cast<int64_t>(last) + 1, true);
  }

  void give_back(size_t row, const std::vector<bool>& keep) {
    std::vector<bool> kept(own_.size(), false);
    for (size_t i = 0; i < keep.size(); ++i)
      for (size_t page = page_of(i * row); keep[i] && page <= page_of((i + 1) * row - 1); ++page)
        kept[page] = true;
    for (size_t begin = 0; begin < kept.size();) {
      const size_t end = static_cast<size_t>(
          std::find(kept.begin() + static_cast<int64_t>(begin), kept.end(), !kept[begin]) -
          kept.begin());
      if (!kept[begin]) drop(begin, end);
      begin = end;
    }
    for (size_t i = 0; i < keep.size(); ++i)
      for (size_t page = page_of(i * row); !keep[i] && page <= page_of((i + 1) * row - 1); ++page)
        if (kept[page]) read_again(page, i * row, (i + 1) * row);
  }

 private:
  size_t page_of(size_t byte) const {
    return (before_ + byte) / page_bytes();
  }

  void drop(size_t first, size_t end) {
    static_cast<void>(
        ::madvise(memory_ + first * page_bytes(), (end - first) * page_bytes(), MADV_DONTNEED));
    std::fill(own_.begin() + static_cast<int64_t>(first), own_.begin() + static_cast<int64_t>(end),
              false);
  }

  /// What the page holds of bytes [begin, end) of the table, which has other rows to keep.
  void read_again(size_t page, size_t begin, size_t end) {
    const size_t page_begin = page * page_bytes();
    const size_t from = std::max(before_ + begin, page_begin) - before_,
                 to = std::min(before_ + end, page_begin + page_bytes()) - before_;
    if (!place_.read(from, to - from, data() + from))
      fail(ErrorCode::Io,
           "reading a word table again from the checkpoint that training began from: the file no "
           "longer gives what it held; leave a model's files as they are while it trains");
  }

  FilePlace place_;
  size_t before_ = 0;  // bytes of the first page that are not the table's
  size_t bytes_ = 0;
  char* memory_ = nullptr;
  std::vector<bool> own_;  // by page
};

struct FileTables {
  std::mutex mutex;
  std::map<const void*, std::shared_ptr<FileTable>> by_memory;
};
/// Never destroyed: tensors may outlive any order of destruction.
FileTables& file_tables() {
  static FileTables* const tables = new FileTables;
  return *tables;
}

std::shared_ptr<FileTable> file_table_of(const at::Tensor& table) {
  FileTables& tables = file_tables();
  const std::lock_guard<std::mutex> lock(tables.mutex);
  const auto found = tables.by_memory.find(table.data_ptr());
  return found == tables.by_memory.end() ? nullptr : found->second;
}

size_t row_bytes(const at::Tensor& table) {
  return static_cast<size_t>(table.nbytes()) / static_cast<size_t>(table.size(0));
}

}  // namespace

at::Tensor copied_when_written(const at::Tensor& stored) {
  const size_t bytes = static_cast<size_t>(stored.nbytes());
  if (bytes == 0 || !stored.is_contiguous()) return at::Tensor();
  const std::optional<FilePlace> place = place_in_file(stored.data_ptr(), bytes);
  if (!place) return at::Tensor();
  const std::shared_ptr<FileTable> table = std::make_shared<FileTable>(*place, bytes);
  if (table->data() == nullptr) return at::Tensor();
  FileTables& tables = file_tables();
  const std::lock_guard<std::mutex> lock(tables.mutex);
  tables.by_memory[table->data()] = table;
  const auto forget = [](void* data) {
    FileTables& all = file_tables();
    const std::lock_guard<std::mutex> holding(all.mutex);
    all.by_memory.erase(data);
  };
  return at::from_blob(table->data(), stored.sizes(), forget,
                       stored.options().requires_grad(false));
}

bool is_copied_when_written(const at::Tensor& table) {
  return file_table_of(table) != nullptr;
}

void own_rows(const at::Tensor& table, const at::Tensor& index) {
  const std::shared_ptr<FileTable> file = file_table_of(table);
  if (file == nullptr) return;
  const int32_t* rows = pointer<const int32_t>(index);
  const size_t bytes = row_bytes(table);
  for (int64_t i = 0; i < index.numel(); ++i) {
    const size_t begin = static_cast<size_t>(rows[i]) * bytes;
    file->own(begin, begin + bytes);
  }
}

void give_back_rows(const at::Tensor& table, const std::vector<bool>& keep) {
  if (const std::shared_ptr<FileTable> file = file_table_of(table); file != nullptr)
    file->give_back(row_bytes(table), keep);
}

}  // namespace attune
