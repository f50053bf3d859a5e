#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/model.h"
#include "core/row_state.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/norm.h"

namespace attune {

/// Keys and values as attention reads them, prefixes included.
struct KeyValues {
  Tensor k, v;
  RowIndex rows;
};
/// The sites of one attention; -1 where the family has none.
struct AttentionSites {
  int kv = -1, scores = -1, probs = -1, heads = -1;
};

/// A projection that is a plain affine map for every row.
struct PlainProjection {
  Tensor weight, bias;             // [out, in] (master type, or frozen in half); [out] or undefined
  WeightCopies* copies = nullptr;  // of the weight
};

/// One forward pass in progress: carries out the plan at every site and keeps what is wanted.
/// Blocks (nn/) call it at each site; a site that nobody edits or wants costs one null test.
class Forward {
 public:
  /// Errors: BadInput when a wanted pattern matches no site; Unsupported when the value is never
  /// made.
  Forward(Model& model, Batch batch, const Want& want);

  /// Begins a stream: names the packed rows that the following sites see (keys of dropout are made
  /// when training). Entering a stream of that name again goes on with its present rows.
  void enter(const std::string& stream, const RowIndex& rows);
  /// The rows from here on are one a sequence (pooled).
  void enter_pooled();
  const RowIndex& rows() const { return state_->rows; }
  const RowIndex& rows(const std::string& stream) const { return streams_.at(stream).rows; }
  /// int32 [rows]: where each row stands in its sequence, added rows counted.
  Tensor positions();
  /// The same where they are given or were moved; undefined: counted.
  const Tensor& given_positions() const { return state_->positions; }
  /// The caller's own positions of the stream's rows (before anything was added).
  void set_positions(const Tensor& positions) { state_->positions = positions; }

  /// Something that stands beside each row of the input (token types), for the present rows; 0 for
  /// added ones.
  Tensor of_rows(const Tensor& given) const;

  /// A Rows or Heads site: edits applied, value kept when wanted or read. Extend and Keep change
  /// rows(): the result has as many rows as rows() then says.
  Tensor at(int site, const Tensor& x);
  /// True when someone edits, reads or wants the site.
  bool touched(int site) const;
  /// A projection at a Weight site, every edit included.
  Tensor project(int site, const Tensor& x);
  /// Projections of one input, as one node where their edits allow that: the downs of all low-rank
  /// terms are one product then, and the gradients of x are summed where they are made.
  std::vector<Tensor> project(const std::vector<int>& sites, const Tensor& x);
  /// The projection at a Weight site when no edit acts there (a thawed weight is none), for
  /// products made a few rows at a time; else empty.
  std::optional<PlainProjection> plain_projection(int site);
  /// The affine map at a Weight site with every edit folded in, in the master type, where that
  /// gives any row what project() gives it; else empty.
  std::optional<Affine> folded_projection(int site);
  /// norm(dropout(x) + residual) at a norm site, edits folded in (kernels/ops/norm.h).
  NormResult norm(int site, kernels::NormKind kind, double eps, const Tensor& x,
                  const Tensor& residual = {}, const DropSite& drop = {}, bool keep_sum = false);
  /// An embedding table or a lone vector, edits folded in; a large frozen table may be in half
  /// precision. Errors: Unsupported when the adapter sets of one batch edit it differently.
  Tensor table(int site);
  /// True when a table is more than one tensor to look up in: gather() must be used.
  bool table_edited(int site) const;
  /// Rows of a table by int32 index, every edit included: [rows, d] in the master type.
  Tensor gather(int site, const Tensor& index, int64_t padding = -1);
  /// Dropout of the checkpoint's own kind at a site; off unless training.
  DropSite drop(int site, double p) const;
  /// A Part site: `run` on the rows, or the mixture that a Route makes of it.
  Tensor part(int site, const Tensor& x, const std::function<Tensor(const Tensor&)>& run);
  /// Attention with whatever is edited inside: prefixes at kv, functions at scores and probs (the
  /// reference form, in this block only), edits at heads. q [rows, heads * head_size]; k, v of
  /// `memory` rows; result [rows, heads * head_size].
  Tensor attend(const AttentionSites& sites, const Tensor& q, const Tensor& k, const Tensor& v,
                const RowIndex& memory, AttentionArgs args);

  /// The same where `keys` and `values` make k and v of their input x [memory rows, in] and nobody
  /// looks at what is between (nothing at kv, scores and probs; every query sees every key of its
  /// sequence): neither is made. A head's scores are (q W_k) x^T, its result (P x) W_v^T + b_v: for
  /// a few queries a sequence far fewer multiplications. Reference: DeepSeek-AI 2024,
  /// "DeepSeek-V2", arXiv 2405.04434, section 2.1.2 (the same absorption).
  Tensor attend_input(int heads, const Tensor& q, const Tensor& x, const Affine& keys,
                      const Affine& values, const RowIndex& memory, const AttentionArgs& args);
  /// False when keys and values stay as they were made: nobody edits, reads or wants them, and a
  /// prefix has no rows.
  bool keys_touched(int site) const;

  /// Ends a stack: added rows leave, and with put_back rows that left come back as they were, so
  /// that one row a token of the input is left, in its order.
  Tensor finish(const Tensor& x, bool put_back);
  /// True when some prompt asks that a head pools its first row.
  bool pools_prompt() const { return state_->pooled; }

