#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "core/tuner.h"
#include "tensor/rows.h"

namespace attune {

/// One packed input.
struct Stream {
  Tensor ids;               // int32 [rows], or
  Tensor values;            // [rows, d_in]: patches of pixels, frames of sound, ready embeddings
  Tensor types, positions;  // int32 [rows]; undefined: all 0, counted from 0
  RowIndex rows;
};
struct Cache;  // keys and values of sequences being decoded

struct Batch {
  std::map<std::string, Stream> streams;  // "enc", "dec", "txt", "vis", "aud"
  std::map<std::string, Tensor>
      fields;   // "labels", "weights", "example" (int64 [B] ids that key dropout)
  Tensor sets;  // int32 [B]: the adapter set of each sequence; undefined: the enabled sets
  Cache* cache = nullptr;
  Pass pass;
};

/// What the caller will read: sites to capture (globs) and whether the head is wanted.
struct Want {
  Names sites;
  bool head = true;
  /// Labels, one a row, of a head with a row for every row of the input, where nothing but losses
  /// under them will be asked for: rows without one (-100) may then be left out.
  Tensor labels = {};
};
/// A loss, not yet divided: windows add up exactly. sum is a double scalar.
struct Score {
  Tensor sum;
  double count = 0;
};

/// The last projection, not yet applied: logits never need exist whole.
class Head {
 public:
  virtual ~Head() = default;
  /// which: int32 [n] rows (sequences for a sequence head); undefined: all. In the master type.
  virtual Tensor logits(const Tensor& which) const = 0;
  /// labels int64, one a row; -100 is skipped; weights per class or undefined.
  virtual Score cross_entropy(const Tensor& labels, const Tensor& weights,
                              double smoothing) const = 0;
  /// Negative log-likelihood of each row's label: double [rows], 0 where it is -100. No gradient.
  virtual Tensor row_losses(const Tensor& labels) const = 0;
};
struct Output {
  std::unique_ptr<Head> head;
  std::map<std::string, Tensor> captured;
  std::map<std::string, RowIndex> rows;  // of each stream, after Extend and Keep
};

}  // namespace attune
