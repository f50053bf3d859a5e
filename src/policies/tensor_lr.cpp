// A learning rate of their own for the trained tensors that a pattern names.
#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "policies/registry.h"

namespace attune {
namespace {

class TensorLr final : public TrainingPolicy {
 public:
  explicit TensorLr(const Options& options)
      : tensors_(options.get<std::vector<std::string>>("tensors")),
        scale_(options.get<double>("scale")) {}

  void begin(TrainState& state) override {
    for (const std::string& pattern : tensors_) check(pattern, state.params);
    for (Param& param : state.params)
      if (matched(param)) param.lr_scale *= scale_;
  }

 private:
  /// "0.lora/enc.0.self.q/down" of "default/0.lora/enc.0.self.q/down": the name that adapter files
  /// have.
  static std::string_view saved_name(const Param& param) {
    return std::string_view(param.name).substr(param.name.find('/') + 1);
  }
  bool matched(const Param& param) const {
    return std::any_of(tensors_.begin(), tensors_.end(), [&](const std::string& pattern) {
      return glob_match(pattern, saved_name(param));
    });
  }
  static void check(const std::string& pattern, const std::vector<Param>& params) {
    std::vector<std::string> names;
    for (const Param& param : params) {
      if (glob_match(pattern, saved_name(param))) return;
      names.emplace_back(saved_name(param));
    }
    fail(ErrorCode::BadInput,
         "tensor_lr: \"{}\" matches no trained tensor; they are named as in adapter files, "
         "METHOD/SITE/TENSOR, near it: {}",
         pattern, join(nearest(pattern, names), ", "));
  }

  std::vector<std::string> tensors_;
  double scale_;
};

}  // namespace

void register_tensor_lr(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "tensor_lr";
  entry.summary =
      "trained tensors that a pattern names learn at a multiple of the learning rate, for methods "
      "whose parts want different rates (a prefix beside an adapter)";
  entry.reference =
      "Hayou et al. 2024, \"LoRA+: Efficient Low Rank Adaptation of Large Models\", arXiv "
      "2402.12354 (rates that differ between the tensors of one method)";
  entry.options = {{"tensors", "globs", "\"*\"", "",
                    "globs over METHOD/SITE/TENSOR, the names in adapter files, e.g. \"*.kv/*\""},
                   {"scale", "number", "10", "(0, inf)", "their rate relative to train.lr"}};
  entry.tiny = "{scale: 4}";
  entry.make = [](const Options& options) { return std::make_unique<TensorLr>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
