#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/kernels.h"
#include "tensor/autograd.h"
#include "tensor/late_rows.h"

namespace attune {

/// A table [rows, cols] under AdamW whose gradients come as rows. A step moves the rows that have
/// one; the others take it when they are read or asked for, several steps at once, to the same bits
/// as if they had taken each in its turn. So a step costs nothing for words that no text of its
/// batch has, of which a vocabulary has up to hundreds of thousands.
class TableRows final : public LateRows {
 public:
  /// Live tensors in the master type; `reached`: by row, may its moments be other than zero?
  TableRows(Tensor value, Tensor m, Tensor v, std::vector<bool> reached);
  ~TableRows() override;
  /// The step after those before; betas and eps are the same in all of them.
  void step(const kernels::AdamW& options, const RowGradient& gradient);
  void bring(const int32_t* rows, int64_t count) override;
  void bring_all() override;
  /// May rows that no step has reached be the file's again (let_go)?
  bool lends() const { return lent_ && version_of(value_) == version_; }
  /// After all rows were brought for somebody who has read them: of a table that shares its pages
  /// with a file, rows that no step has reached are behind again and take no memory.
  void let_go();

 private:
  /// Adds a row that is behind to `missed_`; it counts as brought.
  void miss(int64_t row);
  void bring_missed();
  void changed();

  Tensor value_, m_, v_;
  std::vector<bool> reached_;
  bool lent_;                              // made of a file, and every step since is in steps_
  int64_t version_;                        // of value_: another one was written to by somebody else
  std::vector<kernels::AdamWRest> steps_;  // since all rows were up to date
  std::vector<int32_t> taken_;             // how many of them, by row
  int32_t decays_ = 0;                     // steps up to the last that decays
  kernels::AdamW options_;                 // of the last step
  std::vector<kernels::MissedRow> missed_;
};

}  // namespace attune