  /// True when what happens to a row at the site depends on no other row, and nobody wants or reads
  /// the values of all.
  bool by_row(int site) const;
  /// Goes on with these rows of the stream alone (int64, in order): no other will be read.
  void narrow(const Tensor& rows);
  bool narrowed() const { return state_->narrowed; }
  /// int64 [rows]: the row of the input that each present row is, -1 for added ones; undefined: as
  /// given.
  const Tensor& origin() const { return state_->origin; }
  /// The rows of the stream as it was given.
  const RowIndex& given_rows() const { return state_->original; }
  /// True when rows have left by Keep.
  bool rows_left() const { return !state_->left.empty(); }

  /// True when the sites of a block ("enc.3.") can run once more and give the same: nothing there
  /// is watched, routed or gone before the backward pass, and nowhere in the model does a function
  /// read other sites or do rows leave.
  bool repeatable(const std::string& block) const;
  /// The rows of every stream as they are now, to go back to.
  using Moment = std::map<std::string, RowState>;
  Moment moment() const { return streams_; }
  /// Goes back, and on with that stream.
  void go_back(const Moment& moment, const std::string& stream);

  const Batch& batch() const { return batch_; }
  /// The values kept for the caller, by site name.
  std::map<std::string, Tensor> take_captured() { return std::move(captured_); }
  int recompute() const { return model_.numerics().recompute; }
  at::ScalarType scalar() const { return model_.numerics().scalar(); }
  at::ScalarType master() const { return model_.numerics().master(); }

 private:
  /// Sequences that follow one plan: all of them, or those of one adapter set.
  struct Lane {
    const Plan* plan = nullptr;
    std::vector<int64_t> sequences;  // empty: all
  };
  /// A lane's rows among the present ones.
  struct LaneRows {
    const Plan* plan = nullptr;
    Tensor index;   // int64; undefined: all rows
    RowIndex rows;  // of the lane alone
    Tensor keys;
    int64_t begin = -1;  // >= 0: the rows are consecutive from here
  };

  int resolve(int site) const;
  bool wanted(int site) const { return !wanted_.empty() && wanted_[static_cast<size_t>(site)]; }
  void choose_lanes();
  int64_t prefix_shift(const Plan& plan, const std::string& stream) const;
  void split_rows();
  Tensor lane_rows(const Tensor& x, const LaneRows& part) const;
  Tensor join_lanes(const std::vector<Tensor>& parts) const;
  /// What a function sees of one lane; values it reads are the lane's rows of them.
  View view_of(const Tensor& x, const RowIndex& rows, const Tensor& keys,
               const SitePlan::Entry& entry, size_t lane);
  // forward.cpp: rows and heads
  Tensor run_flow(const Site& site, const SitePlan::Entry& entry, const Tensor& x,
                  const RowIndex& rows, const Tensor& keys, size_t lane);
  Tensor run_lane(const Site& site, const SitePlan& plan, size_t lane, Tensor x);
  // forward_rows.cpp
  Tensor extend_rows(const Extend& extend, const SitePlan::Entry& entry, size_t lane,
                     const Tensor& x);
  Tensor drop_rows(const Keep& keep, const SitePlan::Entry& entry, size_t lane, const Tensor& x);
  Tensor mixture(const Site& part, const SitePlan& plan, const Tensor& x,
                 const std::function<Tensor(const Tensor&)>& run);
  // forward_weights.cpp
  Tensor project_lane(const Site& site, size_t lane, const Tensor& x);
  Tensor project_edited(const Site& site, SitePlan& plan, size_t lane, Tensor x);
  Tensor side_edits(const SitePlan& plan, size_t first, const std::vector<Tensor>& inputs,
                    size_t lane, Tensor y);
  Tensor gather_lane(const Site& site, const Plan& plan, const Tensor& ids, int64_t padding);
  bool lanes_differ(int site) const;
  // forward_attention.cpp
  Tensor edited_heads(int site, const Tensor& heads, const AttentionArgs& args);
  KeyValues key_values(int site, const Tensor& k, const Tensor& v, const RowIndex& memory);
  KeyValues extend_keys(const Extend& extend, const SitePlan::Entry& entry, size_t lane,
                        const KeyValues& kv);
  Tensor reference_attention(const AttentionSites& sites, const Tensor& q, const KeyValues& kv,
                             const AttentionArgs& args);
  Tensor run_scores(int site, int64_t sequence, Tensor x, const RowIndex& rows);
  size_t lane_of(int64_t sequence) const;

  Model& model_;
  const Batch batch_;  // a copy of handles: a head may outlive the caller's batch
  std::map<std::string, Tensor> captured_;
  std::vector<bool> wanted_;
  std::map<std::string, Tensor> reads_;
  std::vector<std::map<std::string, Tensor>> lane_reads_;  // of the last view of each lane
  std::vector<Lane> lanes_;
  std::vector<LaneRows> parts_;  // by lane, for the present rows
  Tensor lane_order_;            // int64 [rows]: where a row stands in the lanes one after another
  std::map<std::string, RowState> streams_;
  RowState* state_ = nullptr;
  std::vector<int> experts_;  // inside a copy: its sites by the site they copy; else empty
};

}  // namespace attune
