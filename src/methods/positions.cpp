#include "methods/positions.h"

#include <set>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {

using at::Tensor;

Tensor sample_positions(uint64_t key, int64_t count, int64_t total) {
  ATTUNE_ASSERT(count <= total);
  const Stream64 stream(key);
  std::set<int64_t> chosen;
  for (int64_t last = total - count; last < total; ++last) {
    const uint64_t index = static_cast<uint64_t>(last - (total - count));
    const int64_t drawn =
        static_cast<int64_t>(stream.below(index, static_cast<uint64_t>(last) + 1));
    if (!chosen.insert(drawn).second) chosen.insert(last);
  }
  return int64_tensor({chosen.begin(), chosen.end()});
}

Tensor largest_positions(const Tensor& matrix, int64_t count) {
  ATTUNE_ASSERT(count <= matrix.numel());
  const Tensor magnitude = matrix.detach().reshape({-1}).abs();
  const Tensor places = std::get<1>(at::topk(magnitude, count));
  return std::get<0>(at::sort(places));
}

Tensor rows_and_columns(const Tensor& places, int64_t columns) {
  return at::stack({places.floor_divide(columns), places.remainder(columns)}).to(at::kInt);
}

Tensor add_at(const Tensor& weight, const Tensor& positions, const Tensor& values, double scale) {
  const Tensor wide = positions.to(at::kLong);
  const Tensor places = wide.select(0, 0) * weight.size(1) + wide.select(0, 1);
  return weight.reshape({-1}).index_add(0, places, values, scale).reshape(weight.sizes());
}

}  // namespace attune
