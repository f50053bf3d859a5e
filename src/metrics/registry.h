#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// What a user may name as a metric (`best: macro_f1`), as data for checks, help and docs.
struct MetricInfo {
  std::string name, summary, reference;
  bool higher_is_better = true;
};

/// All metrics, in the order they are shown.
const std::vector<MetricInfo>& metrics();
/// One metric; null when there is none of that name.
const MetricInfo* find_metric(std::string_view name);
/// One metric. Errors: BadInput naming `where` and the nearest names.
const MetricInfo& metric(std::string_view name, std::string_view where);

}  // namespace attune
