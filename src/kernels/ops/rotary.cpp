#include "kernels/ops/rotary.h"

#include "base/error.h"
#include "kernels/kernels.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

Tensor turned(const Tensor& x, const RotaryTable& table, int64_t heads, int64_t size, bool back) {
  Tensor y = at::empty_like(x);
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = kernels::acc_t<T>;
    const kernels::Rotation<T> rotation{pointer<const A>(table.cosines),
                                        pointer<const A>(table.sines),
                                        heads,
                                        size,
                                        2 * table.cosines.size(1),
                                        table.interleaved};
    kernels::rotate<T>(rotation, pointer<T>(x), pointer<T>(y), x.size(0), back);
  });
  return y;
}

}  // namespace

RotaryTable RotaryTable::of(const Tensor& rows) const {
  return {cosines.index_select(0, rows), sines.index_select(0, rows), interleaved};
}

Tensor rotate(const Tensor& x, const RotaryTable& table, int64_t heads, int64_t head_size) {
  ATTUNE_ASSERT(table.cosines.size(0) == x.size(0) && 2 * table.cosines.size(1) <= head_size);
  return record(turned(x.detach().contiguous(), table, heads, head_size, false), {x}, "rotate",
                [=, type = x.scalar_type()](const Tensors& g) -> Tensors {
                  return {turned(dense_as(g[0], type), table, heads, head_size, true)};
                });
}

}  // namespace attune
