#include "kernels/gemm.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "kernels/detail/pack.h"
#include "kernels/detail/runtime.h"
#include "kernels/gemm_blocks.h"
#include "kernels/gemm_plan.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"

namespace attune::kernels {
namespace {

using dnnl::memory;

char (&last_name())[64] {
  thread_local char name[64] = "none";
  return name;
}

const char* type_name(DType type) {
  return type == DType::F32 ? "f32" : type == DType::BF16 ? "bf16" : "f64";
}

int64_t size_of(DType type) {
  return type == DType::F32 ? 4 : type == DType::BF16 ? 2 : 8;
}

void check(int64_t m, int64_t k, DType a, int64_t k_b, int64_t n, DType b, const MutableMatrix& c) {
  const bool shapes = k == k_b && c.rows == m && c.cols == n;
  const bool types = a == b && (c.type == a || (a == DType::BF16 && c.type == DType::F32));
  if (shapes && types) return;
  fail(ErrorCode::Internal,
       "matrix product: [{}, {}] {} times [{}, {}] {} into [{}, {}] {}: inner sizes and the "
       "result's shape must "
       "agree, both operands have one type, the result has it or f32",
       m, k, type_name(a), k_b, n, type_name(b), c.rows, c.cols, type_name(c.type));
}

/// c = bias (+ c) for an empty inner dimension.
void fill(const MutableMatrix& c, const void* bias, bool accumulate) {
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t j = 0; j < c.cols; ++j) {
      const int64_t at = r * c.cols + j;
      if (c.type == DType::F64) {
        double& x = static_cast<double*>(c.data)[at];
        x = (accumulate ? x : 0) + (bias != nullptr ? static_cast<const double*>(bias)[j] : 0);
        continue;
      }
      float old = 0;
      if (accumulate && c.type == DType::F32) old = static_cast<float*>(c.data)[at];
      if (accumulate && c.type == DType::BF16) convert(static_cast<bf16*>(c.data) + at, &old, 1);
      const float value = old + (bias != nullptr ? static_cast<const float*>(bias)[j] : 0);
      if (c.type == DType::F32) static_cast<float*>(c.data)[at] = value;
      if (c.type == DType::BF16) convert(&value, static_cast<bf16*>(c.data) + at, 1);
    }
}

/// bf16 operands through f32 where oneDNN has no bf16 product (no AVX-512).
std::vector<float> widened(const void* data, DType type, int64_t count) {
  std::vector<float> wide(static_cast<size_t>(count));
  if (type == DType::BF16)
    convert(static_cast<const bf16*>(data), wide.data(), count);
  else
    std::memcpy(wide.data(), data, static_cast<size_t>(count) * 4);
  return wide;
}

bool bf16_products() {
  static const bool value = __builtin_cpu_supports("avx512bw") != 0;
  return value;
}

void gemm_widened(const Matrix& a, const Matrix& b, const MutableMatrix& c, const void* bias,
                  bool accumulate) {
  const std::vector<float> wide_a = widened(a.data, a.type, a.rows * a.cols);
  const std::vector<float> wide_b = widened(b.data, b.type, b.rows * b.cols);
  std::vector<float> wide_c = widened(c.data, c.type, c.rows * c.cols);
  gemm({wide_a.data(), DType::F32, a.rows, a.cols, a.transposed},
       {wide_b.data(), DType::F32, b.rows, b.cols, b.transposed},
       {wide_c.data(), DType::F32, c.rows, c.cols}, bias, accumulate);
  if (c.type == DType::BF16)
    convert(wide_c.data(), static_cast<bf16*>(c.data), c.rows * c.cols);
  else
    std::memcpy(c.data, wide_c.data(), wide_c.size() * 4);
}

detail::GemmKey key_of(const Matrix& a, int64_t n, const MutableMatrix& c, const void* bias,
                       bool accumulate) {
  detail::GemmKey key;
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

[[noreturn]] void product_failed(const detail::GemmKey& key, const dnnl::error& error) {
  fail(ErrorCode::Internal, "matrix product [{}, {}] x [{}, {}] {} to {}: oneDNN failed: {}", key.m,
       key.k, key.k, key.n, type_name(key.in), type_name(key.out), error.what());
}

/// The product of a key: in oneDNN's equal parts or, of many rows, in pieces that threads share
/// out. Pieces are always the same, whoever runs them, so that no sum depends on the threads'
/// speeds.
void run_shared(detail::GemmKey key, const memory::desc* packed, const void* a, const void* b,
                const void* bias, void* c) {
  if (key.a_transposed || key.threads < 2 || key.m < key.threads * detail::kRowsToShare)
    return detail::run_plan(*detail::gemm_plan(key, packed), a, b, bias, c);
  const int64_t rows = key.m, pieces = (rows + detail::kRowsAPiece - 1) / detail::kRowsAPiece;
  const int64_t a_row = key.k * size_of(key.in), c_row = key.n * size_of(key.out);
  key.threads = 1;
  key.m = detail::kRowsAPiece;
  const std::shared_ptr<const detail::GemmPlan> whole = detail::gemm_plan(key, packed);
  std::exception_ptr failed;
  std::mutex failing;
  detail::share_out_each(pieces, 1, [&](int64_t piece) {
    try {
      detail::GemmKey part = key;
      const int64_t begin = piece * detail::kRowsAPiece;
      part.m = std::min(rows - begin, detail::kRowsAPiece);
      detail::run_plan(part.m == key.m ? *whole : *detail::gemm_plan(part, packed),
                       static_cast<const char*>(a) + begin * a_row, b, bias,
                       static_cast<char*>(c) + begin * c_row);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failing);
      failed = std::current_exception();
    }
  });
  if (failed) std::rethrow_exception(failed);
  detail::set_last_implementation(whole->implementation.c_str());
}

void run_key(const detail::GemmKey& key, const memory::desc* packed, const void* a, const void* b,
             const void* bias, void* c) {
  try {
    run_shared(key, packed, a, b, bias, c);
  } catch (const dnnl::error& error) {
    product_failed(key, error);
  }
}

/// One product of exactly these sizes.
void run_product(const Matrix& a, const Matrix& b, const MutableMatrix& c, const void* bias,
                 bool accumulate) {
  detail::GemmKey key = key_of(a, c.cols, c, bias, accumulate);
  key.b_transposed = b.transposed;
  run_key(key, nullptr, a.data, b.data, bias, c.data);
}

}  // namespace

