// Decomposed prompt tuning (DePT), and with fusion and spaces efficient prompt tuning (EPT): a
// short prompt in front, a low-rank update of the token rows by position behind it.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/sequences.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace {

struct Choices {
  int64_t length, rank, max_length, fusion_dim, spaces, space_dim;
  double alpha, low_rank_lr;
  std::string init, text, fusion, gate;
  bool pooled;
  explicit Choices(const Options& o)
      : length(o.get<int64_t>("length")),
        rank(o.get<int64_t>("rank")),
        max_length(o.get<int64_t>("max_length")),
        fusion_dim(o.get<int64_t>("fusion_dim")),
        spaces(o.get<int64_t>("spaces")),
        space_dim(o.get<int64_t>("space_dim")),
        alpha(o.get<double>("alpha")),
        low_rank_lr(o.get<double>("low_rank_lr")),
        init(o.get<std::string>("init")),
        text(o.get<std::string>("text")),
        fusion(o.get<std::string>("fusion")),
        gate(o.get<std::string>("gate")),
        pooled(o.get<bool>("pooled")) {}
};

/// The tensors at one site. A [max_length, rank], B [rank, d], P [length, d].
struct Parts {
  Tensor prompt, a, b;
  Tensor query, key, value,
      out;          // fusion by attention: [fusion_dim, d] three times, [d, fusion_dim]
  Tensor strength;  // fusion by a scalar: [1]
  std::vector<Tensor> down, up;   // spaces: [space_dim, d] and [d, space_dim]
  Tensor gate_weight, gate_bias;  // [spaces, d], [spaces]
};

/// softmax(q k^T / sqrt(width)) v
Tensor attended(const Tensor& q, const Tensor& k, const Tensor& v) {
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(1)));
  return attune::matmul((attune::matmul(q, k, false, true) * scale).softmax(-1), v);
}

/// P_f = P + softmax((P W_q)(K W_k)^T / sqrt(d_f)) (K W_v) W_o with K = A B.
Tensor fused(const Parts& p) {
  if (!p.a.defined() || !(p.query.defined() || p.strength.defined())) return p.prompt;
  const Tensor knowledge = attune::matmul(p.a, p.b);
  if (p.strength.defined()) return p.prompt + p.strength * attended(p.prompt, knowledge, knowledge);
  const Tensor h = attended(attune::matmul(p.prompt, p.query, false, true),
                            attune::matmul(knowledge, p.key, false, true),
                            attune::matmul(knowledge, p.value, false, true));
  return p.prompt + attune::matmul(h, p.out, false, true);
}

/// P* = P_f + sum over spaces of g_m U_m gelu(D_m P_f), g = softmax(W_g x + b_g) of the rows' mean
/// or of each row.
Tensor reconstructed(const Parts& p, bool by_row) {
  const Tensor x = fused(p);
  if (p.down.empty()) return x;
  const Tensor seen = by_row ? x : x.mean(0, true);
  const Tensor gates = (attune::matmul(seen, p.gate_weight, false, true) + p.gate_bias).softmax(-1);
  Tensor sum = x;
  for (size_t m = 0; m < p.down.size(); ++m) {
    const Tensor inner = at::gelu(attune::matmul(x, p.down[m], false, true));
    sum = sum +
          gates.narrow(1, static_cast<int64_t>(m), 1) * attune::matmul(inner, p.up[m], false, true);
  }
  return sum;
}

class DecomposedPrompt final : public Tuner {
 public:
  explicit DecomposedPrompt(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")), choices_(options) {
    const Choices& c = choices_;
    if (c.fusion != "none" && c.rank == 0)
      fail(ErrorCode::BadInput,
           "{}: fusion: {} lets the rows in front attend to the update, which rank 0 leaves out; "
           "give a rank of at least 1, or fusion: none",
           options.where("fusion"), c.fusion);
    if (c.length == 0 && (c.fusion != "none" || c.spaces > 0))
      fail(ErrorCode::BadInput,
           "{}: length 0 leaves no row in front for {}; give a length of at least 1, or leave that "
           "out",
           options.where("length"), c.fusion != "none" ? "fusion" : "spaces");
    if (c.gate == "row" && c.spaces == 0)
      fail(ErrorCode::BadInput,
           "{}: gate: row mixes projections into subspaces, but spaces is 0; give spaces (EPT: 4), "
           "or leave `gate` out",
           options.where("gate"));
  }

