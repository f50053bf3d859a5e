// Rows of a trained table that are behind are asked for by whoever reads them.
#include "tensor/late_rows.h"

#include <gtest/gtest.h>

#include <set>

#include "arch/load.h"
#include "core/adaptation.h"
#include "methods/registry.h"
#include "nn/transformer.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace late_rows_test {

struct Recorder final : LateRows {
  std::set<int32_t> rows;
  int all = 0;
  void bring(const int32_t* from, int64_t count) override { rows.insert(from, from + count); }
  void bring_all() override { ++all; }
};

/// What one pass through a decoder, every weight of which trains, asks of its word table.
Recorder asked(bool tied, std::set<int32_t>* ids) {
  Json config = architectures().at("llama").make(Options())->tiny_config();
  config["tie_word_embeddings"] = tied;
  LoadOptions options;
  options.numerics.compute = kernels::DType::F64;
  options.head.kind = HeadKind::Lm;
  const std::unique_ptr<Model> model = init_model(config, "tiny.json", options);
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", {"full", Json::object()});
  Recorder recorder;
  std::vector<Tensor> late;
  for (const Param& param : adaptation.trainable())
    if (param.name.find("embed") != std::string::npos) late.push_back(param.value);
  EXPECT_FALSE(late.empty());
  for (const Tensor& table : late) set_late(table, &recorder);
  const Batch batch = made_up_batch(dynamic_cast<Transformer&>(*model).spec(), {3, 5}, 1);
  const Tensor read = batch.streams.begin()->second.ids;
  ids->insert(pointer<const int32_t>(read), pointer<const int32_t>(read) + read.numel());
  const Output output = model->forward(batch, Want());
  output.head->logits(Tensor());
  output.head->row_losses(at::zeros({read.numel()}, at::kLong));
  for (const Tensor& table : late) set_late(table, nullptr);
  model->forward(batch, Want());  // asks nobody
  return recorder;
}

TEST(LateRows, ALookupAsksForItsRowsAndATiedHeadForAll) {
  std::set<int32_t> ids;
  const Recorder apart = asked(false, &ids);
  EXPECT_EQ(apart.rows, ids);
  EXPECT_EQ(apart.all, 0);
  const Recorder tied = asked(true, &ids);
  EXPECT_EQ(tied.rows, ids);
  EXPECT_EQ(tied.all, 2) << "for its logits and for a loss that has none";
}

}  // namespace late_rows_test
}  // namespace attune
