#pragma once
#include <memory>

#include "kernels/gemm.h"

namespace attune::kernels {

/// c = a^T b (+ c when accumulate) of bf16 rows into floats, as the gradients of weights are: b is
/// packed once, a turned a few columns at a time by the thread that multiplies them, which oneDNN
/// does less well (5 % of such a product). In two halves: once it is begun b may go, so that it is
/// not there beside the result.
class TurnedProduct {
 public:
  /// Reads b [rows, n] for a [rows, m], both as stored. Null for few rows and where
  /// oneDNN's layout is another: gemm takes another way then.
  static std::unique_ptr<TurnedProduct> begin(const Matrix& a, const Matrix& b, bool accumulate);
  ~TurnedProduct();
  /// c [m, n] floats; a's memory as it was.
  void into(const MutableMatrix& c) const;

 private:
  struct State;
  explicit TurnedProduct(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace attune::kernels
