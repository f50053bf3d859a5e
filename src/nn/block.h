#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/cache.h"
#include "core/forward.h"
#include "kernels/ops/rotary.h"
#include "nn/sites.h"
#include "nn/spec.h"

namespace attune {

/// Site ids of one attention part; -1 where the family has none.
struct AttentionPart {
  int part = -1, in = -1, norm = -1, q = -1, k = -1, v = -1, kv = -1, scores = -1, probs = -1,
      heads = -1, o = -1, out = -1;
  int memory = -1;  // cross attention: the rows it reads
};
/// Site ids of one block.
struct BlockSites {
  int resid_in = -1, resid_cross = -1, resid_mid = -1, resid_out = -1;
  AttentionPart self, cross;
  int ffn = -1, ffn_in = -1, up = -1, gate = -1, hidden = -1, down = -1, ffn_out = -1,
      ffn_norm = -1;
};

/// What the blocks of one stack share during a pass.
class StackPass {
 public:
  StackPass(Forward& pass, const StackSpec& spec) : pass_(pass), spec_(spec) {}
  /// Angles of the present rows.
  const RotaryTable& rotary();
  /// Positions of the present rows when they do not stand one after another, else undefined.
  const Tensor& gaps();

  /// The rows that are read behind the last block (int64, one a sequence, in order), or undefined:
  /// all.
  std::function<Tensor(const Forward&)> read;
  Tensor bias;                // on scores of self attention [heads, 2 reach + 1], or undefined
  Tensor memory;              // rows of the stack that cross attention reads
  std::string memory_stream;  // and its name

 private:
  /// Rows for which something was made.
  struct Seen {
    Tensor offsets, positions;
  };
  bool fresh(Seen& seen) const;
  Forward& pass_;
  const StackSpec& spec_;
  RotaryTable rotary_;
  Tensor gaps_;
  Seen rotary_of_, gaps_of_;
};

/// One transformer block: attention and feed-forward parts around residual sums.
/// x, result: [rows, hidden], packed; only attention looks at sequence boundaries.
class Block {
 public:
  /// Adds the block's sites.
  Block(const StackSpec& spec, int layer, const SiteMaker& sites);
  Tensor forward(Forward& pass, StackPass& shared, Tensor x) const;
  int layer() const { return layer_; }

 private:
  /// Rows that are read when this block is done (StackPass::read), or undefined: all of them, or
  /// something behind the attention looks at more than one row.
  Tensor rows_read(const Forward& pass, const StackPass& shared) const;
  /// May those rows alone ask? Not when nothing is left out (`read` undefined), nor where what
  /// happens inside the attention needs all queries or tells where they stand.
  bool asks_alone(const Forward& pass, const StackPass& shared, const Tensor& read) const;
  /// The residual stream and what the next part reads.
  struct Rows {
    Tensor x, in;
  };
  AttentionPart attention_sites(const std::string& at, const SiteMaker& sites, bool cross);
  /// `read`: of rows_read; the result, and the pass from here on, have those rows.
  Tensor self_attention(Forward& pass, StackPass& shared, const Tensor& in,
                        const Tensor& read) const;
  /// Heads of self attention for the rows of `read`, which ask alone and are one a sequence, over
  /// the input itself (Forward::attend_input); undefined, and nothing is done, where keys and
  /// values are more than plain maps of it.
  Tensor meet_input(Forward& pass, const Tensor& in, const Tensor& read) const;
  Tensor cross_attention(Forward& pass, StackPass& shared, const Tensor& in) const;
  KeyValues memory_keys(Forward& pass, const StackPass& shared) const;
  AttentionArgs arguments(Forward& pass, int probs) const;
  Tensor feed_forward(Forward& pass, const Tensor& in) const;
  /// The sum dropout(part) + x at site `resid`, normed where this family does it, and the next
  /// part's input at site `in`. `out`: the part's result site; `norm`: its own; `next`: that of the
  /// next part (-1 at the end of the block).
  Rows join(Forward& pass, const Tensor& part, const Tensor& x, int out, int norm, int resid,
            int next, int in) const;

  StackSpec spec_;
  int layer_;
  BlockSites sites_;
  std::vector<int> asking_, behind_;  // sites of the queries' rows in self attention; behind it
};

}  // namespace attune
