#include "methods/rotation.h"

#include "methods/batched.h"
#include "tensor/torch.h"

namespace attune {

using at::Tensor;

Tensor skew_symmetric(const Tensor& upper, int64_t block) {
  const Tensor pairs = at::triu_indices(block, block, 1, at::kLong);
  const Tensor places = pairs.select(0, 0) * block + pairs.select(0, 1);
  const Tensor flat = upper.reshape({-1, upper.size(-1)});
  const Tensor filled = at::zeros({flat.size(0), block * block}, flat.options())
                            .index_copy(1, places, flat)
                            .reshape({flat.size(0), block, block});
  return filled - filled.transpose(1, 2);
}

Tensor cayley(const Tensor& skew) {
  const Tensor identity = at::eye(skew.size(1), skew.options());
  return at::linalg_solve(identity + skew, identity - skew, /*left=*/false);
}

Tensor rotate_inputs(const Tensor& weight, const Tensor& rotation) {
  const int64_t out = weight.size(0), block = rotation.size(2);
  if (rotation.size(0) == 1)
    return batched_matmul(weight.reshape({1, -1, block}), rotation, true).reshape(weight.sizes());
  const Tensor groups = weight.reshape({out, -1, block}).permute({1, 0, 2});
  return batched_matmul(groups, rotation, true).permute({1, 0, 2}).reshape(weight.sizes());
}

}  // namespace attune
