// Partial fine-tuning: whole blocks of the model train, the others stay as they are.
#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "methods/registry.h"
#include "methods/thawed.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// "enc" of "enc.3.self.q".
std::string stack_of(const Site& site) {
  return site.name.substr(0, site.name.find('.'));
}

class Layers final : public Tuner {
 public:
  explicit Layers(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        first_(options.get<int64_t>("first")),
        choose_(options.get<std::vector<double>>("choose")) {
    const bool quarter = options.node("last").text() == "auto";
    last_ = quarter ? -1 : options.get<int64_t>("last");
    if (quarter && (first_ > 0 || !choose_.empty())) last_ = 0;
  }

  void attach(Attachment& attachment) override {
    std::map<std::string, int64_t> blocks;  // of each stack
    for (const Site& site : attachment.all_sites())
      if (site.layer >= 0) {
        int64_t& depth = blocks[stack_of(site)];
        depth = std::max(depth, static_cast<int64_t>(site.layer) + 1);
      }
    check(blocks);
    ThawChoice choice{sites_};
    choice.also = [&](const Site& site) {
      return site.layer >= 0 && trains(site.layer, blocks.at(stack_of(site)));
    };
    thaw_chosen(attachment, choice, false, "layers");
  }

 private:
  bool trains(int64_t layer, int64_t depth) const {
    const int64_t last = last_ < 0 ? std::max<int64_t>(1, (depth + 2) / 4) : last_;
    return layer < first_ || layer >= depth - last ||
           std::find(choose_.begin(), choose_.end(), static_cast<double>(layer)) != choose_.end();
  }

  void check(const std::map<std::string, int64_t>& blocks) const {
    if (first_ == 0 && last_ == 0 && choose_.empty())
      fail(ErrorCode::BadInput,
           "layers: no block is chosen; give `first`, `last` or `choose`, or leave all out for "
           "the last quarter");
    int64_t depth = 0;
    for (const std::pair<const std::string, int64_t>& stack : blocks)
      depth = std::max(depth, stack.second);
    for (const double layer : choose_)
      if (layer < 0 || layer >= static_cast<double>(depth) || layer != std::floor(layer))
        fail(ErrorCode::BadInput,
             "layers: there is no block {} to choose; this model's are numbered 0 to {}", layer,
             depth - 1);
    if (std::max(first_, last_) > depth)
      fail(ErrorCode::BadInput, "layers: {} {} blocks are more than the {} that this model has",
           std::max(first_, last_), first_ > depth ? "first" : "last", depth);
  }

  std::vector<std::string> sites_;
  int64_t first_ = 0, last_ = 0;  // last -1: a quarter
  std::vector<double> choose_;
};

}  // namespace

void register_layers(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "layers";
  entry.summary = "partial fine-tuning: the first, the last or chosen blocks train";
  entry.reference =
      "Lee et al. 2019, \"What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning\", "
      "arXiv 1911.03090 (the last quarter of the blocks)";
  entry.options = {
      {"sites", "globs", "\"*\"", "",
       "which sites of the blocks train (globs over site names); \"dec.*\" names one stack"},
      {"first", "int", "0", "[0, inf)", "train this many of each stack's lowest blocks"},
      {"last", "int", "auto", "[0, inf)",
       "train this many of each stack's highest blocks; auto: a quarter of them, or none when "
       "first or choose is given"},
      {"choose", "numbers", "[]", "", "train these blocks, counted from 0"},
  };
  entry.learning_rate = 1e-4;
  entry.tiny = "{last: 1}";
  entry.examples = {"{}", "{last: 2}", "{first: 1, last: 1}", "{choose: [0, 5]}"};
  entry.make = [](const Options& options) { return std::make_unique<Layers>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options&) {
    return count_chosen(sites, ThawChoice{{}});
  };
  registry.add(std::move(entry));
}

}  // namespace attune
