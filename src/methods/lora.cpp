// LoRA: a trained low-rank update beside frozen projections and embedding tables.
#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

bool is_table(const Site& site) {
  return site.kind == SiteKind::Weight && site.weight == WeightKind::Table;
}

/// The tables of globs that select tables and no projection, and the projections of all others:
/// "*" means projections, "*.embed.tok" a table.
std::vector<Site> chosen_sites(Attachment& attachment, const std::vector<std::string>& globs) {
  std::vector<Site> tables;
  std::vector<std::string> others;
  for (const std::string& glob : globs) {
    bool projection = false, table = false;
    const std::vector<Site> matched = attachment.sites(glob);
    for (const Site& site : matched) {
      projection = projection || site.weight == WeightKind::Projection;
      table = table || is_table(site);
    }
    if (projection || !table) {
      others.push_back(glob);
      continue;
    }
    for (const Site& site : matched) {
      const bool seen = std::any_of(tables.begin(), tables.end(),
                                    [&](const Site& other) { return other.id == site.id; });
      if (is_table(site) && !seen) tables.push_back(site);
    }
  }
  std::vector<Site> result = projections(attachment, others, "lora");
  result.insert(result.end(), tables.begin(), tables.end());
  return result;
}

/// Initial A [rank, in] and B [out, rank].
struct Start {
  Tensor down, up;
  bool in_base = false;  // the weight holds scale * B A already: the update begins by removing it
};

/// The strongest directions of the weight: B = U sqrt(S / scale), A = sqrt(S / scale) V^T.
/// Reference: Meng et al. 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation
/// of Large Language Models", arXiv 2404.02948, equations 2 and 3.
Start pissa(const Tensor& weight, int64_t rank, double scale) {
  const std::tuple<Tensor, Tensor, Tensor> svd =
      at::linalg_svd(weight.detach().to(at::kDouble), false);
  const Tensor root = (std::get<1>(svd).slice(0, 0, rank) / scale).sqrt();
  return {root.reshape({-1, 1}) * std::get<2>(svd).slice(0, 0, rank),
          std::get<0>(svd).slice(1, 0, rank) * root, true};
}

/// An orthonormal basis of the weight's first columns: W = Q R, B = Q_r, A = R_r.
/// Reference: Buyukakyuz 2024, "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models",
/// arXiv 2406.01775, algorithm 1; the scale is left to the update, as PEFT does.
Start olora(const Tensor& weight, int64_t rank) {
  const std::tuple<Tensor, Tensor> qr = at::linalg_qr(weight.detach().to(at::kDouble), "reduced");
  return {std::get<1>(qr).slice(0, 0, rank), std::get<0>(qr).slice(1, 0, rank), true};
}

class Lora final : public Tuner {
 public:
  explicit Lora(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options, "rank", 1, true),
        alpha_(options, "alpha", 0, false),
        dropout_(options.get<double>("dropout")),
        lr_ratio_(options.get<double>("lr_ratio")),
        rslora_(options.get<bool>("rslora")),
        freeze_a_(options.get<bool>("freeze_a")),
        up_bias_(options.get<bool>("up_bias")),
        init_(options.get<std::string>("init")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites = chosen_sites(attachment, sites_);
    rank_.check(sites, "lora");
    alpha_.check(sites, "lora");
    for (const Site& site : sites) attach_to(attachment, site);
  }
  void prepare(const Pass&) override {
    for (const Biased& biased : biased_) biased.shift->by = biased.bias * biased.scale;
  }

 private:
  struct Biased {
    Shift* shift;
    Tensor bias;
    double scale;
  };
  Start start_of(Attachment& attachment, const Site& site, int64_t rank, double scale) const {
    // As PEFT begins embeddings: the table's side is zero, because its rows are looked up.
    if (is_table(site))
      return {attachment.zeros({rank, site.in}),
              attachment.normal(site, "up", {site.out, rank}, 1)};
    if (init_ == "pissa") return pissa(attachment.weight(site), rank, scale);
    if (init_ == "olora") return olora(attachment.weight(site), rank);
    const Tensor up = attachment.zeros({site.out, rank});
    if (init_ == "gaussian")
      return {attachment.normal(site, "down", {rank, site.in}, 1.0 / static_cast<double>(rank)),
              up};
    return {attachment.uniform(site, "down", {rank, site.in}, kaiming_bound(site.in)), up};
  }

  void check(const Site& site, int64_t rank) const {
    check_rank("lora", rank, site);
    if (!is_table(site)) return;
    if (up_bias_)
      fail(ErrorCode::BadInput,
           "lora: up_bias at {}: an embedding's update has none; leave the table out of sites, or "
           "up_bias",
           site.name);
    if (freeze_a_)
      fail(ErrorCode::BadInput,
           "lora: freeze_a at {}: an embedding's A begins at zero and must train; leave the table "
           "out of sites, or freeze_a",
           site.name);
    if (init_ != "default")
      fail(ErrorCode::BadInput,
           "lora: init {} at {}: embeddings have the default initial values only; leave the table "
           "out of sites, or init",
           init_, site.name);
  }

