// Every method on weights kept as codes: the same numbers as on the decoded weights.
#include "core/storage.h"

#include "base/error.h"
#include "base/text.h"
#include "methods.h"
#include "tensor/autograd.h"

namespace attune {
namespace storage_test {

using namespace tiny;

class Storage : public MethodTest {
 protected:
  /// model_ with codes, and a second one whose weights are the decoded values.
  void keep(const StorageOptions& options) {
    report_ = store(*model_, options);
    decoded_ = new_model(kernels::DType::F64);
    for (size_t i = 0; i < model_->slots(); ++i)
      if (model_->slot_at(i).codes != nullptr)
        decoded_->slot_at(i).replace(model_->slot_at(i).dense(), decoded_->slot_at(i).bias);
  }
  /// False for methods that train the projections themselves: those are refused.
  bool attaches() {
    try {
      adapt();
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Unsupported) << error.what();
      EXPECT_NE(std::string(error.what()).find(" codes, which cannot be trained"),
                std::string::npos)
          << error.what();
      return false;
    }
  }
  StorageReport report_;
  std::unique_ptr<Model> decoded_;
};

void expect_like_decoded(Model& model, Adaptation& adaptation, Model& decoded, Adaptation& other,
                         const Batch& batch) {
  const Values found = everything(model, batch), expected = everything(decoded, batch);
  for (const Values::value_type& entry : found)
    EXPECT_LE(distance(entry.second, expected.at(entry.first)), 1e-12) << entry.first;
  backward(loss(model, batch, &adaptation));
  backward(loss(decoded, batch, &other));
  const std::vector<Param> params = adaptation.trainable(), others = other.trainable();
  ASSERT_EQ(params.size(), others.size());
  for (size_t i = 0; i < params.size(); ++i)
    EXPECT_LE(distance(params[i].value.grad(), others[i].value.grad()), 1e-11) << params[i].name;
}

TEST_P(Storage, CodesComputeAsTheirDecodedValuesDo) {
  StorageOptions options;
  options.kind = entry().name.size() % 2 == 0 ? "nf4" : "int8";
  keep(options);
  EXPECT_GT(report_.weights, 0);
  EXPECT_LT(report_.bytes, report_.before / 4);
  if (!attaches()) return;
  Adaptation other(*decoded_, registry_, 1);
  other.add("default", spec());
  disturb(*adaptation_);
  disturb(other);
  expect_like_decoded(*model_, *adaptation_, *decoded_, other, batch_);
}

TEST_P(Storage, MergingGivesPlainWeightsAndUnmergingTheCodesBack) {
  StorageOptions options;
  options.kind = "nf4";
  keep(options);
  if (!attaches()) return;
  disturb(*adaptation_);
  const Values before = everything(*model_, batch_);
  if (!merges()) return;
  EXPECT_LE(distance(everything(*model_, batch_).at("final"), before.at("final")), 1e-5);
  adaptation_->unmerge();
  EXPECT_TRUE(same(everything(*model_, batch_), before));
}

INSTANTIATE_TEST_SUITE_P(Every, Storage, ::testing::ValuesIn(every_case()), case_name);

std::unique_ptr<Model> classifier() {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  return model_of("bert", head);
}

TEST(StorageChoice, ChooseProjectionsInsideBlocks) {
  const std::unique_ptr<Model> model = classifier();
  store(*model, {"nf4", true, {"*.self.[qv]"}});
  for (const Site& site : model->sites()) {
    if (site.kind != SiteKind::Weight) continue;
    const bool codes = ends_with(site.name, ".self.q") || ends_with(site.name, ".self.v");
    EXPECT_STREQ(storage_name(model->slot(site)), codes ? "nf4" : "full") << site.name;
    EXPECT_EQ(model->slot(site).codes != nullptr, codes);
  }
}

TEST(StorageChoice, AreReadAsTheyAreWritten) {
  for (const StorageOptions& options :
       {StorageOptions{}, {"int8", true, {"*"}}, {"nf4", true, {"*"}}, {"nf4", false, {"*.q"}}}) {
    const StorageOptions back = StorageOptions::from_json(options.to_json());
    EXPECT_EQ(back.kind, options.kind);
    EXPECT_EQ(back.double_quant, options.double_quant);
    EXPECT_EQ(back.sites, options.sites);
  }
}

TEST(StorageChoice, OfNoProjectionAreRefused) {
  const std::unique_ptr<Model> model = classifier();
  try {
    store(*model, {"int8", true, {"emb.*"}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_NE(std::string(error.what()).find("storage.int8.sites: emb.* match no projection"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace storage_test
}  // namespace attune
