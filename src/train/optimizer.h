#pragma once
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/adaptation.h"
#include "train/table_rows.h"

namespace attune {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

/// AdamW over the trained tensors: bias-corrected, decoupled decay, none on biases and norms;
/// moments in the master type, made at a tensor's first update. A tensor without a gradient in a
/// step is left alone, as torch.optim does. What a mask holds back is left alone too: no update, no
/// decay, moments as they were.
/// Reference: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv
/// 1711.05101, algorithm 2.
class AdamW {
 public:
  explicit AdamW(AdamWOptions options) : options_(options) {}
  /// One step at rate lr; gradients are multiplied by gradient_scale (window count and clipping).
  /// Errors: Internal when a mask does not broadcast to its tensor.
  void step(std::vector<Param>& params, double lr, double gradient_scale);
  /// From here on rows of tables without a gradient may stay behind until a forward pass reads
  /// them (tensor/late_rows.h). Whatever else reads trained tensors or state() calls settle()
  /// before.
  void leave_rows_behind() { leaves_behind_ = true; }
  void settle();
  /// After settle(), when what was read is written: of tables that share pages with a file, those
  /// that hold no word of any batch take no memory again.
  void let_go();
  /// Moments and step counts so far, by tensor; live tensors.
  std::vector<std::pair<std::string, Tensor>> state() const;
  /// The tensors that have moments.
  std::vector<std::string> tensors() const;
  /// Zero moments for exactly these tensors, for a checkpoint's values to be copied in.
  /// Errors: BadInput when `names` holds one that is not trained.
  void expect(const std::vector<Param>& params, const std::vector<std::string>& names);
  /// After values were copied in: tables most rows of which have no moments give their memory back.
  /// The tensors of an earlier state() are others than those of the next.
  void compact();
  /// Drops all moments and step counts.
  void forget();

 private:
  struct Moments {
    Tensor m, v, steps;               // steps: int64 [1], counts updates of this tensor
    std::unique_ptr<TableRows> rows;  // while gradients come as rows
  };
  Moments& moments(const Param& param);
  void update(const kernels::AdamW& options, const Param& param, const Tensor& mask,
              Moments& moment);

  AdamWOptions options_;
  bool leaves_behind_ = false;
  std::map<std::string, Moments> moments_;  // by Param::name
};

/// Square root of the sum of squares of all gradients, without what masks hold back and frozen
/// tensors; the same for every thread count.
double gradient_norm(const std::vector<Param>& params);
/// Drops the gradients.
void clear_gradients(std::vector<Param>& params);

}  // namespace attune
