#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "tensor/rows.h"

namespace attune {

/// Keys and values of sequences being decoded, so that a later pass runs over new rows only. What a
/// prefix adds is not in it: attention puts it in front in every pass.
struct Cache {
  struct Layer {
    at::Tensor k, v;  // [rows, kv_heads * head_size]; undefined before the first pass
    RowIndex rows;
    /// Puts new rows behind those of each sequence.
    void append(const at::Tensor& new_k, const at::Tensor& new_v, const RowIndex& added);
    /// The rows of these sequences, in this order.
    void keep(const std::vector<int64_t>& sequences);
  };
  std::vector<Layer> self;    // by layer of the decoding stack
  std::vector<Layer> cross;   // of the encoder's rows: made in the first pass
  std::vector<int64_t> next;  // by sequence: the position of its next row
  bool started = false;       // a whole pass has filled it: the next one brings new rows only

  /// Goes on with these sequences alone (others have ended), in this order.
  void keep(const std::vector<int64_t>& sequences);
};

}  // namespace attune
