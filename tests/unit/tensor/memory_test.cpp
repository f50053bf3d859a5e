#include "tensor/memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "tensor/torch.h"

namespace attune {
namespace memory_test {

TEST(KeepFreedMemory, ASecondRoundOfTheSameTensorsAsksTheSystemForNothing) {
  keep_freed_memory();
  const auto round = [] {
    std::vector<at::Tensor> all;
    for (int64_t i = 1; i < 12; ++i) all.push_back(at::full({i, 40000}, static_cast<double>(i)));
    double sum = 0;
    for (const at::Tensor& x : all) sum += x.sum().item<double>();
    return sum;
  };
  const double first = round();
  const int64_t made = memory_counts().made;
  EXPECT_GT(made, 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(round(), first);
  EXPECT_EQ(memory_counts().made, made);
}

TEST(KeepFreedMemory, CountsWhatIsInUse) {
  keep_freed_memory();
  const MemoryCounts before = memory_counts();
  {
    const at::Tensor x = at::empty({1 << 20}, at::kFloat);
    EXPECT_GE(memory_counts().in_use, before.in_use + (4 << 20));
    EXPECT_LE(memory_counts().in_use, before.in_use + (4 << 20) + (64 << 10) + 4096);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(x.data_ptr()) % 64, 0U);
  }
  EXPECT_EQ(memory_counts().in_use, before.in_use);
}

TEST(KeepFreedMemory, StaysNearTheMostThatWasInUse) {
  keep_freed_memory();
  for (int64_t size = 100; size < 2000; size += 7) {
    const at::Tensor x = at::zeros({size, 1000}), y = at::zeros({size / 2, 1000});
    const MemoryCounts counts = memory_counts();
    EXPECT_LE(counts.in_use + counts.kept, counts.peak + counts.peak / 8 + (34 << 20));
  }
}

TEST(KeepFreedMemory, NeighboursJoinSoThatOtherSizesFit) {
  keep_freed_memory();
  const auto many = [](int64_t count, int64_t numbers) {
    std::vector<at::Tensor> all;
    for (int64_t i = 0; i < count; ++i) all.push_back(at::full({numbers}, static_cast<double>(i)));
    for (int64_t i = 0; i < count; ++i)
      EXPECT_EQ(all[static_cast<size_t>(i)].sum().item<double>(), static_cast<double>(i * numbers));
    // Every second one goes first, then the rest in this order.
    for (size_t i = 0; i < all.size(); i += 2) all[i] = at::Tensor();
  };
  many(64, 1 << 18);
  const int64_t made = memory_counts().made, in_use = memory_counts().in_use;
  many(7, 1 << 21);
  many(300, 40001);
  many(64, 1 << 18);
  EXPECT_EQ(memory_counts().made, made);
  EXPECT_EQ(memory_counts().in_use, in_use);
}

TEST(KeepFreedMemory, WhatManyTensorsLeftHoldsOneOfTheirSize) {
  keep_freed_memory();
  {
    std::vector<at::Tensor> all;
    for (int i = 0; i < 24; ++i) all.push_back(at::full({2 << 20}, static_cast<double>(i)));
    for (int i = 0; i < 24; ++i)
      EXPECT_EQ(all[static_cast<size_t>(i)][(2 << 20) - 1].item<double>(), static_cast<double>(i));
  }
  const MemoryCounts before = memory_counts();
  const at::Tensor x = at::ones({44 << 20});
  EXPECT_EQ(x.sum().item<double>(), static_cast<double>(44 << 20));
  const MemoryCounts after = memory_counts();
  EXPECT_EQ(after.in_use + after.kept, before.in_use + before.kept);
  EXPECT_EQ(after.made, before.made);
}

TEST(ZerosWhenWritten, AreZerosOfTheShapeThatHoldWhatIsWritten) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble})
    for (const int64_t rows : {int64_t{0}, int64_t{1}, int64_t{3000}}) {
      const at::Tensor like = at::ones({rows, 7}, type);
      at::Tensor x = zeros_when_written(like);
      EXPECT_EQ(x.sizes(), like.sizes());
      EXPECT_EQ(x.scalar_type(), type);
      EXPECT_TRUE(at::equal(x, at::zeros_like(like)));
      x.add_(2);
      EXPECT_TRUE(at::equal(x, like + 1));
    }
}

TEST(ZerosWhenWritten, GetPagesOfTheSystemWhereSomethingIsWritten) {
  const at::Tensor x = zeros_when_written(at::empty({1 << 14, 1024}, at::kFloat));  // 64 MiB
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> there((x.nbytes() + page - 1) / page);
  const auto pages = [&] {
    EXPECT_EQ(::mincore(x.data_ptr(), x.nbytes(), there.data()), 0);
    return std::count_if(there.begin(), there.end(), [](unsigned char c) { return (c & 1) != 0; });
  };
  EXPECT_EQ(pages(), 0);
  x[77].fill_(1);
  x[9000].fill_(1);
  EXPECT_GE(pages(), 2);
  EXPECT_LE(pages(), 4);
}

TEST(KeepFreedMemory, SmallAndEmptyTensorsWork) {
  keep_freed_memory();
  EXPECT_EQ(at::empty({0}).numel(), 0);
  at::Tensor grown = at::ones({3});
  grown.resize_({50000});
  EXPECT_EQ(grown.narrow(0, 0, 3).sum().item<double>(), 3.0);
}

}  // namespace memory_test
}  // namespace attune