  void check(const RunLimits& limits) const override {
    if (choices_.rank > 0 && limits.rows > choices_.max_length)
      log_warning(
          "decomposed_prompt: texts may have {} tokens (data.max_length), but only the first {} "
          "have an update; raise max_length, or lower data.max_length",
          limits.rows, choices_.max_length);
  }

  void attach(Attachment& attachment) override {
    for (const Site& site : flow_sites(attachment, sites_, SiteKind::Rows, "decomposed_prompt")) {
      Attached attached;
      attached.parts = make(attachment, site);
      if (choices_.rank > 0) attachment.add(site, update(attached.parts));
      Extend edit;
      edit.rows = attached.parts.prompt;
      edit.pooled = choices_.pooled;
      attached.edit = &attachment.add(site, edit);
      attached_.push_back(std::move(attached));
    }
  }

  void prepare(const Pass&) override {
    for (Attached& attached : attached_)
      std::get<Extend>(*attached.edit).rows = reconstructed(attached.parts, choices_.gate == "row");
  }

 private:
  struct Attached {
    Parts parts;
    Edit* edit = nullptr;
  };

  /// E' = E + alpha / sqrt(rank) * (A B), row by position in the text; rows past max_length have
  /// none.
  Apply update(const Parts& parts) const {
    const double scale = choices_.alpha / std::sqrt(static_cast<double>(choices_.rank));
    return Apply{[a = parts.a, b = parts.b, scale](const View& view) {
                   std::vector<int64_t> place;
                   for (int64_t s = 0; s < view.rows.sequences(); ++s)
                     for (int64_t i = 0; i < view.rows.length(s); ++i)
                       place.push_back(std::min(i, a.size(0)));
                   const Tensor padded = at::cat({a, at::zeros({1, a.size(1)}, a.options())});
                   const Tensor rows =
                       attune::matmul(padded.index_select(0, int64_tensor(place)), b);
                   return view.x + cast(rows * scale, view.x.scalar_type());
                 },
                 {}};
  }

  Parts make(Attachment& attachment, const Site& site) const {
    const Choices& c = choices_;
    const int64_t d = site.in;
    const int64_t most = std::min(c.max_length, d);
    if (c.rank > most)
      fail(ErrorCode::BadInput,
           "decomposed_prompt: rank {} at {} is larger than the update [{}, {}]; give a rank of at "
           "most {}",
           c.rank, site.name, c.max_length, d, most);
    Parts p;
    const auto drawn = [&](const std::string& name, const std::vector<int64_t>& shape, int64_t in,
                           Learn learn = {}) {
      return attachment.parameter(site, name,
                                  attachment.uniform(site, name, shape, kaiming_bound(in)), learn);
    };
    p.prompt = attachment.parameter(site, "prompt",
                                    first_prompt(attachment, site, c.length, c.init, c.text));
    Learn slow;
    slow.lr_scale = c.low_rank_lr;
    if (c.rank > 0) {
      p.a = drawn("a", {c.max_length, c.rank}, c.rank, slow);
      p.b = attachment.parameter(site, "b", attachment.zeros({c.rank, d}), slow);
    }
    if (c.rank > 0 && c.fusion == "attention") {
      p.query = drawn("query", {c.fusion_dim, d}, d);
      p.key = drawn("key", {c.fusion_dim, d}, d);
      p.value = drawn("value", {c.fusion_dim, d}, d);
      p.out = attachment.parameter(site, "out", attachment.zeros({d, c.fusion_dim}));
    }
    if (c.rank > 0 && c.fusion == "scalar")
      p.strength = attachment.parameter(site, "strength", attachment.zeros({1}));
    for (int64_t m = 0; m < c.spaces; ++m) {
      p.down.push_back(drawn(format("down{}", m), {c.space_dim, d}, d));
      p.up.push_back(
          attachment.parameter(site, format("up{}", m), attachment.zeros({d, c.space_dim})));
    }
    if (c.spaces > 0) {
      p.gate_weight = attachment.parameter(
          site, "gate_weight", attachment.normal(site, "gate_weight", {c.spaces, d}, 0.02));
      p.gate_bias = attachment.parameter(site, "gate_bias", attachment.zeros({c.spaces}));
    }
    return p;
  }

