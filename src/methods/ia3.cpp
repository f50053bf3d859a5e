// (IA)^3: learned vectors rescale keys, values and the inner activations of the feed-forward part.
#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "methods/common.h"
#include "methods/registry.h"

namespace attune {
namespace {

bool matches_any(const std::vector<std::string>& globs, const std::string& name) {
  return std::any_of(globs.begin(), globs.end(),
                     [&](const std::string& glob) { return glob_match(glob, name); });
}

/// Which sites are scaled at their input: as stated, or the second feed-forward projections.
std::vector<std::string> feedforward_of(const Options& options) {
  const std::vector<std::string> stated = options.get<std::vector<std::string>>("feedforward");
  return stated == std::vector<std::string>{"auto"} ? std::vector<std::string>{"*.ffn.down"}
                                                    : stated;
}

class Ia3 final : public Tuner {
 public:
  explicit Ia3(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        feedforward_(feedforward_of(options)),
        stated_(options.get<std::vector<std::string>>("feedforward") !=
                std::vector<std::string>{"auto"}) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> chosen = projections(attachment, sites_, "ia3");
    if (stated_) check_subset(attachment, chosen);
    for (const Site& site : chosen) {
      const bool input = matches_any(feedforward_, site.name);
      // No weight decay: it would pull the factors, and with them the activations, towards zero.
      const Tensor scale = attachment.parameter(
          site, "scale", attachment.ones({input ? site.in : site.out}), Learn{1, 0, {}});
      attachment.add(site, input ? Scale{scale, {}} : Scale{{}, scale});
    }
  }

 private:
  /// Errors: BadInput when `feedforward` selects a projection that `sites` leaves out.
  void check_subset(Attachment& attachment, const std::vector<Site>& chosen) const {
    for (const Site& site : projections(attachment, feedforward_, "ia3")) {
      const bool found = std::any_of(chosen.begin(), chosen.end(),
                                     [&](const Site& other) { return other.id == site.id; });
      if (!found)
        fail(ErrorCode::BadInput,
             "ia3: feedforward selects {}, which sites leaves out; feedforward says which of the "
             "chosen sites are scaled at their input, so add its patterns to sites",
             site.name);
    }
  }

  std::vector<std::string> sites_, feedforward_;
  bool stated_;
};

}  // namespace

void register_ia3(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "ia3";
  entry.summary =
      "learned vectors rescale keys, values and the input of the second feed-forward projection";
  entry.reference =
      "Liu et al. 2022, \"Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than "
      "In-Context Learning\", arXiv 2205.05638, section 3.3";
  entry.options = {
      {"sites", "globs", "[\"*.[kv]\", \"*.ffn.down\"]", "",
       "projections that get a vector: their output is scaled, unless feedforward names them "
       "(globs "
       "over site names)"},
      {"feedforward", "globs", "auto", "",
       "those of the sites whose input is scaled instead (globs over site names); auto: "
       "*.ffn.down, where sites has it"},
  };
  entry.learning_rate = 1e-2;
  entry.rate_by_width = false;
  entry.tiny = "{}";
  entry.examples = {"{}", "{sites: [\"*.self.[kv]\", \"*.ffn.down\"]}",
                    "{sites: \"*.self.[qkvo]\"}"};
  entry.make = [](const Options& options) { return std::make_unique<Ia3>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const std::vector<std::string> feedforward = feedforward_of(options);
    int64_t count = 0;
    for (const Site& site : sites)
      count += matches_any(feedforward, site.name) ? site.in : site.out;
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
