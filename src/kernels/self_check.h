#pragma once
#include <string>
#include <vector>

namespace attune::kernels {

/// How far a kernel is from the same sums in double precision, on drawn numbers and odd sizes.
struct CheckedKernel {
  std::string name;  // "attention, backward (bf16)"
  double error = 0;  // max |found - expected| / max(1, max |expected|)
  double allowed = 0;
  bool ok() const { return error <= allowed; }  // false for NaN
};

/// Runs the kernels that training steps consist of, in fp32 and, where the processor multiplies it,
/// in bf16, with the instruction set that isa() gives. Takes milliseconds.
std::vector<CheckedKernel> self_check();

}  // namespace attune::kernels
