// A table that trains shares the pages of its checkpoint with everybody until a row changes.
#include "tensor/file_table.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "base/random.h"
#include "io/safetensors.h"
#include "kernels/ops/rowwise.h"
#include "support/temp_folder.h"
#include "tensor/autograd.h"
#include "tensor/late_rows.h"
#include "tensor/memory.h"
#include "tensor/torch.h"
#include "tensor/types.h"
#include "train/optimizer.h"

namespace attune {
namespace file_table_test {

constexpr int64_t kRows = 1 << 14, kCols = 75;  // over a million numbers; rows across pages

/// A table in a file, behind other bytes of it.
class Stored {
 public:
  Stored() {
    const Tensor values =
        at::arange(kRows * kCols, at::kFloat).remainder_(1009).reshape({kRows, kCols}).mul_(0.01);
    save_safetensors(folder_.file("t.safetensors"),
                     {{"a", at::ones({7, 3}, at::kFloat)}, {"t", values}}, {});
    file_ = std::make_unique<SafetensorsFile>(folder_.file("t.safetensors"));
    table = file_->tensor("t");
    EXPECT_TRUE(at::equal(table, values));
  }
  std::string content() const { return read_file(folder_.file("t.safetensors")); }
  void shorten() { std::filesystem::resize_file(folder_.file("t.safetensors"), 4096); }
  Tensor table;

 private:
  TempFolder folder_;
  std::unique_ptr<SafetensorsFile> file_;
};

/// Bytes of the pages of a table's memory that are this process's own.
int64_t own_bytes(const Tensor& table) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(table.data_ptr());
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0, count = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2)
      inside = from <= address && address < to;
    if (inside && std::sscanf(line.c_str(), "Anonymous: %lu kB", &count) == 1)
      return static_cast<int64_t>(count) << 10;
  }
  return -1;
}

Tensor index_of(const std::vector<int32_t>& rows) {
  return int32_tensor(rows);
}

TEST(FileTable, IsACopyWhoseWritesReachNobody) {
  const Stored stored;
  const std::string before = stored.content();
  const Tensor original = stored.table.clone();
  {
    const Tensor copy = copied_when_written(stored.table);
    ASSERT_TRUE(copy.defined());
    EXPECT_TRUE(is_copied_when_written(copy));
    EXPECT_TRUE(at::equal(copy, original));
    EXPECT_EQ(own_bytes(copy), 0);
    copy[5].fill_(-1);
    own_rows(copy, index_of({9, 16383, 9}));
    EXPECT_TRUE(at::equal(copy[9], original[9]) && at::equal(copy[16383], original[16383]));
    EXPECT_EQ(copy[5].sum().item<float>(), -kCols);
    EXPECT_LE(own_bytes(copy), 6 * 4096);
  }
  EXPECT_TRUE(at::equal(stored.table, original));
  EXPECT_EQ(stored.content(), before);
  const Tensor elsewhere = original.clone();
  EXPECT_FALSE(copied_when_written(elsewhere).defined()) << "in no file";
  EXPECT_FALSE(is_copied_when_written(elsewhere));
  own_rows(elsewhere, index_of({1}));
  give_back_rows(elsewhere, std::vector<bool>(kRows, false));
  EXPECT_TRUE(at::equal(elsewhere, original));
}

TEST(FileTable, RowsGivenBackAreTheFilesAndTheOthersStay) {
  const Stored stored;
  const Tensor copy = copied_when_written(stored.table);
  copy.add_(1);
  EXPECT_GE(own_bytes(copy), copy.numel() * 4);
  std::vector<bool> keep(kRows, false);
  for (const size_t row : {size_t{0}, size_t{1}, size_t{500}, size_t{9000}, size_t{kRows - 1}})
    keep[row] = true;
  give_back_rows(copy, keep);
  EXPECT_LE(own_bytes(copy), 10 * 4096);
  for (int64_t row = 0; row < kRows; ++row)
    ASSERT_TRUE(at::equal(
        copy[row], keep[static_cast<size_t>(row)] ? stored.table[row] + 1 : stored.table[row]))
        << row;
}

