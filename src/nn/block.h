#pragma once
#include "core/forward.h"
#include "nn/spec.h"

namespace attune {

/// Site ids of one block; -1 where the family has none.
struct BlockSites {
  int resid_in = -1, self_in = -1, q = -1, k = -1, v = -1, heads = -1, o = -1, self_out = -1,
      self_norm = -1;
  int self = -1, self_kv = -1, self_scores = -1, ffn = -1;
  int self_probs = -1, resid_mid = -1, ffn_in = -1, up = -1, gate = -1, hidden = -1, down = -1,
      ffn_out = -1;
  int ffn_norm = -1, resid_out = -1;
};

/// One transformer block: attention and feed-forward parts around two residual sums.
/// x, result: [rows, hidden], packed; only attention looks at sequence boundaries.
class Block {
 public:
  Block(const StackSpec& spec, const BlockSites& sites) : spec_(spec), sites_(sites) {}
  Tensor forward(Forward& pass, Tensor x) const;

 private:
  Tensor attend(Forward& pass, const Tensor& x) const;
  Tensor feed_forward(Forward& pass, const Tensor& x) const;
  Tensor normed(Forward& pass, int norm_site, const Tensor& x) const;
  /// dropout(part) + x, then the norm where the norm comes after.
  Tensor join(Forward& pass, const Tensor& part, const Tensor& x, int part_site,
              int norm_site) const;

  StackSpec spec_;
  BlockSites sites_;
};

}  // namespace attune
