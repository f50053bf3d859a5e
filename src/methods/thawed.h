#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/tuner.h"

namespace attune {

/// Which tensors of the base model a method trains.
struct ThawChoice {
  std::vector<std::string> globs;
  bool weights = true, biases = true, norms = true;
  std::function<bool(const Site&)> also = {};  // further condition on sites; empty: none
};

/// One tensor of the base model that trains.
struct BaseTensor {
  Site site;
  Part part = Part::Weight;
  Tensor base;  // as loaded, never changed
  // What trains in its place. Between two steps rows of a table may be behind: bring_rows
  // (tensor/late_rows.h) before reading it.
  Tensor value;
  Tensor mask;  // uint8 of its shape, kept in checkpoints; undefined unless asked for
};

/// Thaws the chosen tensors, each once (tied sites hold one tensor); heads that the checkpoint
/// lacks are left to the recipe, which always trains them. masked: each gets a mask of zeros, which
/// the caller fills.
/// Errors: BadInput, naming the method, when nothing is chosen.
std::vector<BaseTensor> thaw_chosen(Attachment& attachment, const ThawChoice& choice, bool masked,
                                    const char* method);

/// Elements of the chosen tensors of these sites, tied ones once.
int64_t count_chosen(const std::vector<Site>& sites, const ThawChoice& choice);

/// The sum over batches of squared gradients, divided by the number of examples: the diagonal of
/// the empirical Fisher information at the present values, one tensor each.
/// Differs: gradients are squared a batch at a time, as Child-Tuning's code does, which equals the
/// mean over examples where their gradients are independent with mean zero (or batches hold one).
/// Errors: BadInput, naming the method, when there is no labelled example.
std::vector<Tensor> fisher_information(const Calibration& calibration,
                                       const std::vector<BaseTensor>& tensors, int64_t batches,
                                       const char* method);

/// Copies masks into those of the tensors, which the engine reads.
void refill(const std::vector<BaseTensor>& tensors, const std::vector<Tensor>& masks);

}  // namespace attune