TEST(FileTable, AFileThatChangedIsNamedAsTheReason) {
  Stored stored;
  const Tensor copy = copied_when_written(stored.table);
  copy.add_(1);
  std::vector<bool> keep(kRows, false);
  keep[500] = true;
  stored.shorten();
  const std::string text = error_text(ErrorCode::Io, [&] { give_back_rows(copy, keep); });
  EXPECT_NE(text.find("leave a model's files as they are"), std::string::npos) << text;
}

/// A weighted sum of what is looked up.
Tensor loss(const Tensor& table, const Tensor& index) {
  const Tensor y = embedding({table}, {index}, at::kFloat, -1);
  return (y * (at::arange(y.numel(), at::kFloat).remainder_(13).reshape(y.sizes()) - 6)).sum();
}

Tensor places(uint64_t key) {
  std::vector<int32_t> rows;
  for (uint64_t i = 0; i < 20; ++i)
    rows.push_back(static_cast<int32_t>(Stream64(key).bits(i) % 40 * 399));
  return index_of(rows);
}

struct Training {
  std::vector<Param> params{1};
  AdamW optimizer{AdamWOptions{0.9, 0.98, 1e-8, 0.1}};

  explicit Training(const Tensor& table) {
    params[0].name = "table";
    params[0].value = as_leaf(table);
    optimizer.leave_rows_behind();
  }
  Tensor value() const { return params[0].value.detach(); }
  double step(uint64_t key) {
    const Tensor sum = loss(params[0].value, places(key));
    sum.backward();
    optimizer.step(params, 0.01, 0.5);
    clear_gradients(params);
    return sum.item<double>();
  }
};

TEST(FileTable, StepsWithPausesToSaveAreThoseOfATableInMemory) {
  const Stored stored;
  Training shared(copied_when_written(stored.table)), plain(stored.table.clone());
  for (uint64_t step = 0; step < 12; ++step) {
    ASSERT_EQ(shared.step(step), plain.step(step)) << step;
    if (step % 3 != 2) continue;
    shared.optimizer.settle();
    plain.optimizer.settle();
    EXPECT_TRUE(at::equal(shared.value(), plain.value())) << step;
    EXPECT_GE(own_bytes(shared.value()), shared.value().numel() * 4) << "all rows have decayed";
    shared.optimizer.let_go();
    EXPECT_LE(own_bytes(shared.value()), 40 * 2 * 4096) << "of words that no batch had";
    EXPECT_FALSE(at::equal(shared.value(), plain.value())) << "their decay waits again";
  }
  // A pass that reads such a word has it up to date.
  EXPECT_EQ(loss(shared.params[0].value, index_of({3, 4})).item<double>(),
            loss(plain.params[0].value, index_of({3, 4})).item<double>());
  shared.optimizer.settle();
  plain.optimizer.settle();
  EXPECT_TRUE(at::equal(shared.value(), plain.value()));
}

TEST(FileTable, ValuesThatSomebodyElseWroteAreNeverGivenBack) {
  const Stored stored;
  for (const uint64_t steps_before : {0, 2}) {
    Training run(copied_when_written(stored.table));
    for (uint64_t step = 0; step < steps_before; ++step) run.step(step);
    run.optimizer.settle();
    run.value().add_(2);
    run.step(7);
    run.optimizer.settle();
    const Tensor before = run.value().clone();
    run.optimizer.let_go();
    EXPECT_TRUE(at::equal(run.value(), before)) << steps_before;
  }
}

int64_t resident_pages() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident;
}

TEST(FileTable, MemoryThatIsFreeGoesBackToTheSystem) {
  keep_freed_memory();
  Tensor large = at::ones({32 << 20}, at::kFloat);
  const Tensor behind = at::ones({1 << 20}, at::kFloat);
  large = Tensor();
  const int64_t before = resident_pages();
  return_free_memory();
  EXPECT_LE(resident_pages(), before - (120 << 20) / 4096);
  EXPECT_EQ(behind.sum().item<float>(), 1 << 20);
}

}  // namespace file_table_test
}  // namespace attune
