#include "arch/load.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "core/storage.h"
#include "io/checkpoint.h"
#include "nn/transformer.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace load_test {

const std::string kGolden = std::string(ATTUNE_TEST_DATA) + "/bert/";

LoadOptions with_dropout(double dropout) {
  LoadOptions options;
  options.own_head = true;
  options.head = {HeadKind::Sequence, 3, "mean", dropout};
  return options;
}

double head_dropout(const LoadedModel& loaded) {
  return dynamic_cast<const Transformer&>(*loaded.model).spec().head.dropout;
}

TEST(LoadModel, TheHeadsDropoutIsTheCheckpointsUnlessOneIsAsked) {
  const double own = read_json(kGolden + "base/config.json").value("hidden_dropout_prob", 0.1);
  EXPECT_EQ(head_dropout(load_model(kGolden + "base", with_dropout(-1))), own);
  EXPECT_EQ(head_dropout(load_model(kGolden + "base", with_dropout(0.37))), 0.37);
  EXPECT_EQ(head_dropout(load_model(kGolden + "base", with_dropout(0))), 0);
}

TEST(WriteModel, MakesItsDirectory) {
  const TempFolder folder;
  const LoadedModel loaded = load_model(kGolden + "base", {});
  const std::string directory = folder.file("a/b/c");
  write_model(*loaded.model, kGolden + "base", directory, Json::object());
  EXPECT_TRUE(file_exists(directory + "/config.json"));
  EXPECT_EQ(checkpoint_fingerprint(directory), checkpoint_fingerprint(kGolden + "base"));
}

TEST(WriteModel, ADirectoryThatCannotBeMadeIsNamed) {
  const TempFolder folder;
  const LoadedModel loaded = load_model(kGolden + "base", {});
  const std::string directory = folder.write("file", "x") + "/model";
  const std::string text =
      error_text(ErrorCode::Io, [&] { write_model(*loaded.model, "", directory, Json::object()); });
  EXPECT_EQ(text.substr(0, text.rfind(':')),
            "writing a checkpoint: the directory " + directory + " cannot be made");
}

TEST(WriteModel, AMaskedLanguageModelThatPartsKeepsItsBias) {
  const TempFolder folder;
  const LoadedModel loaded = load_model(kGolden + "mlm", {});
  Model& model = *loaded.model;
  ASSERT_TRUE(model.untie(model.site("head.proj").storage));
  write_model(model, kGolden + "mlm", folder.path(), Json::object());
  EXPECT_EQ(read_json(folder.file("config.json")).at("tie_word_embeddings"), false);
  const LoadedModel again = load_model(folder.path(), {});
  EXPECT_TRUE(again.report.fresh.empty());
  const auto weight = [](const LoadedModel& of, const char* site) {
    return of.model->slot(of.model->site(site)).weight;
  };
  EXPECT_NE(again.model->site("head.proj").storage, again.model->site("enc.embed.tok").storage);
  for (const char* site : {"head.proj", "head.bias", "enc.embed.tok"})
    EXPECT_TRUE(at::equal(weight(again, site), weight(loaded, site))) << site;
}

TEST(WriteModel, EveryNameOfATensorIsWritten) {
  const std::string source = std::string(ATTUNE_TEST_DATA) + "/t5/lm";
  const TempFolder folder;
  const LoadedModel loaded = load_model(source, {});
  WeightSlot& table = loaded.model->slot(loaded.model->site("enc.embed.tok"));
  table.replace(table.dense() + 1, Tensor());
  write_model(*loaded.model, source, folder.path(), Json::object());
  const LoadedModel again = load_model(folder.path(), {});
  const Site& output = again.model->site("head.proj");
  EXPECT_EQ(output.storage, again.model->site("enc.embed.tok").storage);
  EXPECT_TRUE(at::equal(again.model->slot(output).weight, table.weight));
}

/// What a base model with this 1_Pooling/config.json pools by, or the error's text.
std::string pool_of(const std::string& pooling) {
  const TempFolder folder;
  for (const char* name : {"config.json", "model.safetensors"})
    folder.write(name, read_file(kGolden + "base/" + name));
  folder.write("1_Pooling/config.json", pooling);
  LoadOptions options;
  options.own_head = true;
  options.head = {HeadKind::Sequence, 3, "auto"};
  try {
    return load_model(folder.path(), options).report.pool;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    options.head.pool = "mean";  // another way was chosen: the file does not matter
    EXPECT_EQ(load_model(folder.path(), options).report.pool, "mean");
    options.head = {HeadKind::Token, 3};
    load_model(folder.path(), options);
    return std::string(error.what()).substr(folder.path().size() + 1);
  }
}

