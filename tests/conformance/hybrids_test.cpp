// Exact statements of the unified view (He et al. 2022, arXiv 2110.04366) on a whole model.
#include <cmath>

#include "methods.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"

namespace attune {
namespace hybrids_test {

using namespace tiny;

std::unique_ptr<Model> classifier() {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  return model_of("bert", head);
}

/// Copies values between tensors whose names agree after the tuner's own part.
void copy_by_suffix(const Adaptation& from, const Adaptation& to) {
  std::map<std::string, Tensor> values;
  for (const std::pair<std::string, Tensor>& entry : from.tensors("default"))
    values[entry.first.substr(entry.first.find('/') + 1)] = entry.second;
  for (const std::pair<std::string, Tensor>& entry : to.tensors("default")) {
    entry.second.copy_(values.at(entry.first.substr(entry.first.find('/') + 1)));
    mark_changed(entry.second);
  }
}

TEST(Mam, EqualsItsTwoPartsAttachedOnTheirOwnInEitherOrder) {
  const Registry<Tuner> registry = methods();
  const std::unique_ptr<Model> model = classifier();
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const TunerSpec prefix{"prefix", Json{{"length", 2}, {"projection", true}, {"hidden", 4}}},
      parallel{"parallel_adapter", Json{{"size", 3}, {"scaling", 2}}};
  Tensor expected;
  std::unique_ptr<Adaptation> mam = std::make_unique<Adaptation>(*model, registry, 1);
  mam->add("default",
           {"mam", Json{{"prefix_length", 2}, {"hidden", 4}, {"size", 3}, {"scaling", 2}}});
  disturb(*mam);
  expected = logits(*model, batch);
  const std::unique_ptr<Model> other = classifier();
  for (const bool prefix_first : {true, false}) {
    Adaptation two(*other, registry, 7);
    two.add("default", prefix_first ? prefix : parallel);
    two.add("default", prefix_first ? parallel : prefix);
    copy_by_suffix(*mam, two);
    EXPECT_TRUE(same_bits(logits(*other, batch), expected)) << prefix_first;
  }
}

/// Attn(q, [P_k; K], [P_v; V]) = (1 - lambda) Attn(q, K, V) + lambda Attn(q, P_k, P_v) in every
/// head and sequence, equation 5 of the paper.
TEST(Prefix, IsAGatedSumOfAttentionOverTheTextAndOverThePrefix) {
  const std::unique_ptr<Model> model = classifier();
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const RowIndex& rows = batch.streams.at("enc").rows;
  const Tensor pk = noise("pk", {4, 16}, 1), pv = noise("pv", {4, 16}, 1);
  const Values before = everything(*model, batch);
  const Tensor x = before.at("enc.0.self.in"), text = before.at("enc.0.self.heads");
  const auto projected = [&](const char* name) {
    const WeightSlot& slot = model->slot(model->site(name));
    return attune::matmul(x, slot.weight, false, true) + slot.bias;
  };
  const Tensor q = projected("enc.0.self.q"), k = projected("enc.0.self.k");
  Edits edits(*model, [&](Attachment& attachment) {
    Extend edit;
    edit.keys = pk;
    edit.values = pv;
    edit.shift = false;
    attachment.add(attachment.sites("enc.0.self.kv")[0], edit);
  });
  const Tensor heads = everything(*model, batch).at("enc.0.self.heads");
  double worst = 0;
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    for (int64_t h = 0; h < 2; ++h) {
      const auto part = [&](const Tensor& t) {
        return t.narrow(0, rows.begin(b), rows.length(b)).narrow(1, h * 8, 8);
      };
      const auto scores = [&](const Tensor& keys) {
        return ((part(q).unsqueeze(1) * keys.unsqueeze(0)).sum(-1) / std::sqrt(8.0)).exp();
      };
      const Tensor to_prefix = scores(pk.narrow(1, h * 8, 8)), to_text = scores(part(k));
      const Tensor lambda = to_prefix.sum(1) / (to_prefix.sum(1) + to_text.sum(1));
      const Tensor over_prefix =
          (to_prefix.unsqueeze(-1) * pv.narrow(1, h * 8, 8)).sum(1) / to_prefix.sum(1).unsqueeze(1);
      const Tensor over_text = text.narrow(0, rows.begin(b), rows.length(b)).select(1, h);
      const Tensor expected =
          (1 - lambda).unsqueeze(1) * over_text + lambda.unsqueeze(1) * over_prefix;
      const Tensor got = heads.narrow(0, rows.begin(b), rows.length(b)).select(1, h);
      worst = std::max(worst, (got - expected).abs().max().item<double>());
    }
  }
  EXPECT_LE(worst, 1e-10);
}

TEST(ParallelAdapter, ScaledByOneIsThePlainOneAndLinearIsABypassMatrix) {
  const Registry<Tuner> registry = methods();
  const std::unique_ptr<Model> model = classifier();
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const Tensor input = everything(*model, batch).at("enc.0.ffn.in"),
               plain = everything(*model, batch).at("enc.0.ffn.out");
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", {"parallel_adapter", Json{{"sites", {"enc.0.ffn.out"}},
                                                      {"size", 3},
                                                      {"scaling", 4},
                                                      {"activation", "identity"}}});
  disturb(adaptation);
  std::map<std::string, Tensor> p;
  for (const std::pair<std::string, Tensor>& entry : adaptation.tensors("default"))
    p[entry.first.substr(entry.first.rfind('/') + 1)] = entry.second;
  const Tensor bypass = attune::matmul(p.at("up"), p.at("down"));
  Tensor expected = attune::matmul(input, bypass, false, true);
  if (p.count("down_bias") > 0)
    expected = expected + attune::matmul(p.at("down_bias").unsqueeze(0), p.at("up"), false, true);
  if (p.count("up_bias") > 0) expected = expected + p.at("up_bias");
  EXPECT_LE(distance(everything(*model, batch).at("enc.0.ffn.out"), plain + 4 * expected), 1e-12);
}

}  // namespace hybrids_test
}  // namespace attune
