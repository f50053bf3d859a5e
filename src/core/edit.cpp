#include "core/edit.h"

#include <array>

#include "base/error.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {

const char* verb_name(const Edit& edit) {
  static constexpr std::array<const char*, 9> kNames{
      "LowRank", "Scale", "Shift", "Reweight", "Apply", "Observe", "Extend", "Keep", "Route"};
  return kNames[edit.index()];
}

namespace {
template <class T>
bool is(const Edit& edit) {
  return std::holds_alternative<T>(edit);
}
bool affine(const Edit& edit) {
  return is<LowRank>(edit) || is<Scale>(edit) || is<Shift>(edit) || is<Reweight>(edit);
}
bool flows(const Edit& edit) {
  return (is<Scale>(edit) && !std::get<Scale>(edit).in.defined()) || is<Shift>(edit) ||
         is<Apply>(edit) || is<Observe>(edit);
}
}  // namespace

bool admits(const Site& site, const Edit& edit) {
  switch (site.kind) {
    case SiteKind::Weight:
      if (site.weight == WeightKind::Projection || site.weight == WeightKind::Table)
        return affine(edit);
      return affine(edit) && !is<LowRank>(edit) &&
             !(is<Scale>(edit) && std::get<Scale>(edit).in.defined());
    case SiteKind::Rows:
      return flows(edit) ||
             (is<Extend>(edit) &&
              (site.name.ends_with("embed.rows") || site.name.ends_with("embed.out") ||
               site.name.ends_with("resid.in"))) ||
             (is<Keep>(edit) && site.name.find("resid.") != std::string::npos);
    case SiteKind::Heads:
      return flows(edit);
    case SiteKind::Scores:
      return is<Apply>(edit) || is<Observe>(edit);
    case SiteKind::KeyValue:
      return is<Extend>(edit) || is<Apply>(edit) || is<Observe>(edit);
    case SiteKind::Part:
      return is<Route>(edit);
  }
  return false;
}

bool by_row(const Site& site, const Edit& edit) {
  // One value a feature, not one a row.
  const auto of_features = [&](const Tensor& by) {
    return !by.defined() || by.dim() < 2 || by.numel() == site.out;
  };
  if (const LowRank* low = std::get_if<LowRank>(&edit)) return !low->gate;
  if (const Scale* scale = std::get_if<Scale>(&edit)) return of_features(scale->out);
  if (const Shift* shift = std::get_if<Shift>(&edit)) return of_features(shift->by);
  if (const Apply* apply = std::get_if<Apply>(&edit)) return apply->by_row;
  // Keys and values in front of a sequence's own are the same whoever asks.
  if (const Extend* extend = std::get_if<Extend>(&edit))
    return site.kind == SiteKind::KeyValue && !extend->gate;
  return is<Reweight>(edit);
}

bool goes_on(const Site& site, const Edit& edit) {
  if (is<Observe>(edit) || by_row(site, edit)) return true;
  if (const Extend* extend = std::get_if<Extend>(&edit)) return !extend->gate;
  // All keys and values are there in every pass, and the scores of new rows with all of them.
  const Apply* apply = std::get_if<Apply>(&edit);
  return apply != nullptr && apply->reads.empty() &&
         (site.kind == SiteKind::KeyValue || site.kind == SiteKind::Scores);
}

bool folds(const Site& site, const Edit& edit, bool can_have_bias) {
  if (site.kind != SiteKind::Weight || !affine(edit)) return false;
  if (const LowRank* low = std::get_if<LowRank>(&edit); low != nullptr && low->gate) return false;
  return !is<Shift>(edit) || can_have_bias;
}

std::optional<Edit> weakened(const Edit& edit, double factor) {
  Edit result = edit;
  if (LowRank* low = std::get_if<LowRank>(&result)) {
    low->scale *= factor;
  } else if (Shift* shift = std::get_if<Shift>(&result)) {
    shift->by = shift->by * factor;
  } else if (Scale* scale = std::get_if<Scale>(&result)) {
    if (scale->in.defined()) scale->in = 1 + (scale->in - 1) * factor;
    if (scale->out.defined()) scale->out = 1 + (scale->out - 1) * factor;
  } else if (Reweight* reweight = std::get_if<Reweight>(&result)) {
    reweight->map = [map = reweight->map, factor](const Tensor& w) {
      return w + (map(w) - w) * factor;
    };
  } else if (Apply* apply = std::get_if<Apply>(&result)) {
    apply->fn = [fn = apply->fn, factor](const View& view) {
      return view.x + (fn(view) - view.x) * factor;
    };
  } else if (!is<Observe>(edit)) {
    return std::nullopt;
  }
  return result;
}

namespace {

Affine fold_projection(const Affine& map, const Edit& edit) {
  if (const LowRank* low = std::get_if<LowRank>(&edit))
    return {map.weight + attune::matmul(low->up, low->down) * low->scale, map.bias};
  if (const Scale* scale = std::get_if<Scale>(&edit)) {
    Affine result = map;
    if (scale->in.defined()) result.weight = result.weight * scale->in.reshape({1, -1});
    if (scale->out.defined()) {
      result.weight = result.weight * scale->out.reshape({-1, 1});
      if (result.bias.defined()) result.bias = result.bias * scale->out.reshape({-1});
    }
    return result;
  }
  const Tensor by = std::get<Shift>(edit).by.reshape({-1});
  return {map.weight, map.bias.defined() ? map.bias + by : by};
}

}  // namespace

Affine fold(const Affine& map, const Edit& edit, WeightKind kind) {
  ATTUNE_ASSERT(affine(edit));
  if (const Reweight* reweight = std::get_if<Reweight>(&edit))
    return {reweight->map(map.weight), map.bias};
  if (kind == WeightKind::Table) {
    const Affine turned = fold_projection({map.weight.t(), map.bias}, edit);
    return {turned.weight.t(), turned.bias};
  }
  if (map.weight.dim() == 2) return fold_projection(map, edit);
  // A norm or a lone vector: the weight is the diagonal.
  if (const Scale* scale = std::get_if<Scale>(&edit))
    return {map.weight * scale->out, map.bias.defined() ? map.bias * scale->out : Tensor()};
  const Tensor by = std::get<Shift>(edit).by;
  return {map.weight, map.bias.defined() ? map.bias + by : by};
}

}  // namespace attune
