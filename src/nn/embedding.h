#pragma once
#include "core/forward.h"
#include "nn/sites.h"
#include "nn/spec.h"

namespace attune {

/// The front end of a stack: tokens or patches to rows [rows, hidden], positions and types added.
class Embedding {
 public:
  /// Adds its sites; `shared`: the token table's site that this stack uses too, or -1.
  Embedding(const StackSpec& spec, int shared, const SiteMaker& sites);
  int tokens() const { return tok_; }
  /// The rows the stack begins with: those of the input, and class rows. Errors: BadInput when the
  /// input does not fit the tables.
  RowIndex rows(const Stream& stream) const;
  /// After pass.enter(rows(stream)).
  Tensor forward(Forward& pass, const Stream& stream) const;

 private:
  Tensor fused(Forward& pass, const Stream& stream) const;
  Tensor apart(Forward& pass, const Stream& stream) const;
  Tensor patch_rows(Forward& pass, const Stream& stream) const;
  Tensor position_index(Forward& pass, const Stream& stream) const;
  void check(const Stream& stream) const;

  StackSpec spec_;
  int tok_ = -1, patch_ = -1, class_ = -1, pos_ = -1, type_ = -1, norm_ = -1, rows_ = -1, out_ = -1;
};

}  // namespace attune
