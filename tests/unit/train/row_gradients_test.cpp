// Gradients of large embedding tables come as rows: the same numbers, the same steps.
#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tensor/late_rows.h"
#include "tensor/torch.h"
#include "tensor/types.h"
#include "train/optimizer.h"

namespace attune {
namespace row_gradients_test {

constexpr int64_t kRows = 1 << 15, kCols = 33;  // over a million numbers

Tensor table(at::ScalarType type) {
  return as_leaf(at::arange(kRows * kCols, type).remainder_(17).reshape({kRows, kCols}).mul_(0.1));
}
/// So many places, some of them several times.
Tensor places(int64_t count, uint64_t key) {
  std::vector<int32_t> result;
  for (int64_t i = 0; i < count; ++i)
    result.push_back(static_cast<int32_t>(Stream64(key).bits(static_cast<uint64_t>(i)) % 97 * 300));
  return int32_tensor(result);
}
/// A weighted sum of what is looked up.
Tensor loss(const Tensor& table, const Tensor& index, at::ScalarType type, int64_t padding = -1) {
  const Tensor y = embedding({table}, {index}, type, padding);
  const Tensor weights = at::arange(y.numel(), at::kDouble).remainder_(13).reshape(y.sizes()) - 6;
  return (cast(y, at::kDouble) * weights).sum();
}
Tensor dense(const Tensor& table, const Tensor& index, at::ScalarType type, int64_t padding = -1) {
  const Tensor plain = as_leaf(table.detach().clone());
  loss(plain * 1, index, type, padding).backward();  // not a leaf: always dense
  return plain.grad();
}

TEST(RowGradients, AreTheDenseOnesNumbers) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const Tensor t = table(type), index = places(50, 3);
    const int64_t padding = index[7].item<int32_t>();
    loss(t, index, type, padding).backward();
    ASSERT_TRUE(t.grad().is_sparse());
    EXPECT_TRUE(at::equal(gradient_of(t), dense(t, index, type, padding)));
    const RowGradient rows = row_gradient(t.grad());
    EXPECT_LE(rows.values.size(0), 50);
    EXPECT_EQ(gradient_of(t)[padding].abs().max().item<double>(), 0);
  }
}

TEST(RowGradients, AddUpOverSeveralBatches) {
  const Tensor t = table(at::kDouble);
  Tensor expected = at::zeros_like(t.detach());
  for (const uint64_t key : {1, 2, 3}) {
    loss(t, places(40, key), at::kDouble).backward();
    expected = expected + dense(t, places(40, key), at::kDouble);
  }
  ASSERT_TRUE(t.grad().is_sparse());
  EXPECT_LE((gradient_of(t) - expected).abs().max().item<double>(), 1e-12);
  const RowGradient rows = row_gradient(t.grad());
  for (int64_t i = 1; i < rows.rows.numel(); ++i)
    ASSERT_LT(rows.rows[i - 1].item<int64_t>(), rows.rows[i].item<int64_t>());
  EXPECT_LE((rows.values - expected.index_select(0, rows.rows)).abs().max().item<double>(), 1e-12);
}

TEST(RowGradients, ManyRowsOrAComputedTableOrASecondUseStayDense) {
  const Tensor t = table(at::kFloat);
  loss(t, places(kRows / 4 + 1, 1), at::kFloat).backward();
  EXPECT_FALSE(t.grad().is_sparse());
  const Tensor tied = table(at::kFloat);
  (loss(tied, places(9, 1), at::kFloat) + tied.sum()).backward();
  EXPECT_FALSE(tied.grad().is_sparse());
  EXPECT_TRUE(at::equal(tied.grad(), dense(tied, places(9, 1), at::kFloat) + 1));
}

TEST(RowGradients, GiveTheStepsOfDenseOnes) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const Tensor start = table(type);
    std::vector<Param> sparse(1), whole(1);
    sparse[0].value = as_leaf(start.detach().clone());
    whole[0].value = as_leaf(start.detach().clone());
    AdamW first({}), second({});
    for (uint64_t key = 0; key < 4; ++key) {
      loss(sparse[0].value, places(60, key), type).backward();
      whole[0].value.mutable_grad() = dense(whole[0].value, places(60, key), type);
      EXPECT_NEAR(gradient_norm(sparse), gradient_norm(whole), 1e-9 * gradient_norm(whole));
      if (key == 2) {  // a mask needs every element
        const Tensor mask = at::ones({kRows, 1}, at::kByte);
        mask[places(60, key)[0].item<int32_t>()] = 0;
        sparse[0].mask = whole[0].mask = mask;
        EXPECT_NEAR(gradient_norm(sparse), gradient_norm(whole), 1e-9 * gradient_norm(whole));
      }
      first.step(sparse, 0.01, 0.5);
      second.step(whole, 0.01, 0.5);
      clear_gradients(sparse);
      EXPECT_TRUE(at::equal(sparse[0].value.detach(), whole[0].value.detach())) << key;
    }
  }
}

