// LoHa: the update of a weight is the elementwise product of two low-rank matrices.
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class Loha final : public Tuner {
 public:
  explicit Loha(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options, "rank", 1, true),
        alpha_(options, "alpha", 0, false),
        rank_dropout_(options.get<double>("rank_dropout")),
        module_dropout_(options.get<double>("module_dropout")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites = projections(attachment, sites_, "loha");
    rank_.check(sites, "loha");
    alpha_.check(sites, "loha");
    for (const Site& site : sites) attach_to(attachment, site);
  }
  void prepare(const Pass& pass) override { pass_ = pass; }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const int64_t rank = rank_.whole_at(site);
    check_rank("loha", rank, site);
    const auto drawn = [&](const char* name, int64_t rows, int64_t columns) {
      return attachment.parameter(
          site, name, attachment.uniform(site, name, {rows, columns}, kaiming_bound(columns)));
    };
    const Tensor w1_a = drawn("w1_a", site.out, rank), w1_b = drawn("w1_b", rank, site.in),
                 w2_a = drawn("w2_a", site.out, rank);
    const Tensor w2_b = attachment.parameter(site, "w2_b", attachment.zeros({rank, site.in}));
    const double scale = low_rank_scale(alpha_.at(site), rank, false);
    const UpdateDropout dropout{rank_dropout_, module_dropout_, true,
                                attachment.stream(site.name + "/dropout")};
    attachment.add(site, Reweight{[=, this](const Tensor& w) {
                     const Tensor delta =
                         attune::matmul(w1_a, w1_b) * attune::matmul(w2_a, w2_b) * scale;
                     const Tensor factor = dropout.factor(pass_, delta);
                     return factor.defined() ? w + delta * factor : w + delta;
                   }});
  }

  std::vector<std::string> sites_;
  ByPattern rank_, alpha_;
  double rank_dropout_, module_dropout_;
  Pass pass_;
};

}  // namespace

void register_loha(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "loha";
  entry.summary =
      "elementwise product of two low-rank matrices added to the weight: W' = W + alpha / rank "
      "(w1_a w1_b) o (w2_a w2_b), of rank up to rank^2";
  entry.reference =
      "Hyeon-Woo et al. 2021, \"FedPara: Low-Rank Hadamard Product for Communication-Efficient "
      "Federated Learning\", arXiv 2108.06098, proposition 1; as LyCORIS and PEFT: Yeh et al. "
      "2023, arXiv 2309.14859";
  entry.options = {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "8", "[1, inf)", "inner size of both factors"},
      {"alpha", "number", "8", "(0, inf)", "strength: the update is scaled by alpha / rank"},
      {"rank_pattern", "map", "{}", "",
       "other ranks by site: glob to rank, the first match counts"},
      {"alpha_pattern", "map", "{}", "",
       "other strengths by site: glob to alpha, the first match counts"},
      {"rank_dropout", "number", "0", "[0, 1)",
       "share of the update's rows left out in a training step; the others are scaled up"},
      {"module_dropout", "number", "0", "[0, 1)",
       "chance that a site goes without its update in a training step"},
  };
  entry.learning_rate = 5e-3;
  entry.tiny = "{rank: 2, alpha: 4}";
  entry.examples = {"{}", "{rank: 4, alpha: 8, sites: \"*.self.[qkvo]\"}",
                    "{rank: 8, rank_dropout: 0.1}"};
  entry.make = [](const Options& options) { return std::make_unique<Loha>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const ByPattern rank(options, "rank", 1, true);
    int64_t count = 0;
    for (const Site& site : sites) count += 2 * rank.whole_at(site) * (site.in + site.out);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
