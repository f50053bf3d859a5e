#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/ops/norm.h"
#include "tensor/rows.h"

namespace attune {

struct AttentionArgs {
  int64_t heads = 1, kv_heads = 1, head_size = 0;
  double scale = 1;
  bool causal = false;
  int64_t window = 0;
  DropSite drop;              // keys of the query rows
  int64_t heads_in_rows = 1;  // of kernels::AttentionShape; drop has a key for as many rows
  at::Tensor bias;            // master type [heads, 2 * reach + 1], or undefined
  // int32 [q_rows] for the bias, where rows do not stand one after another (kernels.h); undefined:
  // counted.
  at::Tensor positions;
};

/// Packed attention: q [q_rows, heads * head_size], k, v [k_rows, kv_heads * head_size] with their
/// row indices; result [q_rows, heads * head_size]. k and v may be one tensor, which then gets one
/// gradient. Probabilities are never stored: memory is linear in rows. Reference: Vaswani et al.
/// 2017, "Attention Is All You Need", arXiv 1706.03762, equation 1; Dao et al. 2022,
/// "FlashAttention", arXiv 2205.14135.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const RowIndex& q_rows, const RowIndex& k_rows, const AttentionArgs& args);

}  // namespace attune
