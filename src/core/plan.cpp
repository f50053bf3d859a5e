#include "core/plan.h"

namespace attune {

bool SitePlan::only_low_rank() const {
  for (const Entry& entry : edits)
    if (!std::holds_alternative<LowRank>(*entry.edit) || std::get<LowRank>(*entry.edit).gate)
      return false;
  return true;
}

bool SitePlan::beside_the_base() const {
  if (weight.defined() || bias.defined()) return false;
  for (const Entry& entry : edits) {
    const Scale* scale = std::get_if<Scale>(entry.edit);
    if (std::holds_alternative<Reweight>(*entry.edit) || (scale != nullptr && scale->in.defined()))
      return false;
  }
  return true;
}

SitePlan& Plan::need(int site) {
  if (static_cast<size_t>(site) >= sites_.size()) sites_.resize(static_cast<size_t>(site) + 1);
  std::unique_ptr<SitePlan>& slot = sites_[static_cast<size_t>(site)];
  if (!slot) slot = std::make_unique<SitePlan>();
  return *slot;
}

void Plan::clear() {
  sites_.clear();
}

bool Plan::empty() const {
  for (const std::unique_ptr<SitePlan>& site : sites_)
    if (site) return false;
  return true;
}

}  // namespace attune
