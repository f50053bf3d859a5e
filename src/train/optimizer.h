#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/adaptation.h"

namespace attune {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

/// AdamW over the trained tensors: bias-corrected, decoupled decay, none on biases and norms;
/// moments in the master type. A tensor without a gradient in a step is left alone, as torch.optim
/// does. Reference: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv
/// 1711.05101, algorithm 2.
class AdamW {
 public:
  explicit AdamW(AdamWOptions options) : options_(options) {}
  /// One step at rate lr; gradients are multiplied by gradient_scale (window count and clipping).
  void step(std::vector<Param>& params, double lr, double gradient_scale);
  /// Moments and step counts, by name; live tensors (made when absent).
  std::vector<std::pair<std::string, Tensor>> state(const std::vector<Param>& params);

 private:
  struct Moments {
    std::string name;
    Tensor m, v, steps;  // steps: int64 [1], counts updates of this tensor
  };
  Moments& moments(const Param& param);

  AdamWOptions options_;
  std::vector<Moments> moments_;
};

/// Square root of the sum of squares of all gradients; the same for every thread count.
double gradient_norm(const std::vector<Param>& params);
/// Drops the gradients.
void clear_gradients(std::vector<Param>& params);

}  // namespace attune
