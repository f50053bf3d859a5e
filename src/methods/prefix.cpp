// Prefix tuning: trained keys and values in front of those of the text.
#include "base/error.h"
#include "base/text.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/sequences.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// "enc.self" of "enc.3.self.kv": attentions of one kind share a network.
std::string kind_of(const Site& site) {
  const std::string block = block_of(site);
  const std::string stack = block.substr(0, block.find('.'));
  const std::string part = site.name.substr(block.size());
  return stack + "." + part.substr(0, part.find('.'));
}

class Prefix final : public Tuner {
 public:
  explicit Prefix(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        length_(options.get<int64_t>("length")),
        hidden_(options.get<int64_t>("hidden")),
        projection_(options.get<bool>("projection")),
        gated_(options.get<bool>("gated")),
        learn_{options.get<double>("lr_scale"), -1, {}},
        shift_(options.get<bool>("shift_positions")) {}

  void attach(Attachment& attachment) override {
    for (const Site& site : flow_sites(attachment, sites_, SiteKind::KeyValue, "prefix")) {
      Extend edit;
      edit.shift = shift_;
      if (!projection_) {
        edit.keys = direct(attachment, site, "keys");
        edit.values = direct(attachment, site, "values");
      } else {
        edit.keys = edit.values = attachment.zeros({length_, site.in});
      }
      if (gated_) add_gate(attachment, site, edit);
      Edit* added = &attachment.add(site, edit);
      if (projection_) networks_[kind_of(site)].edits.emplace_back(added, site.in);
    }
    for (std::pair<const std::string, Network>& entry : networks_)
      attach_network(attachment, entry.first, entry.second);
  }

  void prepare(const Pass&) override {
    for (std::pair<const std::string, Network>& entry : networks_) {
      const Network& n = entry.second;
      const Tensor inner = (attune::matmul(n.embedding, n.in, false, true) + n.in_bias).tanh();
      const Tensor all = attune::matmul(inner, n.out, false, true) + n.out_bias;
      int64_t column = 0;
      for (const std::pair<Edit*, int64_t>& edit : n.edits) {
        Extend& extend = std::get<Extend>(*edit.first);
        extend.keys = all.narrow(1, column, edit.second);
        extend.values = all.narrow(1, column + edit.second, edit.second);
        column += 2 * edit.second;
      }
    }
  }

 private:
  struct Network {
    Tensor embedding, in, in_bias, out, out_bias;
    std::vector<std::pair<Edit*, int64_t>> edits;  // and the width of their keys
  };

  /// Differs: N(0, 0.02^2), where PEFT and Adapters draw from N(0, 1): the rate of `lr: auto` is
  /// for this start, from which attention first sees nearly empty rows and not noise as large as
  /// the text's own keys and values.
  Tensor direct(Attachment& attachment, const Site& site, const char* name) const {
    return attachment.parameter(site, name, attachment.normal(site, name, {length_, site.in}, 0.02),
                                learn_);
  }

  void attach_network(Attachment& attachment, const std::string& kind, Network& network) const {
    const int64_t d = network.edits[0].second;
    int64_t out = 0;
    for (const std::pair<Edit*, int64_t>& edit : network.edits) out += 2 * edit.second;
    const Site shared = Site::shared();
    const auto made = [&](const char* part, const std::vector<int64_t>& shape, double bound) {
      const std::string name = kind + "." + part;
      return attachment.parameter(shared, name, attachment.uniform(shared, name, shape, bound),
                                  learn_);
    };
    const std::string name = kind + ".embedding";
    network.embedding = attachment.parameter(
        shared, name, attachment.normal(shared, name, {length_, d}, 1), learn_);
    network.in = made("in_weight", {hidden_, d}, kaiming_bound(d));
    network.in_bias = made("in_bias", {hidden_}, kaiming_bound(d));
    network.out = made("out_weight", {out, hidden_}, kaiming_bound(hidden_));
    network.out_bias = made("out_bias", {out}, kaiming_bound(hidden_));
  }

  /// One number a sequence, from what goes into the attention.
  static void add_gate(Attachment& attachment, const Site& site, Extend& edit) {
    const std::string input = site.name.substr(0, site.name.rfind('.')) + ".in";
    const Site* rows = find_site(attachment.all_sites(), input);
    if (rows == nullptr)
      fail(ErrorCode::BadInput,
           "prefix: gated: {} has no input rows to compute a gate from; leave `gated` out there",
           site.name);
    const Tensor weight = attachment.parameter(
        *rows, "gate_weight",
        attachment.uniform(*rows, "gate_weight", {1, rows->in}, kaiming_bound(rows->in)));
    const Tensor bias = attachment.parameter(*rows, "gate_bias", attachment.zeros({1}));
    edit.reads = {input};
    edit.gate = [weight, bias, input](const View& view) {
      return sequence_gate(view.reads.at(input), weight, bias, view.rows);
    };
  }

  std::vector<std::string> sites_;
  int64_t length_, hidden_;
  bool projection_, gated_;
  Learn learn_;  // of what makes the keys and values
  bool shift_;
  std::map<std::string, Network> networks_;
};

int64_t prefix_count(const std::vector<Site>& sites, const Options& options) {
  const int64_t length = options.get<int64_t>("length"), hidden = options.get<int64_t>("hidden");
  int64_t direct = 0, gates = 0;
  std::map<std::string, std::pair<int64_t, int64_t>> kinds;  // width, sum of 2 * widths
  for (const Site& site : sites) {
    if (site.kind == SiteKind::Rows) gates += site.in + 1;
    if (site.kind != SiteKind::KeyValue) continue;
    direct += 2 * length * site.in;
    kinds[kind_of(site)].first = site.in;
    kinds[kind_of(site)].second += 2 * site.in;
  }
  if (!options.get<bool>("projection")) return direct + gates;
  int64_t count = gates;
  for (const std::pair<const std::string, std::pair<int64_t, int64_t>>& kind : kinds) {
    const int64_t d = kind.second.first, out = kind.second.second;
    count += length * d + hidden * (d + 1) + out * (hidden + 1);
  }
  return count;
}

}  // namespace

