#include "kernels/ops/linear.h"

#include <fmt/ranges.h>

#include <map>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

using kernels::DType;

namespace {

/// Memory for packed values [k, n] that serve one product; all weights of a shape share it.
kernels::PackedMatrix& shared_place(int64_t k, int64_t n) {
  static thread_local std::map<std::pair<int64_t, int64_t>, kernels::PackedMatrix> places;
  const auto found = places.find({k, n});
  if (found != places.end()) return found->second;
  if (places.size() >= 16) places.clear();  // another model
  return places.emplace(std::make_pair(k, n), kernels::PackedMatrix::unfilled(k, n, DType::BF16))
      .first->second;
}

const kernels::PackedMatrix& packed_once(const kernels::Matrix& values) {
  kernels::PackedMatrix& place = shared_place(values.used_rows(), values.used_cols());
  place.fill(values);
  return place;
}

}  // namespace

const kernels::PackedMatrix& WeightCopies::refresh(Copy& copy, const Tensor& weight,
                                                   bool transposed) {
  const int64_t version = version_of(weight);
  if (!copy.packed || copy.data != weight.data_ptr() || copy.version != version) {
    const Tensor dense = dense_as(weight, weight.scalar_type());
    const kernels::Matrix values{dense.data_ptr(), dtype_of(dense), dense.size(0), dense.size(1),
                                 transposed};
    if (copy.packed && copy.packed->k() == values.used_rows() &&
        copy.packed->n() == values.used_cols()) {
      copy.packed->fill(values);
    } else {
      copy.packed.emplace(values, DType::BF16);
    }
    copy.data = weight.data_ptr();
    copy.version = version;
    if (mapped_) release_pages(weight.data_ptr(), static_cast<size_t>(weight.nbytes()));
  }
  return *copy.packed;
}

const kernels::PackedMatrix& WeightCopies::forward(const Tensor& weight) {
  return refresh(forward_, weight, true);
}
const kernels::PackedMatrix& WeightCopies::backward(const Tensor& weight, int64_t rows) {
  if (!backward_.packed) {
    const kernels::PackedMatrix& straight = forward(weight);
    if (rows >= kFewRows || CountedBytes::all() + straight.bytes() > kRoom) {
      kernels::PackedMatrix& place = shared_place(weight.size(0), weight.size(1));
      if (place.fill_transposed(straight)) return place;
    }
    kept_ = CountedBytes(straight.bytes());
  }
  return refresh(backward_, weight, false);
}

namespace {

kernels::Matrix view(const Tensor& x, bool transposed = false) {
  return {x.data_ptr(), dtype_of(x), x.size(0), x.size(1), transposed};
}
kernels::MutableMatrix target(const Tensor& x) {
  return {x.data_ptr(), dtype_of(x), x.size(0), x.size(1)};
}

}  // namespace

void multiply_weight(const Tensor& a, const WeightSource& weight, bool transposed, const Tensor& c,
                     const Tensor& bias) {
  const void* bias_data = bias.defined() ? bias.data_ptr() : nullptr;
  if (weight.codes == nullptr && weight.copies != nullptr && dtype_of(a) == DType::BF16) {
    kernels::gemm(view(a),
                  transposed ? weight.copies->forward(weight.dense)
                             : weight.copies->backward(weight.dense, a.size(0)),
                  target(c), bias_data, false);
    return;
  }
  const Tensor plain = weight.codes != nullptr ? decoded(*weight.codes, a.scalar_type())
                                               : dense_as(weight.dense, a.scalar_type());
  if (weight.codes != nullptr && dtype_of(a) == DType::BF16) {
    kernels::gemm(view(a), packed_once(view(plain, transposed)), target(c), bias_data, false);
    return;
  }
  kernels::gemm(view(a), view(plain, transposed), target(c), bias_data, false);
}

namespace {

Tensor bias_gradient(const Tensor& dy) {
  Tensor db = at::empty({dy.size(1)}, dy.options().dtype(master_of(dtype_of(dy))));
  dispatch(dy, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    kernels::column_sum(pointer<T>(dy), dy.size(0), dy.size(1), pointer<kernels::acc_t<T>>(db),
                        false);
  });
  return db;
}

}  // namespace

Tensor decoded(const kernels::QuantizedMatrix& codes, at::ScalarType type) {
  Tensor values = at::empty({codes.rows(), codes.cols()}, type);
  dispatch(values, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    codes.decode(pointer<T>(values));
  });
  return values;
}

namespace {

/// A weight that changes before it is multiplied by again.
void multiply_once(const Tensor& a, const WeightSource& weight, bool transposed, const Tensor& c,
                   const Tensor& bias) {
  weight.copies->drop();
  const Tensor dense = dense_as(weight.dense, weight.dense.scalar_type());
  kernels::gemm(view(a), packed_once(view(dense, transposed)), target(c),
                bias.defined() ? bias.data_ptr() : nullptr, false);
}

}  // namespace

Tensor linear(const Tensor& x_in, const WeightSource& weight, const Tensor& bias,
              const std::vector<LowRankTerm>& terms, const Tensor& row_keys) {
  if (x_in.dim() != 2 || (weight.codes == nullptr && weight.dense.dim() != 2) ||
      x_in.size(1) != weight.in())
    fail(ErrorCode::BadInput, "a projection of rows {} by a weight [{}, {}]: the last sizes differ",
         x_in.sizes().vec(), weight.out(), weight.in());
  const Tensor x = x_in.detach().contiguous(), b = bias.defined() ? bias.detach() : Tensor();
  WeightSource w = weight;
  if (w.dense.defined()) w.dense = w.dense.detach();
  Tensor y = at::empty({x.size(0), w.out()}, x.options());
  const bool need_x = wants_gradient(x_in), need_w = wants_gradient(weight.dense),
             need_b = wants_gradient(bias);
  const bool once = need_w && weight.copies != nullptr && dtype_of(x) == DType::BF16;
  const auto multiply = once ? multiply_once : multiply_weight;
  multiply(x, w, true, y, b);
  Tensors inputs{x_in, weight.dense, bias};
  std::vector<SideCar> sides;
  for (const LowRankTerm& term : terms) {
    sides.push_back(add_side_car(x, term, row_keys, y));
    inputs.push_back(term.down);
    inputs.push_back(term.up);
  }
  bool again = need_w;
  for (const LowRankTerm& term : terms) again = again || term.down.requires_grad();
  const Kept input = again ? Kept(x_in, x) : Kept();
  const at::ScalarType type = x.scalar_type();
  return record(y, inputs, "linear", [=](const Tensors& g) -> Tensors {
    const Tensor dy = dense_as(g[0], type);
    Tensor x = input.get();
    const Tensor dw = need_w ? product(dy, x, true, false, master_of(dtype_of(dy))) : Tensor();
    if (sides.empty()) x = Tensor();  // what was made again goes before as much is needed for dx
    Tensor dx = need_x ? at::empty({dy.size(0), w.in()}, dy.options()) : Tensor();
    if (need_x) multiply(dy, w, false, dx, Tensor());
    Tensors result{dx, dw, need_b ? bias_gradient(dy) : Tensor()};
    for (size_t i = 0; i < sides.size(); ++i)
      side_car_backward(sides[i], terms[i], x, dy, dx, result);
    return result;
  });
}

}  // namespace attune
