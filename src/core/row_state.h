#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/batch.h"

namespace attune {

/// What extend_index returns.
struct Extended {
  RowIndex rows;
  Tensor order;   // int64 [new rows] into cat(x, added as rows)
  Tensor is_new;  // bool [new rows]
};

/// The packed rows of one stream during a pass: Extend adds rows, Keep removes some, and what
/// stands beside each row (its place in the input, its position, its dropout key) follows.
struct RowState {
  RowIndex rows, original;
  Tensor origin;     // int64 [rows]: the row of the input, -1 for added ones; undefined: as given
  Tensor positions;  // int32 [rows] or undefined: counted
  std::vector<int64_t> start;  // by sequence: position of the first row (prefixes); empty: 0
  Tensor keys;                 // int64 [rows] when training
  bool pooled = false;
  bool narrowed = false;  // to the rows that the head reads (Forward::narrow)
  struct Left {
    Tensor x, origin;  // rows as they were when they left
  };
  std::vector<Left> left;

  static RowState begin(const Batch& batch, const RowIndex& rows);
  /// int32 [rows], with added rows counted.
  Tensor counted() const;
  /// The rows after Extend; x itself is the caller's.
  void extend(const Batch& batch, const Extended& next, int64_t added, bool shift);
  /// Moves the positions of these sequences (empty: all) on by `by`, where they are not counted.
  void move(int64_t by, const std::vector<int64_t>& which);
  /// The rows after Keep: `mask` bool [rows], `kept` its indices; what leaves is remembered.
  /// Errors: Internal, naming `owner`, when a sequence would lose its last row.
  void keep(const Tensor& x, const Tensor& mask, const Tensor& kept, const std::string& owner);
  /// A choice of the rows without memory of the others (an expert's).
  void choose(const Tensor& kept);
  /// Without the added rows.
  Tensor of_the_input(const Tensor& x) const;
  /// One row a row of the input: added ones left out, those that left as they were.
  Tensor put_back(const Tensor& x) const;
  /// The state after of_the_input (or put_back) was taken for good.
  void finished(const Batch& batch, bool was_put_back);
};

/// Adds rows in front of some sequences. added [P, *] or [sequences, P, *]; `which`: sequences that
/// get them (empty: all). Returns the new rows and, in `index`, the source of each among [x;
/// added].
Extended extend_index(const RowIndex& rows, int64_t added, bool by_sequence,
                      const std::vector<int64_t>& which);

/// Key of every row for dropout, from (seed, step, example id, position in the example).
Tensor keys_of_rows(const Batch& batch, const RowIndex& rows);
/// Key of the p-th row added to a sequence.
uint64_t key_of_added(const Batch& batch, int64_t sequence, int64_t p);

}  // namespace attune