  std::vector<std::string> sites_;
  Choices choices_;
  std::vector<Attached> attached_;
};

int64_t decomposed_count(const std::vector<Site>& sites, const Options& options) {
  const Choices c(options);
  int64_t count = 0;
  for (const Site& site : sites) {
    const int64_t d = site.in;
    count += c.length * d + c.rank * (c.max_length + d);
    if (c.rank > 0 && c.fusion == "attention") count += 4 * d * c.fusion_dim;
    if (c.rank > 0 && c.fusion == "scalar") count += 1;
    count += c.spaces * (2 * d * c.space_dim) + c.spaces * (d + 1);
  }
  return count;
}

}  // namespace

void register_decomposed_prompt(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "decomposed_prompt";
  entry.summary =
      "a short prompt and a low-rank update of the token rows by position; with fusion and several "
      "spaces";
  entry.reference =
      "Shi and Lipani 2024, \"DePT: Decomposed Prompt Tuning\", arXiv 2309.05173; Lan et al. 2025, "
      "\"Efficient Prompt Tuning by Multi-Space Projection and Prompt Fusion\", arXiv 2405.11464";
  entry.options = {
      {"sites", "globs", "auto", "",
       "token rows that are changed; auto: the first stack's, before positions join them"},
      {"length", "int", "10", "[0, inf)", "trained rows in front"},
      {"rank", "int", "8", "[0, inf)", "inner size of the update of the token rows; 0: none"},
      {"max_length", "int", "256", "[1, inf)",
       "positions that have an update; what a text has beyond them stays as it is"},
      {"alpha", "number", "8", "(0, inf)", "strength: the update is scaled by alpha / sqrt(rank)"},
      {"low_rank_lr", "number", "0.1", "(0, inf)", "learning rate of the update, relative"},
      {"init", "choice", "auto", "auto|random|vocab|text",
       "first values of the rows in front, as for prompt"},
      {"text", "string", "\"\"", "", "the words that init: text begins from"},
      {"fusion", "choice", "none", "none|attention|scalar",
       "let the rows in front attend to the update (EPT): with projections, or one strength"},
      {"fusion_dim", "int", "16", "[1, inf)", "width of those projections"},
      {"spaces", "int", "0", "[0, inf)", "projections into subspaces that a gate mixes (EPT: 4)"},
      {"space_dim", "int", "8", "[1, inf)", "inner width of each"},
      {"gate", "choice", "prompt", "prompt|row", "one gate for the prompt, or one a row"},
      {"pooled", "bool", "false", "",
       "a head that pools the first row takes the first trained row"},
  };
  entry.learning_rate = 1e-2;
  entry.rate_by_width = false;
  entry.identity_at_start = false;
  entry.tiny =
      "{length: 3, rank: 2, max_length: 5, fusion: attention, fusion_dim: 4, spaces: 2, space_dim: "
      "3}";
  entry.examples = {"{}", "{length: 40, rank: 45, fusion: attention, spaces: 4}"};
  entry.make = [](const Options& options) { return std::make_unique<DecomposedPrompt>(options); };
  entry.count = decomposed_count;
  registry.add(std::move(entry));
}

}  // namespace attune
