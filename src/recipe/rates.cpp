#include "recipe/rates.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"

namespace attune {

namespace {

/// The width of the models on which the methods' rates were found (docs/results/rates.md).
constexpr double kMeasuredWidth = 384;

/// To two digits: the rate is printed, and written into the resolved recipe.
double rounded(double rate) {
  const double unit = std::pow(10.0, std::floor(std::log10(rate)) - 1);
  return std::round(rate / unit) * unit;
}

/// Rates of matrices fall as the width grows (Yang et al. 2022, "Tensor Programs V", arXiv
/// 2203.03466, table 3, Adam); vectors and prompts keep theirs.
double own_rate(const Entry<Tuner>& entry, int64_t width) {
  const double share =
      entry.rate_by_width ? std::min(1.0, kMeasuredWidth / static_cast<double>(width)) : 1.0;
  return rounded(entry.learning_rate * share);
}

bool trains(const std::vector<Param>& trained, const std::string& owner) {
  return std::any_of(trained.begin(), trained.end(), [&](const Param& param) {
    return !param.head && param.name.find("/" + owner + "/") != std::string::npos;
  });
}

bool names_head_rate(const Recipe& recipe) {
  return std::any_of(recipe.policies.begin(), recipe.policies.end(),
                     [](const NamedOptions& policy) { return policy.name == "head_lr"; });
}

}  // namespace

Rates rates_of(const Recipe& recipe, const Registry<Tuner>& methods,
               const std::vector<Param>& trained, int64_t width) {
  const auto rate_of = [&](const std::string& name) {
    const std::map<std::string, double>::const_iterator given = recipe.rates.find(name);
    return given != recipe.rates.end() ? given->second : own_rate(methods.at(name), width);
  };
  struct Named {
    std::string owner, name;
    double rate;
  };
  std::vector<Named> all;
  for (size_t i = 0; i < recipe.methods.size(); ++i) {
    const std::string& name = recipe.methods[i].name;
    all.push_back({format("{}.{}", i, name), name, rate_of(name)});
  }
  if (all.empty()) all.push_back({"0.full", "full", rate_of("full")});
  Rates result;
  result.lr = std::min_element(all.begin(), all.end(), [](const Named& a, const Named& b) {
                return a.rate < b.rate;
              })->rate;
  for (const Named& method : all) {
    result.by_name[method.name] = method.rate;
    // A tensor that two methods train belongs to the first; the second may own none.
    if (method.rate == result.lr || !trains(trained, method.owner)) continue;
    result.policies.push_back(
        {"tensor_lr", Json{{"tensors", {method.owner + "/*"}}, {"scale", method.rate / result.lr}},
         "train.lr"});
  }
  const bool fresh =
      std::any_of(trained.begin(), trained.end(), [](const Param& p) { return p.head; });
  if (fresh && !names_head_rate(recipe)) {
    const double head = result.by_name["head"] = rate_of("head");
    if (head != result.lr)
      result.policies.push_back({"head_lr", Json{{"scale", head / result.lr}}, "train.lr"});
  }
  std::vector<std::string> parts;
  for (const auto& [name, rate] : result.by_name) parts.push_back(format("{} {:.2g}", name, rate));
  result.line = join(parts, ", ");
  return result;
}

}  // namespace attune
