#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"
#include "kernels/detail/pack.h"
#include "kernels/gemm_blocks.h"
#include "kernels/gemm_run.h"
#include "kernels/kernels.h"
#include "kernels/quantized.h"

namespace attune::kernels {

using dnnl::memory;

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

/// Packs by a kernel of our own, several times as fast as oneDNN's reorder. False when the layout
/// is not the one it knows.
bool pack_fast(const Matrix& b, int64_t k, int64_t n, const memory::desc& layout,
               const memory& to) {
  if (isa() < Isa::Avx512Bf16 || b.type == DType::F64 || !detail::pairs_in_blocks(layout))
    return false;
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
  std::vector<char> bytes(static_cast<size_t>(k * n * detail::size_of(type)));
  if (type == DType::F64) {
    const double* from = static_cast<const double*>(b.data);
    double* to = reinterpret_cast<double*>(bytes.data());
    for (int64_t r = 0; r < k; ++r)
      for (int64_t c = 0; c < n; ++c)
        to[r * n + c] = b.transposed ? from[c * k + r] : from[r * n + c];
    return bytes;
  }
  const std::vector<float> wide = detail::widened(b.data, b.type, k * n);
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
  s.plain = plain || k == 0 || n == 0 || (compute == DType::BF16 && !detail::bf16_products());
  if (s.plain) return;
  s.layout = detail::preferred_layout(std::max<int64_t>(expected_rows, 1), k, n, compute);
  s.layout_key = detail::layout_hash(s.layout);
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
         b.used_cols(), detail::type_name(b.type), detail::type_name(compute));
  fill(b);
}

bool PackedMatrix::fill_transposed(const PackedMatrix& other) {
  const State& from = *other.state_;
  State& to = *state_;
  if (from.k != to.n || from.n != to.k)
    fail(ErrorCode::Internal, "packing the transpose of a [{}, {}] matrix into a [{}, {}] one",
         from.k, from.n, to.k, to.n);
  if (from.plain || to.plain || isa() < Isa::Avx512Bf16 || !detail::pairs_in_blocks(from.layout) ||
      !detail::pairs_in_blocks(to.layout))
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
  if (s.plain || isa() < Isa::Avx512Bf16 || !codes.has_tiles() ||
      !detail::pairs_in_blocks(s.layout))
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
  detail::check_product(a.used_rows(), a.used_cols(), a.type, s.k, s.n, s.type, c);
  if (c.rows == 0) return;
  const void* packed = s.packed.get_data_handle();
  const auto key_of_rows = [&](const Matrix& rows, const MutableMatrix& to) {
    detail::GemmKey key = detail::key_of(rows, s.n, to, bias, accumulate);
    key.packed = s.layout_key;
    return key;
  };
  if (!a.transposed && a.rows >= threads() * detail::kPackedRowsToShare)
    return detail::run_packed_rows(key_of_rows(a, c), s.layout, a.data, packed, bias, c.data);
  const detail::RowProduct run = [&](const Matrix& a_part, const MutableMatrix& c_part) {
    detail::run_key(key_of_rows(a_part, c_part), &s.layout, a_part.data, packed, bias, c_part.data);
  };
  if (a.transposed) return run(a, c);
  detail::product_by_rows(a, c, accumulate, run);
}

}  // namespace attune::kernels
