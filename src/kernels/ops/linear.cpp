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

const kernels::PackedMatrix& packed_once(const kernels::QuantizedMatrix& codes, bool transposed) {
  kernels::PackedMatrix& place = shared_place(transposed ? codes.cols() : codes.rows(),
                                              transposed ? codes.rows() : codes.cols());
  if (place.fill_decoded(codes, transposed)) return place;
  const Tensor values = decoded(codes, at::kBFloat16);
  place.fill({values.data_ptr(), DType::BF16, codes.rows(), codes.cols(), transposed});
  return place;
}

}  // namespace

const kernels::PackedMatrix& WeightCopies::refresh(Copy& copy, const Tensor& weight,
                                                   bool transposed) {
  const int64_t version = version_of(weight);
  if (!copy.packed || copy.data != weight.data_ptr() || copy.version != version) {
    // Of fp16, which is no compute type, bf16 is made as it is of floats.
    const Tensor dense =
        dense_as(weight, weight.scalar_type() == at::kHalf ? at::kFloat : weight.scalar_type());
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
    if ((rows >= kFewRows && !small_) || CountedBytes::all() + straight.bytes() > kRoom) {
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
                     const Tensor& bias, bool accumulate) {
  const void* bias_data = bias.defined() ? bias.data_ptr() : nullptr;
  if (weight.codes == nullptr && weight.copies != nullptr && dtype_of(a) == DType::BF16) {
    kernels::gemm(view(a),
                  transposed ? weight.copies->forward(weight.dense)
                             : weight.copies->backward(weight.dense, a.size(0)),
                  target(c), bias_data, accumulate);
    return;
  }
  if (weight.codes != nullptr && dtype_of(a) == DType::BF16) {
    kernels::gemm(view(a), packed_once(*weight.codes, transposed), target(c), bias_data,
                  accumulate);
    return;
  }
  const Tensor plain = weight.codes != nullptr ? decoded(*weight.codes, a.scalar_type())
                                               : dense_as(weight.dense, a.scalar_type());
  kernels::gemm(view(a), view(plain, transposed), target(c), bias_data, accumulate);
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
                   const Tensor& bias, bool accumulate) {
  weight.copies->drop();
  const Tensor dense = dense_as(weight.dense, weight.dense.scalar_type());
  kernels::gemm(view(a), packed_once(view(dense, transposed)), target(c),
                bias.defined() ? bias.data_ptr() : nullptr, accumulate);
}

/// A projection in a node: its tensors without history, and which of them want gradients.
struct Place {
  WeightSource weight;
  Tensor bias;
  bool need_weight, need_bias;

  explicit Place(const Projection& projection)
      : weight(projection.weight),
        bias(projection.bias.defined() ? projection.bias.detach() : Tensor()),
        need_weight(wants_gradient(projection.weight.dense)),
        need_bias(wants_gradient(projection.bias)) {
    if (weight.dense.defined()) weight.dense = weight.dense.detach();
  }
  void multiply(const Tensor& a, bool transposed, const Tensor& c, bool accumulate) const {
    const bool once = need_weight && weight.copies != nullptr && dtype_of(a) == DType::BF16;
    const auto run = once ? multiply_once : multiply_weight;
    run(a, weight, transposed, c, transposed ? bias : Tensor(), accumulate);
  }
};

void check_shapes(const Tensor& x, const WeightSource& weight) {
  if (x.dim() == 2 && (weight.codes != nullptr || weight.dense.dim() == 2) &&
      x.size(1) == weight.in())
    return;
  fail(ErrorCode::BadInput, "a projection of rows {} by a weight [{}, {}]: the last sizes differ",
       x.sizes().vec(), weight.out(), weight.in());
}

}  // namespace

Tensors linear(const Tensor& x_in, const std::vector<Projection>& projections,
               const std::vector<LowRankTerm>& terms, const Tensor& row_keys) {
  for (const Projection& projection : projections) check_shapes(x_in, projection.weight);
  const Tensor x = x_in.detach().contiguous();
  Tensors inputs{x_in}, outputs;
  std::vector<Place> places;
  bool again = false;  // the backward pass needs x
  for (const Projection& projection : projections) {
    places.emplace_back(projection);
    outputs.push_back(at::empty({x.size(0), projection.weight.out()}, x.options()));
    places.back().multiply(x, true, outputs.back(), false);
    inputs.push_back(projection.weight.dense);
    inputs.push_back(projection.bias);
    again = again || places.back().need_weight;
  }
  const SideCars sides(x, terms, row_keys, outputs);
  for (const LowRankTerm& term : terms) {
    inputs.push_back(term.down);
    inputs.push_back(term.up);
  }
  const Kept input = again || sides.need_input() ? Kept(x_in, x) : Kept();
  const at::ScalarType type = x.scalar_type();
  const auto back = [=, rows = x.size(0),
                     need_x = wants_gradient(x_in)](const Tensors& g) -> Tensors {
    Tensors dy;
    for (size_t i = 0; i < places.size(); ++i)
      dy.push_back(g[i].defined() ? dense_as(g[i], type)
                                  : at::zeros({rows, places[i].weight.out()}, type));
    Tensor x = input.get();
    Tensors result{Tensor()};
    for (size_t i = 0; i < places.size(); ++i) {
      const bool last = i + 1 == places.size() && sides.empty();
      result.push_back(places[i].need_weight ? product_of_rows(dy[i], last ? std::move(x) : x,
                                                               master_of(dtype_of(dy[i])))
                                             : Tensor());
      result.push_back(places[i].need_bias ? bias_gradient(dy[i]) : Tensor());
    }
    if (sides.empty()) x = Tensor();  // what was made again goes before as much is needed for dx
    if (need_x) {
      result[0] = at::empty({dy[0].size(0), places[0].weight.in()}, dy[0].options());
      for (size_t i = 0; i < places.size(); ++i) places[i].multiply(dy[i], false, result[0], i > 0);
    }
    for (Tensor& gradient : sides.backward(x, dy, result[0])) result.push_back(gradient);
    return result;
  };
  record(outputs, inputs, "linear", back);
  return outputs;
}

Tensor linear(const Tensor& x, const WeightSource& weight, const Tensor& bias,
              const std::vector<LowRankTerm>& terms, const Tensor& row_keys) {
  return linear(x, {{weight, bias}}, terms, row_keys)[0];
}

}  // namespace attune
