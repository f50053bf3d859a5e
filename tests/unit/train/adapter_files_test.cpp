#include "train/adapter_files.h"

#include "arch/load.h"
#include "base/file.h"
#include "base/text.h"
#include "io/safetensors.h"
#include "methods/registry.h"
#include "policies/registry.h"
#include "temp_folder.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// A tiny BERT classifier without dropout unless asked for.
std::unique_ptr<Model> tiny_model(double dropout = 0, int layers = 2) {
  Json config = architectures().at("bert").make(Options())->tiny_config();
  config.update(Json{{"hidden_dropout_prob", dropout}, {"attention_probs_dropout_prob", dropout},
                     {"num_hidden_layers", layers}, {"initializer_range", 0.3}});
  LoadOptions options;
  options.numerics.compute = kernels::DType::F64;
  options.head = {HeadKind::Sequence, 3, "mean"};
  options.own_head = true;
  return init_model(config, "tiny.json", options);
}

class AdapterFiles : public ::testing::Test {
 protected:
  AdapterFiles() : registry_(methods()), model_(tiny_model()), adaptation_(*model_, registry_, 1) {
    adaptation_.add("default", {"lora", Json{{"rank", 2}}});
    card_.base = "tiny";
    card_.fingerprint = std::string(64, 'a');
    card_.task = "classify";
    card_.task_state = Json{{"labels", {"x", "y", "z"}}};
    card_.pool = "mean";
    card_.seed = 11;
    save_adapter(adaptation_, "default", card_, folder_.file("adapter"));
  }
  std::string load_error(ErrorCode code, const std::string& fingerprint = "") {
    const std::unique_ptr<Model> other = tiny_model();
    Adaptation loaded(*other, registry_, 1);
    return error_text(code, [&] { load_adapter(loaded, "default", folder_.file("adapter"), fingerprint); });
  }
  /// Rewrites attune.json.
  template <class Change>
  void change_card(Change change) {
    const std::string path = folder_.file("adapter/attune.json");
    Json json = read_json(path);
    change(json);
    write_file_atomic(path, json.dump());
  }
  /// Rewrites attune.safetensors.
  void save_tensors(NamedTensors tensors) { save_safetensors(folder_.file("adapter/attune.safetensors"), tensors); }

  TempFolder folder_;
  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  Adaptation adaptation_;
  AdapterCard card_;
};

TEST_F(AdapterFiles, TheCardComesBackAsItWasSaved) {
  const AdapterCard card = read_adapter_card(folder_.file("adapter"));
  EXPECT_EQ(card.base, "tiny");
  EXPECT_EQ(card.fingerprint, card_.fingerprint);
  EXPECT_EQ(card.task, "classify");
  EXPECT_EQ(card.task_state, card_.task_state);
  EXPECT_EQ(card.pool, "mean");
  EXPECT_EQ(card.seed, 11u);
  ASSERT_EQ(card.methods.size(), 1u);
  EXPECT_EQ(card.methods[0]["lora"]["rank"], 2);
}

TEST_F(AdapterFiles, SavingAgainReplacesTheFolder) {
  write_file_atomic(folder_.file("adapter/stray"), "x");
  save_adapter(adaptation_, "default", card_, folder_.file("adapter"));
  EXPECT_FALSE(file_exists(folder_.file("adapter/stray")));
  EXPECT_FALSE(directory_exists(folder_.file("adapter.tmp")));
  EXPECT_FALSE(directory_exists(folder_.file("adapter.old")));
}

TEST_F(AdapterFiles, AnotherBaseModelIsRefusedWithBothFingerprints) {
  const std::string text = load_error(ErrorCode::BadInput, std::string(64, 'b'));
  EXPECT_NE(text.find("it was trained on tiny (tensors' SHA-256 aaaaaaaaaaaaaaaa...)"), std::string::npos) << text;
  EXPECT_NE(text.find("bbbbbbbbbbbbbbbb..."), std::string::npos) << text;
}

TEST_F(AdapterFiles, AMissingFolderIsNotFound) {
  const std::string text = error_text(ErrorCode::NotFound, [&] { read_adapter_card(folder_.file("nowhere")); });
  EXPECT_NE(text.find("nowhere/attune.json"), std::string::npos) << text;
}

TEST_F(AdapterFiles, ACardOfAnotherFormatOrVersionIsRefused) {
  change_card([](Json& json) { json["version"] = 2; });
  EXPECT_NE(load_error(ErrorCode::Unsupported).find("version 2 of the adapter format; this build reads version 1"),
            std::string::npos);
  change_card([](Json& json) { json["format"] = "other"; });
  EXPECT_NE(load_error(ErrorCode::Corrupt).find("\"format\" is not \"attune-adapter\""), std::string::npos);
}

