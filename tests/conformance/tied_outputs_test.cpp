// Training the output of a model that ties it to its embeddings.
#include "methods.h"

namespace attune {
namespace tied_outputs_test {

using namespace tiny;

std::unique_ptr<Model> decoder(bool tied) {
  HeadRequest head;
  head.kind = HeadKind::Lm;
  std::unique_ptr<Model> model =
      model_of("llama", head, kernels::DType::F64, Json{{"tie_word_embeddings", tied}});
  for (size_t i = 0; i < model->slots(); ++i) model->slot_at(i).fresh = false;
  return model;
}

std::string refusal(Model& model, const TunerSpec& spec) {
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(model, registry, 1);
  return error_text(ErrorCode::BadInput, [&] {
    adaptation.add("default", spec);
    adaptation.check_outputs("default");
  });
}

TEST(TiedOutputs, AreNotTrainedWithoutTheEmbeddings) {
  const std::unique_ptr<Model> tied = decoder(true);
  EXPECT_EQ(
      refusal(*tied, {"head", Json::object()}),
      "0.head: head.proj and dec.embed.tok are one tensor in this model (tied embeddings), so "
      "training the output alone would train the embeddings too; choose both, as in full: "
      "{sites: [\"head.*\", \"dec.embed.tok\"]}, or let them part: full: {sites: \"head.*\", "
      "tied: false}");
  for (const TunerSpec& spec : {TunerSpec{"full", Json{{"sites", {"head.*"}}}},
                                TunerSpec{"sparse_mask", Json{{"sites", {"head.*"}}}}})
    EXPECT_NE(refusal(*tied, spec).find("are one tensor in this model"), std::string::npos);
}

TEST(TiedOutputs, TrainWithTheEmbeddingsAsOneTensor) {
  const std::unique_ptr<Model> tied = decoder(true), untied = decoder(false);
  const Registry<Tuner> registry = methods();
  for (const TunerSpec& spec :
       {TunerSpec{"full", Json::object()},
        TunerSpec{"full", Json{{"sites", {"head.*", "*.embed.tok"}}}},
        TunerSpec{"sparse_mask", Json{{"sites", {"head.*", "*"}}, {"choose", "magnitude"}}},
        TunerSpec{"full", Json{{"sites", {"dec.*"}}}}}) {
    Adaptation adaptation(*tied, registry, 1);
    adaptation.add("default", spec);
    adaptation.add("default", {"head", Json::object()});  // what another method trains, too
    EXPECT_NO_THROW(adaptation.check_outputs("default"));
    int64_t tables = 0;
    for (const Param& param : adaptation.trainable())
      tables += param.value.sizes() == tied->slot(tied->site("dec.embed.tok")).weight.sizes();
    EXPECT_EQ(tables, 1) << spec.options.dump();
  }
  {
    Adaptation parted(*tied, registry, 1);
    parted.add("default", {"full", Json{{"sites", {"head.*"}}, {"tied", false}}});
    EXPECT_NO_THROW(parted.check_outputs("default"));
    EXPECT_EQ(parted.trainable().size(), 1u);
  }
  Adaptation adaptation(*untied, registry, 1);
  adaptation.add("default", {"head", Json::object()});
  EXPECT_EQ(adaptation.trainable().size(), 1u);
}

}  // namespace tied_outputs_test
}  // namespace attune
