// LoKr: the update of a weight is a Kronecker product, its factors low-rank where that is smaller.
#include <algorithm>
#include <tuple>

#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// size = first * second: `factor` and the rest when it divides, else the divisors nearest to the
/// square root, the smaller first and (-1: without limit) at most `factor`.
std::pair<int64_t, int64_t> factorize(int64_t size, int64_t factor) {
  // The factor goes first even when it is the larger: shapes in LyCORIS's and PEFT's files follow.
  if (factor > 0 && size % factor == 0) return {factor, size / factor};
  const int64_t limit = factor == -1 ? size : factor;
  int64_t best = 1;
  for (int64_t m = 2; m <= limit && m * m <= size; ++m)
    if (size % m == 0) best = m;
  return {best, size / best};
}

/// Shapes of the Kronecker factors of one update: w1 [out1, in1], w2 [out2, in2].
struct Shapes {
  int64_t out1, in1, out2, in2, rank;
  bool whole1, whole2;  // a factor is one matrix; otherwise a product of inner size rank

  Shapes(const Site& site, int64_t rank, int64_t factor, bool both) : rank(rank) {
    std::tie(out1, out2) = factorize(site.out, factor);
    std::tie(in1, in2) = factorize(site.in, factor);
    whole1 = !both || 2 * rank >= std::max(out1, in1);
    whole2 = 2 * rank >= std::max(out2, in2);
  }
  int64_t count() const {
    return (whole1 ? out1 * in1 : rank * (out1 + in1)) +
           (whole2 ? out2 * in2 : rank * (out2 + in2));
  }
};

/// [a, b] (x) [c, d] = [a c, b d].
Tensor kronecker(const Tensor& first, const Tensor& second) {
  const int64_t a = first.size(0), b = first.size(1), c = second.size(0), d = second.size(1);
  return (first.reshape({a, 1, b, 1}) * second.reshape({1, c, 1, d})).reshape({a * c, b * d});
}

class Lokr final : public Tuner {
 public:
  explicit Lokr(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options, "rank", 1, true),
        alpha_(options, "alpha", 0, false),
        both_(options.get<bool>("decompose_both")),
        factor_(options.get<int64_t>("decompose_factor")),
        lycoris_(options.get<std::string>("init") == "lycoris"),
        rank_dropout_(options.get<double>("rank_dropout")),
        module_dropout_(options.get<double>("module_dropout")),
        rescale_(options.get<bool>("rank_dropout_scale")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites = projections(attachment, sites_, "lokr");
    rank_.check(sites, "lokr");
    alpha_.check(sites, "lokr");
    for (const Site& site : sites) attach_to(attachment, site);
  }
  void prepare(const Pass& pass) override { pass_ = pass; }

 private:
  /// One factor: `whole` [rows, columns], or the two of its product, of which `zero` starts at 0.
  struct Factor {
    Tensor whole, a, b;
    Tensor value() const { return whole.defined() ? whole : attune::matmul(a, b); }
  };
  enum class Zero { None, First, Second };

  Tensor tensor(Attachment& attachment, const Site& site, const std::string& name, int64_t rows,
                int64_t columns, bool zero) const {
    return attachment.parameter(
        site, name,
        zero ? attachment.zeros({rows, columns})
             : attachment.uniform(site, name, {rows, columns}, kaiming_bound(columns)));
  }
  Factor factor(Attachment& attachment, const Site& site, const std::string& name, int64_t rows,
                int64_t columns, int64_t rank, bool whole, Zero zero) const {
    Factor result;
    if (whole) {
      result.whole = tensor(attachment, site, name, rows, columns, zero != Zero::None);
    } else {
      result.a = tensor(attachment, site, name + "_a", rows, rank, zero == Zero::First);
      result.b = tensor(attachment, site, name + "_b", rank, columns, zero == Zero::Second);
    }
    return result;
  }
  void attach_to(Attachment& attachment, const Site& site) {
    const int64_t rank = rank_.whole_at(site);
    check_rank("lokr", rank, site);
    const Shapes shapes(site, rank, factor_, both_);
    // PEFT starts the first factor at zero, LyCORIS the second.
    const Factor w1 = factor(attachment, site, "w1", shapes.out1, shapes.in1, rank, shapes.whole1,
                             lycoris_ ? Zero::None : Zero::First);
    const Factor w2 = factor(attachment, site, "w2", shapes.out2, shapes.in2, rank, shapes.whole2,
                             lycoris_ ? Zero::Second : Zero::None);
    const double scale = low_rank_scale(alpha_.at(site), rank, false);
    const UpdateDropout dropout{rank_dropout_, module_dropout_, rescale_,
                                attachment.stream(site.name + "/dropout")};
    attachment.add(site, Reweight{[=, this](const Tensor& w) {
                     const Tensor delta = kronecker(w1.value(), w2.value()) * scale;
                     const Tensor factor = dropout.factor(pass_, delta);
                     return factor.defined() ? w + delta * factor : w + delta;
                   }});
  }

  std::vector<std::string> sites_;
  ByPattern rank_, alpha_;
  bool both_;
  int64_t factor_;
  bool lycoris_;
  double rank_dropout_, module_dropout_;
  bool rescale_;
  Pass pass_;
};

std::vector<Option> lokr_options() {
  return {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "8", "[1, inf)",
       "inner size of a factor; one whose longer side is at most twice the rank stays whole"},
      {"alpha", "number", "8", "(0, inf)", "strength: the update is scaled by alpha / rank"},
      {"decompose_both", "bool", "false", "", "make the first (smaller) factor low-rank too"},
      {"decompose_factor", "int", "-1", "[-1, inf)",
       "size of the first factor's sides where it divides; -1: nearest to the square root"},
      {"init", "choice", "default", "default|lycoris",
       "which factor starts at zero: the first (default) or the second (lycoris)"},
      {"rank_pattern", "map", "{}", "",
       "other ranks by site: glob to rank, the first match counts"},
      {"alpha_pattern", "map", "{}", "",
       "other strengths by site: glob to alpha, the first match counts"},
      {"rank_dropout", "number", "0", "[0, 1)",
       "share of the update's rows left out in a training step"},
      {"rank_dropout_scale", "bool", "false", "", "scale the rows that stay up to make up for it"},
      {"module_dropout", "number", "0", "[0, 1)",
       "chance that a site goes without its update in a training step"},
  };
}

}  // namespace

void register_lokr(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "lokr";
  entry.summary =
      "Kronecker product added to the weight: W' = W + alpha / rank (w1 (x) w2), factors low-rank "
      "where that is smaller";
  entry.reference =
      "Yeh et al. 2023, \"Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to "
      "Model Evaluation\", arXiv 2309.14859; after Edalati et al. 2022, \"KronA\", arXiv "
      "2212.10650";
  entry.options = lokr_options();
  entry.learning_rate = 5e-3;
  entry.tiny = "{rank: 1, alpha: 4, decompose_both: true}";
  entry.examples = {"{}", "{rank: 4, decompose_factor: 8, sites: \"*.self.[qkvo]\"}",
                    "{rank: 2, decompose_both: true, init: lycoris}"};
  entry.make = [](const Options& options) { return std::make_unique<Lokr>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const ByPattern rank(options, "rank", 1, true);
    int64_t count = 0;
    for (const Site& site : sites)
      count += Shapes(site, rank.whole_at(site), options.get<int64_t>("decompose_factor"),
                      options.get<bool>("decompose_both"))
                   .count();
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
