#include "kernels/gemm_turned.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "kernels/detail/pack.h"
#include "kernels/detail/runtime.h"
#include "kernels/gemm_run.h"
#include "kernels/kernels.h"

namespace attune::kernels {
namespace detail {

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

}  // namespace
}  // namespace detail

using namespace detail;

/// One product whose right operand is packed.
struct TurnedProduct::State {
  const bf16* a = nullptr;
  int64_t rows = 0, cols = 0, depth = 0, n = 0,
          piece = 0;  // a [rows, cols]; depth: rows with the zeros behind them
  GemmKey key;        // of a whole piece
  std::shared_ptr<const GemmPlan> whole;
  std::unique_ptr<Borrowed> packed;

  void run(int64_t index, float* c) const {
    const int64_t begin = index * piece, count = std::min(piece, cols - begin);
    bf16* turned = scratch<bf16>(1, count * depth);
    turn_rows_avx512(a + begin, cols, rows, count, turned, depth);
    run_plan(count == piece ? *whole : *rest(count), turned, packed->data(), nullptr,
             c + begin * n);
  }
  /// The last piece has the layout of the others.
  std::shared_ptr<const GemmPlan> rest(int64_t count) const {
    GemmKey own = key;
    own.m = count;
    own.packed = layout_hash(whole->b);
    return gemm_plan(own, &whole->b);
  }
};

TurnedProduct::TurnedProduct(std::unique_ptr<State> state) : state_(std::move(state)) {}
TurnedProduct::~TurnedProduct() = default;

std::unique_ptr<TurnedProduct> TurnedProduct::begin(const Matrix& a, const Matrix& b,
                                                    bool accumulate) try {
  if (isa() < Isa::Avx512Bf16 || a.type != DType::BF16 || b.type != DType::BF16 ||
      a.rows < kLeastRows || std::min(a.cols, b.cols) < kLeastCols)
    return nullptr;
  std::unique_ptr<State> work = std::make_unique<State>();
  work->a = static_cast<const bf16*>(a.data);
  work->rows = a.rows;
  work->cols = a.cols;
  work->depth = up_to(a.rows, kPackDepth);
  work->n = b.cols;
  work->piece = cols_a_piece(a.cols, threads());
  work->key.m = work->piece;
  work->key.k = work->depth;
  work->key.n = b.cols;
  work->key.in = DType::BF16;
  work->key.accumulate = accumulate;
  work->key.threads = 1;
  work->key.packed = kAnyLayout;
  const dnnl::memory::desc any({work->depth, b.cols}, onednn_type(DType::BF16),
                               dnnl::memory::format_tag::any);
  work->whole = gemm_plan(work->key, &any);
  if (!pairs_in_blocks(work->whole->b)) return nullptr;
  const auto& strides = work->whole->b.data.format_desc.blocking.strides;
  work->packed = std::make_unique<Borrowed>(work->whole->b.get_size());
  pack_pairs_avx512(static_cast<const bf16*>(b.data), b.rows, b.cols, false, strides[0], strides[1],
                    static_cast<bf16*>(work->packed->data()));
  return std::unique_ptr<TurnedProduct>(new TurnedProduct(std::move(work)));
} catch (const dnnl::error& error) {
  GemmKey key;
  key.m = a.cols, key.k = a.rows, key.n = b.cols, key.in = a.type;
  product_failed(key, error);
}

void TurnedProduct::into(const MutableMatrix& c) const try {
  ATTUNE_ASSERT(c.type == DType::F32 && c.rows == state_->cols && c.cols == state_->n);
  share_pieces((state_->cols + state_->piece - 1) / state_->piece,
               [&](int64_t index) { state_->run(index, static_cast<float*>(c.data)); });
  set_last_implementation(state_->whole->implementation.c_str());
} catch (const dnnl::error& error) {
  product_failed(state_->key, error);
}

}  // namespace attune::kernels
