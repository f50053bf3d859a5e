#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace attune {

/// Masks (uint8, one a tensor) of the `count` largest elements among all the tensors together.
/// Elements that tie for the last place are taken in order, so exactly `count` are chosen. Cost:
/// four passes over the elements, 512 KiB beside the masks.
/// Errors: Internal when a score is not a number or there are fewer than `count` elements.
std::vector<at::Tensor> largest_elements(const std::vector<at::Tensor>& scores, int64_t count);

/// Masks of `count` elements of tensors of these shapes together, every choice equally likely; a
/// function of the key.
std::vector<at::Tensor> random_elements(const std::vector<at::Tensor>& like, int64_t count,
                                        uint64_t key);

/// x with each element kept with probability `keep` and divided by it, else 0: its expectation is
/// x. A function of the key and the element's place. Probabilities are multiples of 1/65536.
/// x: float or double, any shape; result: its shape. Not differentiable.
at::Tensor keep_at_random(const at::Tensor& x, double keep, uint64_t key);

}  // namespace attune