void detail::set_last_implementation(const char* name) {
  std::strncpy(last_name(), name, sizeof(last_name()) - 1);
}
const char* last_gemm_implementation() {
  return last_name();
}

bool has_native_bf16() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
}

void gemm(const Matrix& a, const Matrix& b, const MutableMatrix& c, const void* bias,
          bool accumulate) {
  check(a.used_rows(), a.used_cols(), a.type, b.used_rows(), b.used_cols(), b.type, c);
  if (c.rows == 0 || c.cols == 0) return;
  if (a.used_cols() == 0) return fill(c, bias, accumulate);
  if (a.type == DType::F64)
    return detail::gemm_f64(a, b, c, static_cast<const double*>(bias), accumulate);
  if (a.type == DType::BF16 && !bf16_products()) return gemm_widened(a, b, c, bias, accumulate);
  if (!a.transposed)
    return detail::product_by_rows(a, c, accumulate,
                                   [&](const Matrix& a_part, const MutableMatrix& c_part) {
                                     run_product(a_part, b, c_part, bias, accumulate);
                                   });
  // Partial sums in bf16 would round twice.
  if (b.transposed || bias != nullptr || c.type == DType::BF16)
    return run_product(a, b, c, bias, accumulate);
  detail::product_by_inner(a, b, accumulate,
                           [&](const Matrix& a_part, const Matrix& b_part, bool add) {
                             run_product(a_part, b_part, c, nullptr, add);
                           });
}

/// `packed` is oneDNN's layout of [k, n]; F64 (and bf16 without hardware) keeps the plain rows of b
/// as used.
struct PackedMatrix::State {
  int64_t k = 0, n = 0;
  DType type = DType::F32;
  bool plain = false;
  memory::desc layout;
  memory packed;
  uint64_t layout_key = 0;
  std::vector<char> rows;
};