TEST_F(AdapterFiles, ACardWithoutAKeySaysWhich) {
  change_card([](Json& json) { json.erase("methods"); });
  const std::string text = load_error(ErrorCode::Corrupt);
  EXPECT_NE(text.find("attune.json: a key is missing or of the wrong type"), std::string::npos) << text;
  EXPECT_NE(text.find("methods"), std::string::npos) << text;
}

TEST_F(AdapterFiles, TensorsThatDoNotFitAreNamed) {
  const NamedTensors good = adaptation_.tensors("default");
  NamedTensors less(good.begin() + 1, good.end()), more = good, other = good;
  save_tensors(less);
  EXPECT_NE(load_error(ErrorCode::Corrupt).find("1 tensor(s) are missing, the first is " + good[0].first),
            std::string::npos);
  more.emplace_back("0.lora/stray", at::zeros({1}));
  save_tensors(more);
  EXPECT_NE(load_error(ErrorCode::Corrupt).find("tensor 0.lora/stray belongs to none of the methods"), std::string::npos);
  other[0].second = at::zeros({1, 1});
  save_tensors(other);
  EXPECT_NE(load_error(ErrorCode::Corrupt).find("tensor " + good[0].first + " has another shape"), std::string::npos);
}

/// Eight sequences, ten rows each window, as one batch or some of its sequences.
Batch batch_of(int64_t first, int64_t count) {
  Batch batch;
  std::vector<int32_t> ids;
  std::vector<int64_t> lengths, labels, examples;
  for (int64_t b = first; b < first + count; ++b) {
    lengths.push_back(2 + b);
    labels.push_back(b % 3);
    examples.push_back(50 + b);
    for (int64_t r = 0; r < 2 + b; ++r) ids.push_back(static_cast<int32_t>(1 + (7 * b + 3 * r) % 59));
  }
  batch.streams["enc"].ids = int32_tensor(ids);
  batch.streams["enc"].rows = RowIndex::from_lengths(lengths);
  batch.fields["labels"] = int64_tensor(labels);
  batch.fields["example"] = int64_tensor(examples);
  batch.pass.training = true;
  batch.pass.seed = 3;
  return batch;
}

/// Gradients of the summed loss over the batches, by name.
std::map<std::string, Tensor> gradients(Model& model, Adaptation& adaptation, const std::vector<Batch>& batches,
                                        double& loss) {
  loss = 0;
  for (const Batch& batch : batches) {
    const Tensor sum = model.forward(batch, {}).head->cross_entropy(batch.fields.at("labels"), Tensor(), 0).sum;
    loss += sum.item<double>();
    backward(sum);
  }
  std::map<std::string, Tensor> result;
  for (Param& param : adaptation.trainable()) {
    result[param.name] = param.value.grad().clone();
    param.value.mutable_grad() = Tensor();
  }
  return result;
}

TEST(Accumulation, FourMicroBatchesEqualOneOfFourWithDropoutToo) {
  for (const double dropout : {0.0, 0.2}) {
    const std::unique_ptr<Model> model = tiny_model(dropout);
    const Registry<Tuner> registry = methods();
    Adaptation adaptation(*model, registry, 1);
    adaptation.add("default", {"full", Json::object()});
    double whole_loss = 0, parts_loss = 0;
    const std::map<std::string, Tensor> whole = gradients(*model, adaptation, {batch_of(0, 4)}, whole_loss);
    const std::map<std::string, Tensor> parts = gradients(
        *model, adaptation, {batch_of(2, 1), batch_of(0, 1), batch_of(3, 1), batch_of(1, 1)}, parts_loss);
    EXPECT_NEAR(whole_loss, parts_loss, 1e-12);
    for (const std::pair<const std::string, Tensor>& entry : whole)
      EXPECT_LE((entry.second - parts.at(entry.first)).abs().max().item<double>(), 1e-12) << entry.first;
  }
}

TEST(LayerDecay, RatesFallByTheFactorFromBlockToBlock) {
  const std::unique_ptr<Model> model = tiny_model(0, 3);
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", {"full", Json::object()});
  std::vector<Param> params = adaptation.trainable();
  const Registry<TrainingPolicy> known = policies();
  const Entry<TrainingPolicy>& entry = known.at("layer_decay");
  const Options options(entry.options, Node::from_json(Json{{"factor", 0.5}}, {"test", 0, 0}), "policies[0]");
  TrainState state{*model, adaptation, params, {}};
  entry.make(options)->begin(state);
  for (const Param& param : params) {
    const std::string site = split(param.name, '/')[2];
    double expected = 1;
    if (starts_with(site, "enc.embed.")) expected = 0.125;
    if (starts_with(site, "enc.0.")) expected = 0.25;
    if (starts_with(site, "enc.1.")) expected = 0.5;
    EXPECT_DOUBLE_EQ(param.lr_scale, expected) << param.name;
  }
}

}  // namespace
}  // namespace attune