  void attach_to(Attachment& attachment, const Site& site) {
    const int64_t rank = rank_.whole_at(site);
    check(site, rank);
    const double scale = low_rank_scale(alpha_.at(site), rank, rslora_);
    const Start start = start_of(attachment, site, rank, scale);
    // LoRA+ raises the rate of B, which begins at zero; at a table that is A's part.
    Learn faster;
    faster.lr_scale = is_table(site) ? 1 : lr_ratio_;
    LowRank edit;
    edit.down = freeze_a_ ? attachment.buffer(site, "down", start.down)
                          : attachment.parameter(site, "down", start.down);
    edit.up = attachment.parameter(site, "up", start.up, faster);
    edit.scale = scale;
    edit.dropout = dropout_;
    // Differs: PiSSA and OLoRA store W - scale B A in place of W; here the base keeps W and a
    // frozen copy of the initial update is taken off it, so that the adapter can be removed.
    if (start.in_base) {
      LowRank initial;
      initial.down = attachment.buffer(site, "initial_down", edit.down.detach());
      initial.up = attachment.buffer(site, "initial_up", edit.up.detach());
      initial.scale = -scale;
      attachment.add(site, initial);
    }
    attachment.add(site, edit);
    if (!up_bias_) return;
    const Tensor bias = attachment.parameter(site, "up_bias", attachment.zeros({site.out}), faster);
    Shift& shift = std::get<Shift>(attachment.add(site, Shift{bias * scale}));
    biased_.push_back({&shift, bias, scale});
  }

  std::vector<std::string> sites_;
  ByPattern rank_, alpha_;
  double dropout_, lr_ratio_;
  bool rslora_, freeze_a_, up_bias_;
  std::string init_;
  std::vector<Biased> biased_;
};

std::vector<Option> lora_options() {
  return {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections that get an update (globs over site names); a glob that selects embedding "
       "tables and no projection takes the tables"},
      {"rank", "int", "8", "[1, inf)", "inner size"},
      {"alpha", "number", "16", "(0, inf)", "strength: the update is scaled by alpha / rank"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the update's input"},
      {"rslora", "bool", "false", "", "scale by alpha / sqrt(rank) instead"},
      {"lr_ratio", "number", "1", "(0, inf)",
       "learning rate of B over that of A (LoRA+; its authors propose 16 with a lower rate)"},
      {"freeze_a", "bool", "false", "", "train B only; A stays as drawn (LoRA-FA)"},
      {"up_bias", "bool", "false", "",
       "a trained vector joins what B gives, and is scaled with it (PEFT's lora_bias)"},
      {"init", "choice", "default", "default|gaussian|pissa|olora",
       "initial values: A uniform or gaussian and B zero; or the weight's own largest singular "
       "vectors (pissa) or orthonormal basis (olora), trained on from there"},
      {"rank_pattern", "map", "{}", "",
       "other ranks by site: glob to rank, the first match counts"},
      {"alpha_pattern", "map", "{}", "",
       "other strengths by site: glob to alpha, the first match counts"},
  };
}

}  // namespace

void register_lora(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "lora";
  entry.summary = "low-rank update beside frozen projections: y += alpha / rank * (x down^T) up^T";
  entry.reference =
      "Hu et al. 2021, \"LoRA: Low-Rank Adaptation of Large Language Models\", arXiv 2106.09685; "
      "rsLoRA: Kalajdzievski 2023, arXiv 2312.03732; LoRA+: Hayou et al. 2024, arXiv 2402.12354; "
      "LoRA-FA: Zhang et al. 2023, arXiv 2308.03303; PiSSA: Meng et al. 2024, arXiv 2404.02948; "
      "OLoRA: Buyukakyuz 2024, arXiv 2406.01775";
  entry.options = lora_options();
  entry.learning_rate = 2e-3;
  entry.tiny = "{rank: 2, alpha: 4}";
  entry.examples = {"{}",
                    "{rank: 16, alpha: 32, dropout: 0.05, sites: [\"*.[qkvo]\", \"*.ffn.*\"]}",
                    "{rank: 8, lr_ratio: 16}",
                    "{rank: 8, init: pissa}",
                    "{rank: 8, sites: [\"*.[qv]\", \"*.embed.tok\"]}",
                    "{rank: 8, sites: \"*.[qkvo]\", rank_pattern: {\"*.0.self.*\": 4}}"};
  entry.make = [](const Options& options) { return std::make_unique<Lora>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const ByPattern rank(options, "rank", 1, true);
    const bool freeze_a = options.get<bool>("freeze_a"), bias = options.get<bool>("up_bias");
    int64_t count = 0;
    for (const Site& site : sites)
      count +=
          rank.whole_at(site) * (freeze_a ? site.out : site.in + site.out) + (bias ? site.out : 0);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
