#include "kernels/gemm_run.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>

#include "base/error.h"
#include "kernels/detail/pack.h"
#include "kernels/detail/runtime.h"
#include "kernels/gemm_blocks.h"
#include "kernels/kernels.h"

namespace attune::kernels {

namespace {

char (&last_name())[64] {
  thread_local char name[64] = "none";
  return name;
}

}  // namespace

void detail::set_last_implementation(const char* name) {
  std::strncpy(last_name(), name, sizeof(last_name()) - 1);
}
const char* last_gemm_implementation() {
  return last_name();
}

namespace detail {

const char* type_name(DType type) {
  return type == DType::F32 ? "f32" : type == DType::BF16 ? "bf16" : "f64";
}

int64_t size_of(DType type) {
  return type == DType::F32 ? 4 : type == DType::BF16 ? 2 : 8;
}

void check_product(int64_t m, int64_t k, DType a, int64_t k_b, int64_t n, DType b,
                   const MutableMatrix& c) {
  const bool shapes = k == k_b && c.rows == m && c.cols == n;
  const bool types = a == b && (c.type == a || (a == DType::BF16 && c.type == DType::F32));
  if (shapes && types) return;
  fail(ErrorCode::Internal,
       "matrix product: [{}, {}] {} times [{}, {}] {} into [{}, {}] {}: inner sizes and the "
       "result's shape must "
       "agree, both operands have one type, the result has it or f32",
       m, k, type_name(a), k_b, n, type_name(b), c.rows, c.cols, type_name(c.type));
}

bool bf16_products() {
  static const bool value = __builtin_cpu_supports("avx512bw") != 0;
  return value;
}

GemmKey key_of(const Matrix& a, int64_t n, const MutableMatrix& c, const void* bias,
               bool accumulate) {
  GemmKey key;
  key.m = a.used_rows();
  key.k = a.used_cols();
  key.n = n;
  key.in = a.type;
  key.out = c.type;
  key.a_transposed = a.transposed;
  key.bias = bias != nullptr;
  key.accumulate = accumulate;
  key.threads = threads();
  return key;
}

std::vector<float> widened(const void* data, DType type, int64_t count) {
  std::vector<float> wide(static_cast<size_t>(count));
  if (type == DType::BF16)
    convert(static_cast<const bf16*>(data), wide.data(), count);
  else
    std::memcpy(wide.data(), data, static_cast<size_t>(count) * 4);
  return wide;
}

uint64_t layout_hash(const dnnl::memory::desc& layout) {
  const auto& blocking = layout.data.format_desc.blocking;
  uint64_t hash = 0x100000001b3ull;
  const auto add = [&](int64_t x) {
    hash = (hash ^ static_cast<uint64_t>(x)) * 0x9E3779B97F4A7C15ull, hash ^= hash >> 31;
  };
  for (int i = 0; i < layout.data.ndims; ++i)
    add(layout.data.padded_dims[i]), add(blocking.strides[i]);
  for (int i = 0; i < blocking.inner_nblks; ++i)
    add(blocking.inner_blks[i]), add(blocking.inner_idxs[i]);
  return hash | 1;
}

bool pairs_in_blocks(const dnnl::memory::desc& layout) {
  const auto& blocking = layout.data.format_desc.blocking;
  return layout.data.data_type == dnnl_bf16 && blocking.inner_nblks == 3 &&
         blocking.inner_blks[0] * 2 == kPackDepth && blocking.inner_blks[1] == kPackWidth &&
         blocking.inner_blks[2] == 2 && blocking.inner_idxs[0] == 0 &&
         blocking.inner_idxs[1] == 1 && blocking.inner_idxs[2] == 0;
}

[[noreturn]] void product_failed(const GemmKey& key, const dnnl::error& error) {
  fail(ErrorCode::Internal, "matrix product [{}, {}] x [{}, {}] {} to {}: oneDNN failed: {}", key.m,
       key.k, key.k, key.n, type_name(key.in), type_name(key.out), error.what());
}

void share_pieces(int64_t pieces, const std::function<void(int64_t piece)>& run) {
  std::exception_ptr failed;
  std::mutex failing;
  share_out_each(pieces, 1, [&](int64_t piece) {
    try {
      run(piece);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failing);
      failed = std::current_exception();
    }
  });
  if (failed) std::rethrow_exception(failed);
}

namespace {

/// The product of a key: in oneDNN's equal parts or, of many rows, in pieces that threads share
/// out. Pieces are always the same, whoever runs them, so that no sum depends on the threads'
/// speeds.
void run_shared(GemmKey key, const dnnl::memory::desc* packed, const void* a, const void* b,
                const void* bias, void* c) {
  if (key.a_transposed || key.threads < 2 || key.m < key.threads * kRowsToShare)
    return run_plan(*gemm_plan(key, packed), a, b, bias, c);
  const int64_t rows = key.m, pieces = (rows + kRowsAPiece - 1) / kRowsAPiece;
  const int64_t a_row = key.k * size_of(key.in), c_row = key.n * size_of(key.out);
  key.threads = 1;
  key.m = kRowsAPiece;
  const std::shared_ptr<const GemmPlan> whole = gemm_plan(key, packed);
  share_pieces(pieces, [&](int64_t piece) {
    GemmKey part = key;
    const int64_t begin = piece * kRowsAPiece;
    part.m = std::min(rows - begin, kRowsAPiece);
    run_plan(part.m == key.m ? *whole : *gemm_plan(part, packed),
             static_cast<const char*>(a) + begin * a_row, b, bias,
             static_cast<char*>(c) + begin * c_row);
  });
  set_last_implementation(whole->implementation.c_str());
}

}  // namespace

void run_key(const GemmKey& key, const dnnl::memory::desc* packed, const void* a, const void* b,
             const void* bias, void* c) {
  try {
    run_shared(key, packed, a, b, bias, c);
  } catch (const dnnl::error& error) {
    product_failed(key, error);
  }
}

void run_packed_rows(GemmKey key, const dnnl::memory::desc& packed, const void* a, const void* b,
                     const void* bias, void* c) try {
  const std::vector<RowPiece> pieces = row_pieces(key.m, key.threads);
  const int64_t a_row = key.k * size_of(key.in), c_row = key.n * size_of(key.out);
  key.threads = 1;
  std::vector<std::shared_ptr<const GemmPlan>> plans;
  for (const RowPiece& piece : pieces) {
    key.m = piece.rows;
    plans.push_back(!plans.empty() && pieces[plans.size() - 1].rows == piece.rows
                        ? plans.back()
                        : gemm_plan(key, &packed));
  }
  share_pieces(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    const RowPiece& piece = pieces[static_cast<size_t>(i)];
    run_plan(*plans[static_cast<size_t>(i)], static_cast<const char*>(a) + piece.begin * a_row, b,
             bias, static_cast<char*>(c) + piece.begin * c_row);
  });
  set_last_implementation(plans.front()->implementation.c_str());
} catch (const dnnl::error& error) {
  product_failed(key, error);
}

}  // namespace detail
}  // namespace attune::kernels
