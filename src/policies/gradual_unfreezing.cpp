// Gradual unfreezing: the head first, then block after block from the top.
#include <cmath>
#include <map>

#include "policies/base_tensors.h"
#include "policies/registry.h"

namespace attune {
namespace {

class GradualUnfreezing final : public TrainingPolicy {
 public:
  explicit GradualUnfreezing(const Options& options)
      : share_(options.get<double>("share")), steps_(options.get<int64_t>("steps")) {}

  /// The stage at which each parameter joins: 0 outside the blocks, 1 the top block of its stack,
  /// and so on down; embeddings last.
  void begin(TrainState& state) override {
    std::map<std::string, int> depth;
    for (const Site& site : state.model.sites())
      if (site.layer >= 0) {
        int& blocks = depth[stack_of(site.name)];
        blocks = std::max(blocks, site.layer + 1);
      }
    int deepest = 0;
    for (const std::pair<const std::string, int>& stack : depth)
      deepest = std::max(deepest, stack.second);
    bool outside = false;
    for (const Param& param : state.params) {
      const std::string site = site_of(param.name);
      const bool embedding = site.find(".embed.") != std::string::npos;
      joins_.push_back(param.layer >= 0 ? depth[stack_of(site)] - param.layer
                       : embedding      ? deepest + 1
                                        : 0);
      outside = outside || joins_.back() == 0;
    }
    // With nothing outside the blocks the top one begins.
    stages_ = deepest + 2 - (outside ? 0 : 1);
    first_ = outside ? 0 : 1;
  }

  void before_step(TrainState& state) override {
    const int stage = first_ + stage_at(state.pass);
    for (size_t i = 0; i < joins_.size(); ++i)
      if (joins_[i] > stage) state.params[i].frozen = true;
  }

 private:
  /// "enc.0.self.q" of "default/0.full/enc.0.self.q/weight".
  static std::string site_of(const std::string& param) {
    const size_t begin = param.find('/', param.find('/') + 1) + 1;
    return param.substr(begin, param.find('/', begin) - begin);
  }
  static std::string stack_of(const std::string& site) { return site.substr(0, site.find('.')); }

  int stage_at(const Pass& pass) const {
    if (steps_ > 0) return static_cast<int>(std::min<int64_t>(stages_, pass.step / steps_));
    if (pass.progress >= share_) return stages_;
    return static_cast<int>(std::floor(pass.progress / share_ * stages_));
  }

  double share_;
  int64_t steps_;
  int stages_ = 1, first_ = 0;
  std::vector<int> joins_;  // by parameter
};

}  // namespace

void register_gradual_unfreezing(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "gradual_unfreezing";
  entry.summary =
      "the head trains first; blocks join one after the other from the top, embeddings last";
  entry.reference =
      "Howard and Ruder 2018, \"Universal Language Model Fine-tuning for Text Classification\", "
      "arXiv 1801.06146, section 3.3";
  entry.options = {
      {"share", "number", "0.5", "[0, 1]",
       "share of the run over which the blocks join, at equal distances; 0: all train from the "
       "start"},
      {"steps", "int", "0", "[0, inf)",
       "instead, steps from one block to the next (an epoch's, in the paper); 0: use share"},
  };
  entry.tiny = "{share: 0.8}";
  entry.examples = {"{}", "{steps: 100}"};
  entry.make = [](const Options& options) { return std::make_unique<GradualUnfreezing>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
