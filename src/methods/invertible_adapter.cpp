// Invertible adapters: a coupling on the embeddings, and its inverse before the output embeddings.
#include <algorithm>

#include "base/error.h"
#include "methods/adapters.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// The NICE coupling of two halves: y1 = e1 + F(e2), y2 = e2 + G(y1). An odd width gives the second
/// half one feature more.
/// Reference: Dinh et al. 2014, "NICE: Non-linear Independent Components Estimation", arXiv
/// 1410.8516, section 3.2.
struct Coupling {
  Bottleneck f, g;
  int64_t split = 0;

  Tensor forward(const Tensor& x) const {
    const Tensor e2 = second(x), y1 = bottleneck(e2, first(x), f);
    return at::cat({y1, bottleneck(y1, e2, g)}, 1);
  }
  /// e2 = y2 - G(y1), e1 = y1 - F(e2).
  Tensor inverse(const Tensor& y) const {
    const Tensor y1 = first(y), e2 = bottleneck(y1, second(y), negative(g));
    return at::cat({bottleneck(e2, y1, negative(f)), e2}, 1);
  }

 private:
  Tensor first(const Tensor& x) const { return x.narrow(1, 0, split).contiguous(); }
  Tensor second(const Tensor& x) const {
    return x.narrow(1, split, x.size(1) - split).contiguous();
  }
  static Bottleneck negative(Bottleneck part) {
    part.scale = -part.scale;
    return part;
  }
};

class InvertibleAdapter final : public Tuner {
 public:
  explicit InvertibleAdapter(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        reduction_(options.get<double>("reduction")),
        activation_(activation_named(options.get<std::string>("activation"))),
        lora_(options.get<std::string>("init") == "lora") {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites =
        sites_of_kinds(attachment, sites_, "", {SiteKind::Rows}, "invertible_adapter");
    const Site& owner = sites.front();
    for (const Site& site : sites)
      if (site.out != owner.out)
        fail(ErrorCode::BadInput,
             "invertible_adapter: {} has {} features and {} has {}; one coupling serves all sites, "
             "so choose sites of one width",
             owner.name, owner.out, site.name, site.out);
    const Coupling coupling = new_coupling(attachment, owner);
    for (const Site& site : sites)
      attachment.add(site, Apply{[coupling](const View& view) { return coupling.forward(view.x); },
                                 {},
                                 /*by_row=*/true});
    if (const Site* output = output_rows(attachment.all_sites(), owner.out))
      attachment.add(*output,
                     Apply{[coupling](const View& view) { return coupling.inverse(view.x); },
                           {},
                           /*by_row=*/true});
  }

  /// Inner sizes of F and G: half the width / reduction.
  static int64_t inner(int64_t width, double reduction) {
    return static_cast<int64_t>(static_cast<double>(width / 2) / reduction);
  }
  /// F: (d2 h + h) + (h d1 + d1); G the other way round; for even d
  /// 2 ((d/2) h + h + h (d/2) + d/2).
  static int64_t count(int64_t width, double reduction) {
    const int64_t h = inner(width, reduction), d1 = width / 2, d2 = width - d1;
    return (d2 * h + h) + (h * d1 + d1) + (d1 * h + h) + (h * d2 + d2);
  }

 private:
  /// The rows that enter the output embeddings of a language model; null for other heads.
  static const Site* output_rows(const std::vector<Site>& all, int64_t width) {
    const Site *rows = find_site(all, "head.in"), *logits = find_site(all, "logits");
    if (rows == nullptr || logits == nullptr || rows->out != width) return nullptr;
    const bool words = std::any_of(all.begin(), all.end(), [&](const Site& site) {
      return site.name.ends_with("embed.tok") && site.in == logits->out;
    });
    return words ? rows : nullptr;
  }

  Bottleneck part(Attachment& attachment, const Site& owner, const std::string& name, int64_t in,
                  int64_t out, int64_t size) const {
    const AdapterInit init = lora_ ? AdapterInit::Lora : AdapterInit::Bert;
    const auto weight = [&](const std::string& which, int64_t rows, int64_t columns, bool up) {
      const std::string full = name + which;
      return attachment.parameter(
          owner, full, adapter_weight(attachment, owner, full.c_str(), rows, columns, init, up));
    };
    const auto bias = [&](const std::string& which, int64_t width) {
      return plain_parameter(attachment, owner, (name + which).c_str(), attachment.zeros({width}));
    };
    Bottleneck part;
    part.activation = activation_;
    part.down = weight("_down", size, in, false);
    part.down_bias = bias("_down_bias", size);
    part.up = weight("_up", out, size, true);
    part.up_bias = bias("_up_bias", out);
    return part;
  }

  Coupling new_coupling(Attachment& attachment, const Site& owner) const {
    const int64_t width = owner.out, size = inner(width, reduction_);
    if (width < 2 || size < 1)
      fail(ErrorCode::BadInput,
           "invertible_adapter: reduction {} leaves no inner feature of the {} that each half of "
           "{} has; give a reduction of at most {}",
           reduction_, width / 2, owner.name, width / 2);
    Coupling coupling;
    coupling.split = width / 2;
    coupling.f = part(attachment, owner, "f", width - coupling.split, coupling.split, size);
    coupling.g = part(attachment, owner, "g", coupling.split, width - coupling.split, size);
    return coupling;
  }

  std::vector<std::string> sites_;
  double reduction_;
  kernels::Activation activation_;
  bool lora_;
};

}  // namespace

void register_invertible_adapter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "invertible_adapter";
  entry.summary =
      "an invertible coupling on the embeddings, undone before the output embeddings of a language "
      "model";
  entry.reference =
      "Pfeiffer et al. 2020, \"MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual "
      "Transfer\", arXiv 2005.00052, section 4.3; Dinh et al. 2014, arXiv 1410.8516";
  entry.options = {
      {"sites", "globs", "\"*.embed.out\"", "",
       "embeddings that go through the coupling (globs over site names); one coupling serves all"},
      {"reduction", "number", "2", "[1, inf)",
       "half the rows' width / inner size of each function"},
      {"activation", "choice", "relu", kActivationNames, "inside the two functions"},
      {"init", "choice", "bert", "bert|lora",
       "initial values. bert: N(0, 0.02^2), near the identity; lora: the second projections begin "
       "at zero, exactly the identity"},
  };
  entry.learning_rate = 5e-4;
  entry.identity_at_start = false;  // near it: N(0, 0.02^2), as published
  entry.tiny = "{activation: gelu}";
  entry.examples = {"{}", "{reduction: 4, init: lora}"};
  entry.make = [](const Options& options) { return std::make_unique<InvertibleAdapter>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    return InvertibleAdapter::count(sites.front().out, options.get<double>("reduction"));
  };
  registry.add(std::move(entry));
}

}  // namespace attune