/// One step with what some batch looked up.
void step_with(AdamW& optimizer, std::vector<Param>& params, uint64_t key) {
  loss(params[0].value, places(60, key), at::kFloat).backward();
  optimizer.step(params, 0.01, 0.5);
  clear_gradients(params);
}

/// Steps at changing rates, some of which need every element.
TEST(RowGradients, RowsLeftBehindAreTheSameOnceTheyAreRead) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    std::vector<Param> late(1), prompt(1);
    for (std::vector<Param>* params : {&late, &prompt})
      (*params)[0].value = as_leaf(table(type).detach().clone());
    AdamW lazy({0.9, 0.98, 1e-8, 0.1}), eager({0.9, 0.98, 1e-8, 0.1});
    lazy.leave_rows_behind();
    for (uint64_t step = 0; step < 14; ++step) {
      const int64_t count = step % 5 == 3 ? kRows / 4 + 1 : 20;  // many: a dense gradient
      double seen[2];
      for (const bool first : {true, false}) {
        std::vector<Param>& params = first ? late : prompt;
        const Tensor sum = loss(params[0].value, places(count, step), type);
        sum.backward();
        ASSERT_EQ(params[0].value.grad().is_sparse(), count == 20);
        (first ? lazy : eager).step(params, 0.01 / static_cast<double>(1 + step), 0.5);
        clear_gradients(params);
        seen[first ? 0 : 1] = sum.item<double>();
      }
      EXPECT_EQ(seen[0], seen[1]) << "what is read is up to date, step " << step;
      const Tensor now = late[0].value.detach(), should = prompt[0].value.detach();
      EXPECT_EQ(at::equal(now, should), count != 20) << "the others wait, step " << step;
      if (step % 6 != 5) continue;
      lazy.settle();
      EXPECT_TRUE(at::equal(now, should)) << step;
    }
    lazy.settle();
    for (size_t i = 0; i < lazy.state().size(); ++i)
      EXPECT_TRUE(at::equal(lazy.state()[i].second, eager.state()[i].second)) << i;
    EXPECT_TRUE(at::equal(late[0].value.detach(), prompt[0].value.detach()));
  }
}

TEST(RowGradients, AThousandStepsBehindAreBroughtAndAnOptimizerThatGoesOwesNothing) {
  std::vector<Param> late(1), prompt(1);
  for (std::vector<Param>* params : {&late, &prompt})
    (*params)[0].value = as_leaf(table(at::kFloat).detach().clone());
  {
    AdamW lazy({}), eager({});
    lazy.leave_rows_behind();
    for (uint64_t step = 0; step < 1030; ++step)
      for (const bool first : {true, false}) {
        std::vector<Param>& params = first ? late : prompt;
        loss(params[0].value, places(2, step % 2), at::kFloat).backward();
        (first ? lazy : eager).step(params, 0.01, 0.5);
        clear_gradients(params);
      }
    lazy.settle();
  }
  EXPECT_TRUE(at::equal(late[0].value.detach(), prompt[0].value.detach()));
  bring_rows(late[0].value);  // by nobody
}

TEST(RowGradients, MomentsThatWereSavedGoOnWithTheirRows) {
  std::vector<Param> one(1), other(1);
  one[0].name = other[0].name = "table";
  one[0].value = as_leaf(table(at::kFloat).detach().clone());
  AdamW first({}), second({});
  for (uint64_t key = 0; key < 3; ++key) step_with(first, one, key);
  other[0].value = as_leaf(one[0].value.detach().clone());
  second.expect(other, first.tensors());
  const std::vector<std::pair<std::string, Tensor>> saved = first.state(), to = second.state();
  for (size_t i = 0; i < saved.size(); ++i) to[i].second.copy_(saved[i].second);
  second.compact();
  for (size_t i = 0; i < saved.size(); ++i) {
    const Tensor now = second.state()[i].second;
    EXPECT_TRUE(at::equal(now, saved[i].second)) << saved[i].first;
    EXPECT_EQ(now.data_ptr() == to[i].second.data_ptr(), i == 2) << "all but the count are others";
  }
  // Rows that no batch from here on looks up still move by the moments of before.
  for (uint64_t key = 5; key < 7; ++key) {
    step_with(first, one, key);
    step_with(second, other, key);
    EXPECT_TRUE(at::equal(one[0].value.detach(), other[0].value.detach())) << key;
  }
}

}  // namespace row_gradients_test
}  // namespace attune
