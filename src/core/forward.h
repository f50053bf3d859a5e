#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "core/model.h"
#include "kernels/ops/norm.h"

namespace attune {

/// One forward pass in progress: carries out the plan at every site and keeps what is wanted. Blocks (nn/) call it at
/// each site; a site that nobody edits or wants costs one null test.
class Forward {
 public:
  /// Errors: BadInput when a wanted pattern matches no site; Unsupported when the value is never made.
  Forward(Model& model, Batch batch, const Want& want);

  /// Names the packed rows that the following sites see (keys of dropout are made when training).
  void enter(const RowIndex& rows);
  const RowIndex& rows() const { return rows_; }

  /// A Rows or Heads site: edits applied, value kept when wanted or read.
  Tensor at(int site, const Tensor& x);
  /// True when someone edits, reads or wants the site.
  bool touched(int site) const { return model_.plan().at(site) != nullptr || wanted(site); }
  /// A projection at a Weight site, every edit included.
  Tensor project(int site, const Tensor& x);
  /// Scale and bias of a norm site, edits folded in.
  NormArgs norm(int site, kernels::NormKind kind, double eps) const;
  /// An embedding table (thawed or base).
  Tensor table(int site) const;
  /// Dropout of the checkpoint's own kind at a site; off unless training.
  DropSite drop(int site, double p) const;

  const Batch& batch() const { return batch_; }
  /// The values kept for the caller, by site name.
  std::map<std::string, Tensor> take_captured() { return std::move(captured_); }
  at::ScalarType scalar() const { return model_.numerics().scalar(); }
  at::ScalarType master() const { return model_.numerics().master(); }

 private:
  bool wanted(int site) const { return !wanted_.empty() && wanted_[static_cast<size_t>(site)]; }
  Tensor run_edits(const Site& site, const SitePlan& plan, Tensor x);
  Tensor project_edited(const Site& site, SitePlan& plan, Tensor x);

  Model& model_;
  const Batch batch_;  // a copy of handles: a head may outlive the caller's batch
  std::map<std::string, Tensor> captured_;
  std::vector<bool> wanted_;
  std::map<std::string, Tensor> reads_;
  RowIndex rows_;
  Tensor row_keys_;
};

}  // namespace attune
