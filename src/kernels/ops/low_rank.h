#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/kernels.h"

namespace attune {

/// One low-rank side-car of a projection: y += scale * (dropout(x) down^T) up^T.
/// Shapes: down [rank, in], up [out, rank].
struct LowRankTerm {
  at::Tensor down, up;
  double scale = 1;
  double dropout = 0;
  uint32_t dropout_site = 0;
  size_t output = 0;  // which of the projections at its input it belongs to
};

/// The side-cars at one input. Terms that see the same rows of it (those without dropout) run as
/// one product by all their downs, one after another [sum of ranks, in], and those of one output
/// as one by their ups: x, dx and each y are gone through once, forward and backward.
class SideCars {
 public:
  /// Adds the terms (sorted by output) of x [rows, in] to the outputs y [rows, out], all in the
  /// compute type; no gradients.
  SideCars(const at::Tensor& x, const std::vector<LowRankTerm>& terms, const at::Tensor& row_keys,
           const std::vector<at::Tensor>& y);
  bool empty() const { return terms_.empty(); }
  /// Some down wants a gradient: backward() needs x.
  bool need_input() const;
  /// The gradients of down and up of each term in turn (master type; undefined where none is
  /// wanted). Adds the side-cars' part to dx, when that is defined. dy by output.
  std::vector<at::Tensor> backward(const at::Tensor& x, const std::vector<at::Tensor>& dy,
                                   const at::Tensor& dx) const;

 private:
  /// Columns of a group's inner values, and what they are multiplied by on their way to an output.
  struct Part {
    at::Tensor up;  // compute type: scale up^T, [rank, out]
    int64_t first = 0;
    size_t output = 0;
  };
  /// Terms with one product by all their downs.
  struct Group {
    std::vector<size_t> terms;
    at::Tensor down;          // compute type: [sum of ranks, in]
    at::Tensor inner;         // dropout(x) down^T [rows, sum of ranks]
    std::vector<Part> parts;  // by output
    kernels::Dropout drop;
    bool narrow = false;  // by the kernels of kernels/low_rank.h, else by oneDNN
  };
  std::vector<Group> groups() const;
  void add(const at::Tensor& x, Group& group, const std::vector<at::Tensor>& y) const;
  void backward(const Group& group, const at::Tensor& x, const std::vector<at::Tensor>& dy,
                const at::Tensor& dx, std::vector<at::Tensor>& result) const;

  std::vector<LowRankTerm> terms_;
  std::vector<Group> groups_;
  at::Tensor row_keys_;  // keeps the memory behind the groups' drop alive
};

/// A side-car alone: scale * (dropout(x) down^T) up^T, differentiable.
at::Tensor low_rank(const at::Tensor& x, const LowRankTerm& term, const at::Tensor& row_keys);

}  // namespace attune
