// UniPELT: prefix, low-rank update and adapter together, each behind a gate of its own.
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/sequences.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace {

struct Gate {
  Tensor weight, bias;
};

/// The gate of each row's sequence: [rows, 1].
Tensor row_gate(const Tensor& x, const Gate& gate, const RowIndex& rows) {
  return sequence_gate(x, gate.weight, gate.bias, rows).index_select(0, sequence_of_rows(rows));
}

class UniPelt final : public Tuner {
 public:
  explicit UniPelt(const Options& options)
      : prefix_(options.get<int64_t>("prefix_length")),
        rank_(options.get<int64_t>("rank")),
        size_(options.get<int64_t>("adapter_size")),
        alpha_(options.get<double>("alpha")),
        sites_(options.get<std::vector<std::string>>("sites")) {}

  void attach(Attachment& attachment) override {
    if (prefix_ == 0 && rank_ == 0 && size_ == 0)
      fail(
          ErrorCode::BadInput,
          "unipelt: prefix_length, rank and adapter_size are all 0; give at least one of the three "
          "parts a size");
    if (rank_ > 0)
      for (const Site& site : projections(attachment, sites_, "unipelt"))
        attach_low_rank(attachment, site);
    for (const Site& site : attachment.all_sites()) {
      if (prefix_ > 0 && site.kind == SiteKind::KeyValue && ends_with(site.name, ".self.kv"))
        attach_prefix(attachment, site);
      if (size_ > 0 && site.kind == SiteKind::Rows && site.copy_of < 0 &&
          ends_with(site.name, ".ffn.out"))
        attach_adapter(attachment, site);
    }
  }

 private:
  static Gate make_gate(Attachment& attachment, const Site& site, const Site& input) {
    return {attachment.parameter(
                site, "gate_weight",
                attachment.uniform(site, "gate_weight", {1, input.in}, kaiming_bound(input.in))),
            attachment.parameter(site, "gate_bias", attachment.zeros({1}))};
  }
  static const Site& input_of(Attachment& attachment, const Site& site, const char* point) {
    const Site* input = find_site(attachment.all_sites(), block_of(site) + point);
    if (input == nullptr)
      fail(ErrorCode::BadInput, "unipelt: the model has no site {}{} to compute a gate from",
           block_of(site), point);
    return *input;
  }

  void attach_low_rank(Attachment& attachment, const Site& site) const {
    check_rank("unipelt", rank_, site);
    LowRank edit;
    edit.down = attachment.parameter(
        site, "down", attachment.uniform(site, "down", {rank_, site.in}, kaiming_bound(site.in)));
    edit.up = attachment.parameter(site, "up", attachment.zeros({site.out, rank_}));
    edit.scale = alpha_ / static_cast<double>(rank_);
    const Gate gate = make_gate(attachment, site, site);
    edit.gate = [gate](const View& view) { return row_gate(view.x, gate, view.rows); };
    attachment.add(site, edit);
  }

  void attach_prefix(Attachment& attachment, const Site& site) const {
    const Site& input = input_of(attachment, site, "self.in");
    Extend edit;
    edit.shift = false;
    edit.keys = attachment.parameter(site, "keys",
                                     attachment.normal(site, "keys", {prefix_, site.in}, 0.02));
    edit.values = attachment.parameter(site, "values",
                                       attachment.normal(site, "values", {prefix_, site.in}, 0.02));
    const Gate gate = make_gate(attachment, input, input);
    edit.reads = {input.name};
    edit.gate = [gate, name = input.name](const View& view) {
      return sequence_gate(view.reads.at(name), gate.weight, gate.bias, view.rows);
    };
    attachment.add(site, edit);
  }

  void attach_adapter(Attachment& attachment, const Site& site) const {
    const Site& input = input_of(attachment, site, "ffn.in");
    const Gate gate = make_gate(attachment, input, input);
    const Tensor down = attachment.parameter(
        site, "adapter_down",
        attachment.uniform(site, "adapter_down", {size_, site.in}, kaiming_bound(site.in)));
    const Tensor down_bias =
        attachment.parameter(site, "adapter_down_bias", attachment.zeros({size_}));
    const Tensor up = attachment.parameter(site, "adapter_up", attachment.zeros({site.in, size_}));
    const Tensor up_bias =
        attachment.parameter(site, "adapter_up_bias", attachment.zeros({site.in}));
    attachment.add(site, Apply{[=, name = input.name](const View& view) {
                                 const Tensor x = cast(view.x, down.scalar_type());
                                 const Tensor inner =
                                     (attune::matmul(x, down, false, true) + down_bias).relu();
                                 const Tensor y = attune::matmul(inner, up, false, true) + up_bias;
                                 const Tensor by = row_gate(view.reads.at(name), gate, view.rows);
                                 return view.x + cast(y * by, view.x.scalar_type());
                               },
                               {input.name}});
  }

  int64_t prefix_, rank_, size_;
  double alpha_;
  std::vector<std::string> sites_;
};

int64_t unipelt_count(const std::vector<Site>& sites, const Options& options) {
  const int64_t prefix = options.get<int64_t>("prefix_length"), rank = options.get<int64_t>("rank"),
                size = options.get<int64_t>("adapter_size");
  int64_t count = 0;
  for (const Site& site : sites) {
    if (site.kind == SiteKind::KeyValue) count += 2 * prefix * site.in;
    if (site.kind == SiteKind::Weight) count += rank * (site.in + site.out) + site.in + 1;
    if (site.kind != SiteKind::Rows) continue;
    if (ends_with(site.name, ".in")) count += site.in + 1;  // the gate of a prefix or an adapter
    if (ends_with(site.name, ".out")) count += 2 * size * site.in + size + site.in;
  }
  return count;
}

}  // namespace

void register_unipelt(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "unipelt";
  entry.summary = "prefix, low-rank update and adapter together, each behind a gate a sequence";
  entry.reference =
      "Mao et al. 2022, \"UniPELT: A Unified Framework for Parameter-Efficient Language Model "
      "Tuning\", arXiv 2110.07577";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "", "projections that get a low-rank update"},
      {"prefix_length", "int", "10", "[0, inf)",
       "keys and values in every self-attention; 0: none"},
      {"rank", "int", "8", "[0, inf)", "inner size of the low-rank update; 0: none"},
      {"alpha", "number", "16", "(0, inf)", "its strength: alpha / rank"},
      {"adapter_size", "int", "48", "[0, inf)",
       "inner width of the adapter after each feed-forward part; 0: none"},
  };
  entry.learning_rate = 5e-4;
  entry.identity_at_start = false;
  entry.tiny = "{prefix_length: 2, rank: 2, adapter_size: 3}";
  entry.examples = {"{}", "{prefix_length: 0, rank: 16, adapter_size: 16}"};
  entry.make = [](const Options& options) { return std::make_unique<UniPelt>(options); };
  entry.count = unipelt_count;
  registry.add(std::move(entry));
}

}  // namespace attune
