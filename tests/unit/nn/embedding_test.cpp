// Looking up rows of a table that stays in its file.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "kernels/ops/rowwise.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace embedding_test {

constexpr int64_t kRows = 70'000, kCols = 256;  // 68 MiB

/// Row r holds r + c / 1024 in column c.
float value(int64_t r, int64_t c) {
  return static_cast<float>(r) + static_cast<float>(c) / 1024;
}

void write_table(const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  std::vector<float> row(kCols);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) row[static_cast<size_t>(c)] = value(r, c);
    out.write(reinterpret_cast<const char*>(row.data()), kCols * 4);
  }
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

class TableInAFile : public ::testing::Test {
 protected:
  void SetUp() override { write_table(folder_.file("table")); }
  TempFolder folder_;
};

TEST_F(TableInAFile, RowsAreReadAndTheTableStaysOutOfTheProcess) {
  const MappedFile file(folder_.file("table"), true);
  const at::Tensor table = at::from_blob(file.writable(), {kRows, kCols}, at::kFloat);
  std::vector<int32_t> ids;
  const Stream64 stream(1, "ids");
  for (uint64_t i = 0; i < 3000; ++i)
    ids.push_back(static_cast<int32_t>(stream.below(i, static_cast<uint64_t>(kRows))));
  const int64_t before = resident_bytes();
  const at::Tensor y = embedding({table}, {int32_tensor(ids)}, at::kFloat, -1);
  EXPECT_LT(resident_bytes() - before, 30 << 20);
  const auto found = y.accessor<float, 2>();
  for (int64_t i = 0; i < 3000; ++i)
    for (const int64_t c : {int64_t{0}, int64_t{101}, kCols - 1})
      ASSERT_EQ(found[i][c], value(ids[static_cast<size_t>(i)], c));
}

TEST_F(TableInAFile, ATableThatWasChangedIsReadAsItIs) {
  const MappedFile file(folder_.file("table"), true);
  const at::Tensor table = at::from_blob(file.writable(), {kRows, kCols}, at::kFloat);
  table.select(0, 5).fill_(-2);
  const at::Tensor y = embedding({table}, {int32_tensor({4, 5})}, at::kFloat, -1);
  EXPECT_EQ(y.select(0, 0)[3].item<float>(), value(4, 3));
  EXPECT_EQ(y.select(0, 1)[3].item<float>(), -2.0F);
}

TEST_F(TableInAFile, ATrainedTableGetsItsGradient) {
  const MappedFile file(folder_.file("table"), true);
  const at::Tensor table =
      at::from_blob(file.writable(), {kRows, kCols}, at::kFloat).requires_grad_(true);
  embedding({table}, {int32_tensor({9, 9, 2})}, at::kFloat, -1).sum().backward();
  const at::Tensor gradient = table.grad().to_dense();
  EXPECT_EQ(gradient[9][0].item<float>(), 2.0F);
  EXPECT_EQ(gradient[2][kCols - 1].item<float>(), 1.0F);
  EXPECT_EQ(gradient.sum().item<double>(), 3.0 * kCols);
}

}  // namespace embedding_test
}  // namespace attune
