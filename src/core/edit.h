#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "core/site.h"
#include "tensor/rows.h"

namespace attune {

using at::Tensor;

struct Pass;

/// What a function at a site sees: the rows [rows, d] (heads [rows, h, d_h]; keys and values side
/// by side [rows, 2 d_kv]; scores [h, Lq, Lk] of one sequence), whose sequences are whose, the
/// other sites it asked to read, and what dropout needs.
struct View {
  Tensor x;
  const RowIndex& rows;
  const std::map<std::string, Tensor>& reads;
  const Pass& pass;
  Tensor row_keys;        // int64 [rows] when training, else undefined
  uint32_t dropout_site;  // one number an edit
};
/// Dropout inside a function at a site, by the keys of its rows: packed = one by one. x [rows, *].
Tensor dropout(const Tensor& x, double p, const View& view);
using Fn = std::function<Tensor(const View&)>;

// The closed set of verbs a method may use.
struct LowRank {
  Tensor down, up;
  double scale = 1, dropout = 0;
  Fn gate = {};  // optional [rows] or [rows, 1], from the projection's input: multiplies the update
  Names reads = {};
};  // y += gate * scale * (x down^T) up^T
struct Scale {
  Tensor in, out;
};  // y = out * f(in * x); either may be undefined
struct Shift {
  Tensor by;
};  // y += by: [d], [h, d_h] or [rows, d]
struct Reweight {
  std::function<Tensor(const Tensor& w)> map;
};  // W <- map(W)
struct Apply {
  Fn fn;
  Names reads;
  // What fn makes of a row depends on that row alone, and on the same row of what it reads.
  bool by_row = false;
  // A pass in training leaves something behind (running statistics), so fn runs once a pass.
  bool stateful = false;
};  // x <- fn(view)
struct Observe {
  std::function<void(const View&)> see;
  Names reads;
};
struct Extend {
  // In front of every sequence: prompt rows [P, d], or keys and values [P, d_kv] of a KeyValue
  // site; [B, P, *] gives each sequence its own.
  Tensor rows, keys, values;
  bool shift = true;    // the text's positions count on from P
  bool pooled = false;  // rows: a head that pools the first row takes the first prompt row (PEFT)
  Fn gate;              // optional [B] or [B, 1]: multiplies what is added, by sequence
  Names reads;
};
struct Keep {
  Fn mask;
  Names reads;
};  // bool [rows]; the other rows leave the batch
struct Route {
  Fn gate;
  int experts = 2, top_k = 1;
};  // a part becomes a mixture of copies of itself
using Edit = std::variant<LowRank, Scale, Shift, Reweight, Apply, Observe, Extend, Keep, Route>;

const char* verb_name(const Edit& edit);
/// Is the verb meant for this kind of site (the table of docs/sites.md)?
bool admits(const Site& site, const Edit& edit);
/// Does what it makes of a row depend on that row alone, so that rows nobody reads may be left out
/// before it?
bool by_row(const Site& site, const Edit& edit);
/// Does a row that comes behind those of a cache get what it gets in a pass over the whole text?
bool goes_on(const Site& site, const Edit& edit);
/// Can it be merged into the model's weights, where the site has or can have a bias
/// (Model::can_have_bias)?
bool folds(const Site& site, const Edit& edit, bool can_have_bias);

/// The edit with `factor` of its strength; nothing when it has none to scale.
std::optional<Edit> weakened(const Edit& edit, double factor);

/// The weight and bias of one projection.
struct Affine {
  Tensor weight, bias;  // [out, in]; [out] or undefined
};
/// The specification of every edit at a projection, and the merge of every method: applies `edit`
/// to the affine map, each edit to the result of those before. Computed in the weight's type. A
/// table [in, out] is the transpose of a projection's weight. Errors: Internal when the edit is not
/// affine.
Affine fold(const Affine& map, const Edit& edit, WeightKind kind = WeightKind::Projection);

}  // namespace attune