TEST(LoadModel, PoolsAsSentenceTransformersSays) {
  EXPECT_EQ(pool_of(R"({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false})"),
            "mean");
  EXPECT_EQ(pool_of(R"({"pooling_mode_cls_token": true})"), "first");
  EXPECT_EQ(pool_of(R"({"pooling_mode": "max"})"), "max");
  EXPECT_EQ(pool_of(R"({"pooling_mode": ["cls"]})"), "first");
  EXPECT_EQ(pool_of(R"({"word_embedding_dimension": 24})"), "pooler");
}

TEST(LoadModel, OtherPoolingIsRefusedByName) {
  const auto refusal = [](const std::string& ways) {
    return "1_Pooling/config.json: sentences are pooled by " + ways +
           "; one of cls, mean, max and lasttoken is supported. Choose another with `head: {pool: "
           "mean}`";
  };
  EXPECT_EQ(pool_of(R"({"pooling_mode_mean_sqrt_len_tokens": true})"), refusal("mean_sqrt_len"));
  EXPECT_EQ(pool_of(R"({"pooling_mode": "weightedmean"})"), refusal("weightedmean"));
  EXPECT_EQ(pool_of(R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})"),
            refusal("cls and mean"));
  EXPECT_NE(pool_of(R"({"pooling_mode_lasttoken": true})").find("pools by \"last\""),
            std::string::npos);
}

/// A checkpoint of which every tensor has been rounded to bf16, stored as bf16 and as fp32.
struct TwoFiles {
  TempFolder folder;
  std::string half = folder.file("half"), full = folder.file("full");
  explicit TwoFiles(const Json& config) {
    const std::unique_ptr<Model> drawn = init_model(config, "config.json", {});
    write_model(*drawn, "", half, Json::object());
    write_model(*drawn, "", full, Json::object());
    const Checkpoint stored(full);
    NamedTensors rounded, wide;
    for (const std::string& name : stored.names()) {
      rounded.emplace_back(name, stored.tensor(name).to(at::kBFloat16));
      wide.emplace_back(name, rounded.back().second.to(at::kFloat));
    }
    save_checkpoint(half, rounded);
    save_checkpoint(full, wide);
  }
};

TEST(LoadModel, WeightsInHalfPrecisionStayInTheirFileForProductsInBf16) {
  Json config = read_json(kGolden + "base/config.json");
  config["vocab_size"] = 4000;
  const TwoFiles files(config);
  LoadOptions bf16;
  bf16.numerics.compute = kernels::DType::BF16;
  const LoadedModel half = load_model(files.half, bf16), full = load_model(files.full, bf16),
                    wide = load_model(files.half, {});
  const Site &q = half.model->site("enc.0.self.q"), &norm = half.model->site("enc.0.ffn.norm"),
             &words = half.model->site("enc.embed.tok"),
             &places = half.model->site("enc.embed.pos");
  for (const Site* site : {&q, &words}) {
    EXPECT_EQ(half.model->slot(*site).weight.scalar_type(), at::kBFloat16) << site->name;
    EXPECT_EQ(half.model->slot(*site).dense().scalar_type(), at::kFloat);
    EXPECT_TRUE(half.model->slot(*site).copies.weight_is_mapped());
    EXPECT_EQ(wide.model->slot(*site).weight.scalar_type(), at::kFloat)
        << "products in fp32 multiply the weight itself";
  }
  for (const Site* site : {&norm, &places})
    EXPECT_EQ(half.model->slot(*site).weight.scalar_type(), at::kFloat) << site->name;
  Batch batch = made_up_batch(dynamic_cast<const Transformer&>(*half.model).spec(), {5, 3}, 1);
  const Want want{{"final"}, true};
  EXPECT_TRUE(at::equal(half.model->forward(batch, want).captured.at("final"),
                        full.model->forward(batch, want).captured.at("final")));
}

/// Bytes of this process's mapped files that are in memory.
int64_t resident_file_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("RssFile:", 0) == 0) return 1024 * std::stoll(line.substr(8));
  return -1;
}

TEST(Store, GivesTheCheckpointsPagesBackOnceTheyAreCodes) {
  Json config = read_json(kGolden + "base/config.json");
  config["hidden_size"] = 768;
  config["intermediate_size"] = 6144;  // 47 MB of projections
  config["num_hidden_layers"] = 1;
  const TempFolder folder;
  write_model(*init_model(config, "wide", {}), "", folder.file("wide"), Json::object());
  const LoadedModel loaded = load_model(folder.file("wide"), {});
  const int64_t before = resident_file_bytes();
  StorageOptions nf4;
  nf4.kind = "nf4";
  const StorageReport report = store(*loaded.model, nf4);
  EXPECT_GT(report.before, 32 << 20);
  EXPECT_LT(resident_file_bytes() - before, report.before / 4);
}

}  // namespace load_test
}  // namespace attune
