#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace attune {

/// The label of a row without one.
constexpr int64_t kUnlabelled = -100;

/// Packed rows of one stream: all sequences one after another, no padding.
struct RowIndex {
  at::Tensor offsets;  // int32 [B+1]; sequence b owns rows [offsets[b], offsets[b+1])
  int64_t longest = 0;

  /// From the length of each sequence.
  static RowIndex from_lengths(const std::vector<int64_t>& lengths);
  int64_t sequences() const;
  int64_t rows() const;
  const int32_t* data() const;
  int64_t begin(int64_t sequence) const { return data()[sequence]; }
  int64_t end(int64_t sequence) const { return data()[sequence + 1]; }
  int64_t length(int64_t sequence) const { return end(sequence) - begin(sequence); }
};

/// int32 tensor from a vector.
at::Tensor int32_tensor(const std::vector<int32_t>& values);
at::Tensor int64_tensor(const std::vector<int64_t>& values);
at::Tensor float_tensor(const std::vector<float>& values);

}  // namespace attune