namespace {

/// A value that is equal for equal layouts, so that weights of one shape share primitives.
uint64_t layout_hash(const memory::desc& layout) {
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

/// True for the layout of detail/pack.h, which oneDNN likes for bf16.
bool pairs_in_blocks(const memory::desc& layout) {
  const auto& blocking = layout.data.format_desc.blocking;
  return layout.data.data_type == dnnl_bf16 && blocking.inner_nblks == 3 &&
         blocking.inner_blks[0] * 2 == detail::kPackDepth &&
         blocking.inner_blks[1] == detail::kPackWidth && blocking.inner_blks[2] == 2 &&
         blocking.inner_idxs[0] == 0 && blocking.inner_idxs[1] == 1 && blocking.inner_idxs[2] == 0;
}

/// Packs by a kernel of our own, several times as fast as oneDNN's reorder. False when the layout
/// is not the one it knows.
bool pack_fast(const Matrix& b, int64_t k, int64_t n, const memory::desc& layout,
               const memory& to) {
  if (isa() < Isa::Avx512Bf16 || b.type == DType::F64 || !pairs_in_blocks(layout)) return false;
  const auto& blocking = layout.data.format_desc.blocking;
  bf16* place = static_cast<bf16*>(to.get_data_handle());
  const int64_t k_stride = blocking.strides[0], n_stride = blocking.strides[1];
  if (b.type == DType::F32)
    detail::pack_pairs_avx512(static_cast<const float*>(b.data), k, n, b.transposed, k_stride,
                              n_stride, place);
  else
    detail::pack_pairs_avx512(static_cast<const bf16*>(b.data), k, n, b.transposed, k_stride,
                              n_stride, place);
  return true;
}

/// The rows of b as used, in the type asked for.
std::vector<char> plain_rows(const Matrix& b, DType type) {
  const int64_t k = b.used_rows(), n = b.used_cols();
  std::vector<char> bytes(static_cast<size_t>(k * n * size_of(type)));
  if (type == DType::F64) {
    const double* from = static_cast<const double*>(b.data);
    double* to = reinterpret_cast<double*>(bytes.data());
    for (int64_t r = 0; r < k; ++r)
      for (int64_t c = 0; c < n; ++c)
        to[r * n + c] = b.transposed ? from[c * k + r] : from[r * n + c];
    return bytes;
  }
  const std::vector<float> wide = widened(b.data, b.type, k * n);
  std::vector<float> turned(wide.size());
  for (int64_t r = 0; r < k; ++r)
    for (int64_t c = 0; c < n; ++c)
      turned[r * n + c] = b.transposed ? wide[c * k + r] : wide[r * n + c];
  if (type == DType::BF16)
    convert(turned.data(), reinterpret_cast<bf16*>(bytes.data()), k * n);
  else
    std::memcpy(bytes.data(), turned.data(), bytes.size());
  return bytes;
}

}  // namespace

PackedMatrix::PackedMatrix(int64_t k, int64_t n, DType compute, bool plain, int64_t expected_rows)
    : state_(new State) {
  State& s = *state_;
  s.k = k;
  s.n = n;
  s.type = compute;
  s.plain = plain || k == 0 || n == 0 || (compute == DType::BF16 && !bf16_products());
  if (s.plain) return;
  s.layout = detail::preferred_layout(std::max<int64_t>(expected_rows, 1), k, n, compute);
  s.layout_key = layout_hash(s.layout);
  s.packed = memory(s.layout, detail::engine());
}

PackedMatrix PackedMatrix::unfilled(int64_t k, int64_t n, DType compute, int64_t expected_rows) {
  return PackedMatrix(k, n, compute, compute == DType::F64, expected_rows);
}

PackedMatrix::PackedMatrix(const Matrix& b, DType compute, int64_t expected_rows)
    : PackedMatrix(b.used_rows(), b.used_cols(), compute,
                   b.type == DType::F64 || compute == DType::F64, expected_rows) {
  if ((b.type == DType::F64 || compute == DType::F64) && b.type != compute)
    fail(ErrorCode::Internal,
         "packing a [{}, {}] {} matrix for {} products: both must be f64 or neither", b.used_rows(),
         b.used_cols(), type_name(b.type), type_name(compute));
  fill(b);
}

bool PackedMatrix::fill_transposed(const PackedMatrix& other) {
  const State& from = *other.state_;
  State& to = *state_;
  if (from.k != to.n || from.n != to.k)
    fail(ErrorCode::Internal, "packing the transpose of a [{}, {}] matrix into a [{}, {}] one",
         from.k, from.n, to.k, to.n);
  if (from.plain || to.plain || isa() < Isa::Avx512Bf16 || !pairs_in_blocks(from.layout) ||
      !pairs_in_blocks(to.layout))
    return false;
  const auto& source = from.layout.data.format_desc.blocking;
  const auto& target = to.layout.data.format_desc.blocking;
  detail::turn_pairs_avx512(static_cast<const bf16*>(from.packed.get_data_handle()), from.k, from.n,
                            source.strides[0], source.strides[1], target.strides[0],
                            target.strides[1], static_cast<bf16*>(to.packed.get_data_handle()));
  return true;
}

void PackedMatrix::fill(const Matrix& b) {
  State& s = *state_;
  if (b.used_rows() != s.k || b.used_cols() != s.n)
    fail(ErrorCode::Internal, "packing a [{}, {}] matrix into the place of a [{}, {}] one",
         b.used_rows(), b.used_cols(), s.k, s.n);
  if (s.plain) {
    s.rows = plain_rows(b, s.type);
    return;
  }
  if (pack_fast(b, s.k, s.n, s.layout, s.packed)) return;
  const memory::dims strides = b.transposed ? memory::dims{1, s.k} : memory::dims{s.n, 1};
  memory from(memory::desc({s.k, s.n}, detail::onednn_type(b.type), strides), detail::engine(),
              const_cast<void*>(b.data));
  dnnl::stream stream(detail::engine());
  dnnl::reorder(from, s.packed).execute(stream, from, s.packed);
  stream.wait();
}

bool PackedMatrix::fill_decoded(const QuantizedMatrix& codes, bool transposed) {
  State& s = *state_;
  const int64_t k = transposed ? codes.cols() : codes.rows(),
                n = transposed ? codes.rows() : codes.cols();
  if (k != s.k || n != s.n)
    fail(ErrorCode::Internal, "packing a [{}, {}] matrix into the place of a [{}, {}] one", k, n,
         s.k, s.n);
  if (s.plain || isa() < Isa::Avx512Bf16 || !codes.has_tiles() || !pairs_in_blocks(s.layout))
    return false;
  static_assert(QuantizedMatrix::kTile == detail::kPackWidth);
  const std::vector<float> scales = codes.scales();
  const auto tile = [&](int64_t row, int64_t col, bf16* to) {
    codes.decode_tile(scales.data(), row, col, to);
  };
  const auto& blocking = s.layout.data.format_desc.blocking;
  detail::pack_tiles_avx512(
      [](const void* of, int64_t row, int64_t col, bf16* to) {
        (*static_cast<const decltype(tile)*>(of))(row, col, to);
      },
      &tile, k, n, transposed, blocking.strides[0], blocking.strides[1],
      static_cast<bf16*>(s.packed.get_data_handle()));
  return true;
}

PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;
int64_t PackedMatrix::k() const {
  return state_->k;
}
int64_t PackedMatrix::n() const {
  return state_->n;
}
DType PackedMatrix::type() const {
  return state_->type;
}
int64_t PackedMatrix::bytes() const {
  return state_->plain ? static_cast<int64_t>(state_->rows.size())
                       : static_cast<int64_t>(state_->layout.get_size());
}

void gemm(const Matrix& a, const PackedMatrix& b, const MutableMatrix& c, const void* bias,
          bool accumulate) {
  const PackedMatrix::State& s = *b.state_;
  if (s.plain) return gemm(a, Matrix{s.rows.data(), s.type, s.k, s.n, false}, c, bias, accumulate);
  check(a.used_rows(), a.used_cols(), a.type, s.k, s.n, s.type, c);
  if (c.rows == 0) return;
  const detail::RowProduct run = [&](const Matrix& a_part, const MutableMatrix& c_part) {
    detail::GemmKey key = key_of(a_part, s.n, c_part, bias, accumulate);
    key.packed = s.layout_key;
    run_key(key, &s.layout, a_part.data, s.packed.get_data_handle(), bias, c_part.data);
  };
  if (a.transposed) return run(a, c);
  detail::product_by_rows(a, c, accumulate, run);
}

double measure_gemm(int64_t m, int64_t k, int64_t n, DType type, double seconds) {
  const auto bytes = [&](int64_t count) {
    return std::vector<char>(static_cast<size_t>(count * size_of(type)));
  };
  const std::vector<char> a = bytes(m * k), b = bytes(k * n);
  std::vector<char> c = bytes(m * n);
  const PackedMatrix packed({b.data(), type, k, n, false}, type, m);
  const auto once = [&] {
    gemm({a.data(), type, m, k, false}, packed, {c.data(), type, m, n}, nullptr, false);
  };
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 3; ++i) once();
  double best = 1e30;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point before = Clock::now();
    once();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - before).count());
  } while (std::chrono::duration<double>(Clock::now() - start).count() < seconds);
  return 2.0 * static_cast<double>(m) * static_cast<double>(k) * static_cast<double>(n) / best *
         1e-9;
}

}  // namespace attune::kernels
