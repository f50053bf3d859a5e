#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attune {

/// Rows of a trained table that are behind: what a step does to a row that it has no gradient for
/// may wait until somebody reads the row (train/table_rows.h).
class LateRows {
 public:
  virtual ~LateRows() = default;
  /// Brings these rows up to date; one may be named several times.
  virtual void bring(const int32_t* rows, int64_t count) = 0;
  virtual void bring_all() = 0;
};

/// From here on, rows of the table are `late`'s to bring; null: none is behind. Once for a table:
/// it is known by its memory.
void set_late(const at::Tensor& table, LateRows* late);

/// To be called before a pass reads a trained table: of the rows in `index`, int32 [n], or of all.
/// Of one that shares its pages with a file, rows get their own (tensor/file_table.h). Does nothing
/// for any other tensor.
void bring_rows(const at::Tensor& table, const at::Tensor& index);
void bring_rows(const at::Tensor& table);

}  // namespace attune
