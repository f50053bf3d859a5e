#include "kernels/gemm_blocks.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm_run.h"
#include "kernels/kernels.h"

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

/// [begin, end), multiples of step, in `count` pieces that differ by a step at most.
void cut_evenly(int64_t begin, int64_t end, int64_t count, int64_t step,
                std::vector<RowPiece>& to) {
  const int64_t steps = (end - begin) / step;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = begin + steps * i / count * step,
                  until = begin + steps * (i + 1) / count * step;
    if (until > from) to.push_back({from, until - from});
  }
}

}  // namespace

std::vector<RowPiece> row_pieces(int64_t rows, int64_t threads) {
  const int64_t step = isa() == Isa::AmxBf16 ? kTailBlock : 8, over = rows % step;
  const int64_t pieces = (rows + threads * kRowsAPiece - 1) / (threads * kRowsAPiece);
  const auto part = [&](int64_t i) { return (rows * i / threads + step / 2) / step * step; };
  std::vector<RowPiece> all;
  for (int64_t i = 0; i + 1 < threads; ++i) cut_evenly(part(i), part(i + 1), pieces, step, all);
  const int64_t last = part(threads - 1);
  const int64_t rest = over == 0 ? 0 : std::min(rows - last, kRowBlock + over);
  cut_evenly(last, rows - rest, pieces, step, all);
  if (rest > 0) all.push_back({rows - rest, rest});
  return all;
}

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
