#include <algorithm>
#include <memory>

#include "kernels/detail/pack.h"
#include "kernels/detail/runtime.h"
#include "kernels/gemm_run.h"
#include "kernels/kernels.h"

namespace attune::kernels::detail {

namespace {

constexpr int64_t kLeastRows = 128, kLeastCols = 64, kMostColsAPiece = 256;
constexpr uint64_t kAnyLayout = 2;  // of GemmKey::packed; hashes are odd

int64_t up_to(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Columns of a that are turned and multiplied at once: as many pieces for every thread.
int64_t cols_a_piece(int64_t cols, int64_t threads) {
  const int64_t rounds = (cols + threads * kMostColsAPiece - 1) / (threads * kMostColsAPiece);
  return up_to((cols + threads * rounds - 1) / (threads * rounds), 16);
}

/// One product whose right operand is packed.
struct Turned {
  const bf16* a;
  const bf16* packed;
  float* c;
  int64_t rows, cols, depth, n, piece;  // a [rows, cols]; depth: rows with the zeros behind them
  GemmKey key;                          // of a whole piece
  std::shared_ptr<const GemmPlan> whole;

  void run(int64_t index) const {
    const int64_t begin = index * piece, count = std::min(piece, cols - begin);
    bf16* turned = scratch<bf16>(1, count * depth);
    turn_rows_avx512(a + begin, cols, rows, count, turned, depth);
    run_plan(count == piece ? *whole : *rest(count), turned, packed, nullptr, c + begin * n);
  }
  /// The last piece has the layout of the others.
  std::shared_ptr<const GemmPlan> rest(int64_t count) const {
    GemmKey own = key;
    own.m = count;
    own.packed = layout_hash(whole->b);
    return gemm_plan(own, &whole->b);
  }
};

}  // namespace

bool product_turned(const Matrix& a, const Matrix& b, const MutableMatrix& c, bool accumulate) try {
  if (isa() < Isa::Avx512Bf16 || a.type != DType::BF16 || c.type != DType::F32 ||
      a.rows < kLeastRows || std::min(a.cols, b.cols) < kLeastCols)
    return false;
  Turned work;
  work.a = static_cast<const bf16*>(a.data);
  work.c = static_cast<float*>(c.data);
  work.rows = a.rows;
  work.cols = a.cols;
  work.depth = up_to(a.rows, kPackDepth);
  work.n = b.cols;
  work.piece = cols_a_piece(a.cols, threads());
  work.key.m = work.piece;
  work.key.k = work.depth;
  work.key.n = b.cols;
  work.key.in = DType::BF16;
  work.key.accumulate = accumulate;
  work.key.threads = 1;
  work.key.packed = kAnyLayout;
  const dnnl::memory::desc any({work.depth, b.cols}, onednn_type(DType::BF16),
                               dnnl::memory::format_tag::any);
  work.whole = gemm_plan(work.key, &any);
  if (!pairs_in_blocks(work.whole->b)) return false;
  const auto& strides = work.whole->b.data.format_desc.blocking.strides;
  const Borrowed place(work.whole->b.get_size());
  bf16* packed = static_cast<bf16*>(place.data());
  pack_pairs_avx512(static_cast<const bf16*>(b.data), b.rows, b.cols, false, strides[0], strides[1],
                    packed);
  work.packed = packed;
  share_pieces((a.cols + work.piece - 1) / work.piece, [&](int64_t index) { work.run(index); });
  set_last_implementation(work.whole->implementation.c_str());
  return true;
} catch (const dnnl::error& error) {
  product_failed(key_of(a, b.cols, c, nullptr, accumulate), error);
}

}  // namespace attune::kernels::detail
