#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <variant>

#include "core/site.h"
#include "tensor/rows.h"

namespace attune {

using at::Tensor;

/// What a function at a site sees: the rows, whose sequences are whose, and the other sites it asked to read.
struct View {
  Tensor x;
  const RowIndex& rows;
  const std::map<std::string, Tensor>& reads;
};
using Fn = std::function<Tensor(const View&)>;

// The closed set of verbs a method may use.
struct LowRank { Tensor down, up; double scale = 1, dropout = 0; };  // y += scale * (x down^T) up^T
struct Scale { Tensor in, out; };                                    // y = out * f(in * x); either may be undefined
struct Shift { Tensor by; };                                         // y += by: [d], [h, d_h] or [rows, d]
struct Reweight { std::function<Tensor(const Tensor& w)> map; };     // W <- map(W)
struct Apply { Fn fn; Names reads; };                                // x <- fn(view)
struct Observe { std::function<void(const View&)> see; Names reads; };
struct Extend { Tensor rows, keys, values; };                        // prompt rows, or K/V prefix, per sequence
struct Keep { Fn mask; Names reads; };                               // bool [rows]; the other rows leave the batch
struct Route { Fn gate; int experts = 2, top_k = 1; };               // a part becomes a mixture of copies of itself
using Edit = std::variant<LowRank, Scale, Shift, Reweight, Apply, Observe, Extend, Keep, Route>;

const char* verb_name(const Edit& edit);
/// Is the verb meant for this kind of site (the table of docs/sites.md)?
bool admits(const Site& site, const Edit& edit);
/// Does this build carry the verb out there? What it admits but does not carry out yet is refused with Unsupported.
bool carried_out(const Site& site, const Edit& edit);
/// Can it be merged into the model's weights?
bool folds(const Site& site, const Edit& edit);

/// The weight and bias of one projection.
struct Affine {
  Tensor weight, bias;  // [out, in]; [out] or undefined
};
/// The specification of every edit at a projection, and the merge of every method: applies `edit` to the affine map,
/// each edit to the result of those before. Computed in the weight's type. Errors: Internal when folds() is false.
Affine fold(const Affine& map, const Edit& edit);

}  // namespace attune
