#include "kernels/gemm_blocks.h"

#include <cstring>
#include <vector>

#include "kernels/gemm_run.h"

namespace attune::kernels::detail {

namespace {

const char* row(const void* data, DType type, int64_t cols, int64_t index) {
  return static_cast<const char*>(data) + index * cols * size_of(type);
}

/// The last rows of a matrix, followed by zero rows.
Matrix padded_tail(const Matrix& x, int64_t begin, int64_t padded, std::vector<char>& scratch) {
  const size_t stride = static_cast<size_t>(x.cols * size_of(x.type));
  const size_t used = stride * static_cast<size_t>(x.rows - begin);
  scratch.resize(stride * static_cast<size_t>(padded));
  std::memcpy(scratch.data(), row(x.data, x.type, x.cols, begin), used);
  std::memset(scratch.data() + used, 0, scratch.size() - used);
  return {scratch.data(), x.type, padded, x.cols, x.transposed};
}

int64_t round_up(int64_t value) {
  return (value + kTailBlock - 1) / kTailBlock * kTailBlock;
}

}  // namespace

void product_by_rows(const Matrix& a, const MutableMatrix& c, bool accumulate,
                     const RowProduct& run) {
  const int64_t main = a.rows / kRowBlock * kRowBlock, tail = a.rows - main;
  if (main > 0) run({a.data, a.type, main, a.cols, false}, {c.data, c.type, main, c.cols});
  if (tail == 0) return;
  thread_local std::vector<char> a_scratch, c_scratch;
  const Matrix last = padded_tail(a, main, round_up(tail), a_scratch);
  char* out = const_cast<char*>(row(c.data, c.type, c.cols, main));
  const size_t bytes = static_cast<size_t>(tail * c.cols * size_of(c.type));
  c_scratch.resize(static_cast<size_t>(last.rows * c.cols * size_of(c.type)));
  if (accumulate) {
    std::memcpy(c_scratch.data(), out, bytes);
    std::memset(c_scratch.data() + bytes, 0, c_scratch.size() - bytes);
  }
  run(last, {c_scratch.data(), c.type, last.rows, c.cols});
  std::memcpy(out, c_scratch.data(), bytes);
}

void product_by_inner(const Matrix& a, const Matrix& b, bool accumulate, const InnerProduct& run) {
  const int64_t main = a.rows / kRowBlock * kRowBlock, tail = a.rows - main;
  if (main > 0)
    run({a.data, a.type, main, a.cols, true}, {b.data, b.type, main, b.cols, false}, accumulate);
  if (tail == 0) return;
  thread_local std::vector<char> a_scratch, b_scratch;
  const Matrix last_a = padded_tail(a, main, round_up(tail), a_scratch);
  const Matrix last_b = padded_tail(b, main, round_up(tail), b_scratch);
  run(last_a, last_b, accumulate || main > 0);
}

}  // namespace attune::kernels::detail