void register_prefix(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "prefix";
  entry.summary = "trained keys and values in front of those of the text, in every attention";
  entry.reference =
      "Li and Liang 2021, \"Prefix-Tuning: Optimizing Continuous Prompts for Generation\", arXiv "
      "2101.00190, equation 3";
  entry.options = {
      {"sites", "globs", "\"*.kv\"", "", "attentions that get a prefix (globs over site names)"},
      {"length", "int", "30", "[0, inf)", "keys and values a site"},
      {"projection", "bool", "false", "",
       "make them by a network from embeddings: dense, tanh, dense; one network a kind of "
       "attention"},
      {"hidden", "int", "800", "[1, inf)", "inner width of that network"},
      {"gated", "bool", "false", "",
       "multiply a site's prefix by a gate: mean over the text of sigmoid(w x + b)"},
      {"lr_scale", "number", "1", "(0, inf)",
       "learning rate of what makes the keys and values over that of the method"},
      {"shift_positions", "bool", "false", "",
       "positions of the text count on from the prefix, as PEFT's past keys make them"},
  };
  entry.learning_rate = 3e-2;
  entry.rate_by_width = false;
  entry.identity_at_start = false;
  entry.tiny = "{length: 3, projection: true, hidden: 4, gated: true}";
  entry.examples = {"{}", "{length: 16, projection: true, hidden: 512}",
                    "{sites: \"dec.*.kv\", length: 200}"};
  entry.make = [](const Options& options) { return std::make_unique<Prefix>(options); };
  entry.count = prefix_count;
  registry.add(std::move(entry));
}

}  // namespace attune
