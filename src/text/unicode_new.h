#pragma once
#include <span>

namespace attune::unicode {

/// Characters [first, last] of one general category.
struct NewRange {
  char32_t first, last;
  char category[2];
};
/// What Unicode 15 and 16 added of the categories L, M, N, P and S (of P and S without the second
/// letter), in order.
std::span<const NewRange> new_ranges();

}  // namespace attune::unicode
