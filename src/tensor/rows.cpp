#include "tensor/rows.h"

#include <cstring>

#include "tensor/torch.h"

namespace attune {

namespace {
template <class T>
at::Tensor copy_of(const std::vector<T>& values, at::ScalarType type) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, type);
  if (!values.empty()) std::memcpy(result.data_ptr(), values.data(), values.size() * sizeof(T));
  return result;
}
}  // namespace

at::Tensor int32_tensor(const std::vector<int32_t>& values) {
  return copy_of(values, at::kInt);
}
at::Tensor int64_tensor(const std::vector<int64_t>& values) {
  return copy_of(values, at::kLong);
}
at::Tensor float_tensor(const std::vector<float>& values) {
  return copy_of(values, at::kFloat);
}

RowIndex RowIndex::from_lengths(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> offsets{0};
  RowIndex index;
  for (const int64_t length : lengths) {
    offsets.push_back(offsets.back() + static_cast<int32_t>(length));
    index.longest = std::max(index.longest, length);
  }
  index.offsets = int32_tensor(offsets);
  return index;
}

int64_t RowIndex::sequences() const {
  return offsets.defined() ? offsets.numel() - 1 : 0;
}
int64_t RowIndex::rows() const {
  return offsets.defined() ? data()[sequences()] : 0;
}
const int32_t* RowIndex::data() const {
  return static_cast<const int32_t*>(offsets.data_ptr());
}

}  // namespace attune
