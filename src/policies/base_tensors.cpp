#include "policies/base_tensors.h"

#include <algorithm>

#include "base/text.h"
#include "core/attachment.h"
#include "tensor/torch.h"

namespace attune {

std::vector<TrainedBase> trained_base(const TrainState& state) {
  std::vector<TrainedBase> result;
  const std::vector<Site>& sites = state.model.sites();
  for (const std::string& set : state.adaptation.sets()) {
    for (const Recorder* recorder : state.adaptation.recorders(set)) {
      for (const Owned& owned : recorder->owned()) {
        if (owned.role != Owned::Role::Thawed) continue;
        const auto same = [&](const Param& p) { return p.value.is_same(owned.value); };
        const size_t param = static_cast<size_t>(
            std::find_if(state.params.begin(), state.params.end(), same) - state.params.begin());
        const auto seen = [&](const TrainedBase& other) { return other.param == param; };
        if (param == state.params.size() || std::any_of(result.begin(), result.end(), seen))
          continue;
        const Site& site = sites[static_cast<size_t>(owned.site)];
        const WeightSlot& slot = state.model.slot(site);
        const bool weight = ends_with(owned.name, "/weight");
        result.push_back({param, site, weight, slot.fresh && starts_with(site.name, "head."),
                          weight ? slot.dense() : slot.bias});
      }
    }
  }
  std::sort(result.begin(), result.end(),
            [](const TrainedBase& a, const TrainedBase& b) { return a.param < b.param; });
  return result;
}

Tensor start_of(const TrainState& state, const TrainedBase& tensor) {
  const Tensor value = state.params[tensor.param].value.detach();
  return at::equal(value, tensor.base) ? tensor.base : value.clone();
}

bool matches_any(const Site& site, const std::vector<std::string>& globs) {
  return std::any_of(globs.begin(), globs.end(),
                     [&](const std::string& glob) { return glob_match(glob, site.name); });
}

void check_globs(const TrainState& state, const std::vector<std::string>& globs) {
  for (const std::string& glob : globs) select_sites(state.model.sites(), glob);
}

}  // namespace attune
