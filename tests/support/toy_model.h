#pragma once
// A small model over core alone: token mixing by a gate in place of attention, everything in double
// precision. It publishes the sites that methods and policies look for.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "core/attachment.h"
#include "core/forward.h"
#include "kernels/ops/rowwise.h"
#include "kernels/ops/word_loss.h"
#include "tensor/torch.h"

namespace attune {

class ToyModel final : public Model {
 public:
  static constexpr int64_t kVocabulary = 23, kWidth = 6, kInner = 10;

  explicit ToyModel(int layers = 2, double dropout = 0, int64_t labels = 3)
      : layers_(layers), dropout_(dropout) {
    numerics_.compute = kernels::DType::F64;
    weight("enc.embed.tok", WeightKind::Table, kVocabulary, kWidth, -1);
    weight("enc.embed.norm", WeightKind::Norm, kWidth, kWidth, -1);
    flow("enc.embed.out", kWidth, -1);
    for (int layer = 0; layer < layers; ++layer) {
      const std::string at = "enc." + std::to_string(layer) + ".";
      for (const char* part : {"self.q", "self.k", "self.v", "self.o"})
        weight(at + part, WeightKind::Projection, kWidth, kWidth, layer);
      weight(at + "self.norm", WeightKind::Norm, kWidth, kWidth, layer);
      weight(at + "ffn.up", WeightKind::Projection, kWidth, kInner, layer);
      weight(at + "ffn.gate", WeightKind::Projection, kWidth, kInner, layer);
      weight(at + "ffn.down", WeightKind::Projection, kInner, kWidth, layer);
      weight(at + "ffn.norm", WeightKind::Norm, kWidth, kWidth, layer);
      flow(at + "resid.out", kWidth, layer);
    }
    weight("head.proj", WeightKind::Projection, kWidth, labels, -1);
    slot(site("head.proj")).fresh = true;
    flow("logits", labels, -1);
  }

  Output forward(const Batch& batch, const Want& want) override {
    ++forwards;
    const std::shared_ptr<Forward> pass = std::make_shared<Forward>(*this, batch, want);
    const Stream& input = batch.streams.at("enc");
    pass->enter("enc", input.rows);
    Tensor x = pass->gather(id("enc.embed.tok"), input.ids);
    x = norm(*pass, "enc.embed.norm", x);
    const int out = id("enc.embed.out");
    x = pass->at(out, dropout(x, pass->drop(out, dropout_)));
    for (int layer = 0; layer < layers_; ++layer)
      x = block(*pass, "enc." + std::to_string(layer) + ".", x);
    const Tensor pooled = pool(kernels::Pool::Mean, x, pass->rows());
    pass->enter_pooled();
    Output output;
    output.head = std::make_unique<ToyHead>(pass, id("head.proj"), id("logits"), pooled);
    output.captured = pass->take_captured();
    return output;
  }

  int forwards = 0;  // passes so far

 private:
  class ToyHead final : public Head {
   public:
    ToyHead(std::shared_ptr<Forward> pass, int projection, int logits, Tensor features)
        : pass_(std::move(pass)),
          projection_(projection),
          logits_(logits),
          features_(std::move(features)) {}
    Tensor logits(const Tensor&) const override {
      return pass_->at(logits_, pass_->project(projection_, features_));
    }
    Score cross_entropy(const Tensor& labels, const Tensor& weights,
                        double smoothing) const override {
      const CrossEntropy loss = attune::cross_entropy(logits(Tensor()), labels, weights, smoothing);
      return {loss.sum, loss.count};
    }
    Tensor row_losses(const Tensor& labels) const override {
      return attune::row_losses(logits(Tensor()), labels);
    }

   private:
    std::shared_ptr<Forward> pass_;  // shared with nothing else once forward returned
    int projection_, logits_;
    Tensor features_;
  };

  int id(const std::string& name) const { return site(name).id; }
  void weight(const std::string& name, WeightKind kind, int64_t in, int64_t out, int layer) {
    Site made;
    made.name = name;
    made.weight = kind;
    made.in = in;
    made.out = out;
    made.layer = layer;
    made.bias = kind != WeightKind::Table;
    WeightSlot& slot =
        slot_at(static_cast<size_t>(sites_[static_cast<size_t>(add_site(made))].storage));
    std::vector<int64_t> shape{out};
    if (kind == WeightKind::Projection) shape = {out, in};
    if (kind == WeightKind::Table) shape = {in, out};
    slot.weight = values(name + "/weight", shape, 0.6);
    if (kind == WeightKind::Norm) slot.weight = slot.weight * 0.2 + 1.0;
    if (made.bias) slot.bias = values(name + "/bias", {out}, 0.1);
  }
  void flow(const std::string& name, int64_t width, int layer) {
    Site made;
    made.name = name;
    made.kind = SiteKind::Rows;
    made.in = made.out = width;
    made.layer = layer;
    add_site(made);
  }
  static Tensor values(const std::string& name, const std::vector<int64_t>& shape, double spread) {
    return normal_tensor(Stream64(17, "toy").with(name).key(), shape, spread, at::kDouble);
  }
  Tensor norm(Forward& pass, const std::string& name, const Tensor& x) {
    return pass.norm(id(name), kernels::NormKind::Layer, 1e-5, x).y;
  }
  Tensor block(Forward& pass, const std::string& at, const Tensor& x) {
    const Tensor gate = at::tanh(pass.project(id(at + "self.q"), x));
    const Tensor mixed =
        gate * pass.project(id(at + "self.k"), x) + pass.project(id(at + "self.v"), x);
    const Tensor middle = norm(pass, at + "self.norm", x + pass.project(id(at + "self.o"), mixed));
    const Tensor inner = at::tanh(pass.project(id(at + "ffn.gate"), middle)) *
                         pass.project(id(at + "ffn.up"), middle);
    const Tensor y = norm(pass, at + "ffn.norm", middle + pass.project(id(at + "ffn.down"), inner));
    return pass.at(id(at + "resid.out"), y);
  }

  int layers_;
  double dropout_;
};

/// Sequences first, first + 1, ... of one fixed list, packed, with labels.
inline Batch toy_batch(int64_t first, int64_t count) {
  Batch batch;
  std::vector<int32_t> ids;
  std::vector<int64_t> lengths, labels, examples;
  for (int64_t b = first; b < first + count; ++b) {
    const int64_t length = 2 + b % 4;
    lengths.push_back(length);
    labels.push_back(b % 3);
    examples.push_back(b);
    for (int64_t r = 0; r < length; ++r)
      ids.push_back(static_cast<int32_t>((7 * b + 3 * r) % ToyModel::kVocabulary));
  }
  batch.streams["enc"].ids = int32_tensor(ids);
  batch.streams["enc"].rows = RowIndex::from_lengths(lengths);
  batch.fields["labels"] = int64_tensor(labels);
  batch.fields["example"] = int64_tensor(examples);
  return batch;
}

}  // namespace attune
