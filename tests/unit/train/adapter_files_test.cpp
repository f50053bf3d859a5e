#include "train/adapter_files.h"

#include <cmath>

#include "base/file.h"
#include "io/safetensors.h"
#include "support/temp_folder.h"
#include "tiny_model.h"

namespace attune {
namespace adapter_files_test {

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
    card_.directory = "/models/tiny";
    save_adapter(adaptation_, "default", card_, folder_.file("adapter"));
  }
  std::string load_error(ErrorCode code, const std::string& fingerprint = "") {
    const std::unique_ptr<Model> other = tiny_model();
    Adaptation loaded(*other, registry_, 1);
    return error_text(
        code, [&] { load_adapter(loaded, "default", folder_.file("adapter"), fingerprint); });
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
  void save_tensors(NamedTensors tensors) {
    save_safetensors(folder_.file("adapter/attune.safetensors"), tensors);
  }

  TempFolder folder_;
  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  Adaptation adaptation_;
  AdapterCard card_;
};

TEST_F(AdapterFiles, ATensorThatIsMostlyZerosIsKeptAsPlacesAndValues) {
  const auto model_of_words = [] {
    Json config = architectures().at("bert").make(Options())->tiny_config();
    config["vocab_size"] = 70000;
    LoadOptions options;
    options.numerics.compute = kernels::DType::F64;
    options.head = {HeadKind::Sequence, 3, "mean"};
    options.own_head = true;
    return init_model(config, "tiny.json", options);
  };
  const auto table_of = [](const Adaptation& adaptation) {
    for (const std::pair<std::string, at::Tensor>& entry : adaptation.tensors("default"))
      if (entry.second.size(0) == 70000) return entry;
    return std::pair<std::string, at::Tensor>();
  };
  const std::unique_ptr<Model> model = model_of_words(), other = model_of_words();
  Adaptation adaptation(*model, registry_, 1), loaded(*other, registry_, 1);
  adaptation.add("default", {"full", Json::object()});
  const std::pair<std::string, at::Tensor> table = table_of(adaptation);
  table.second.zero_();
  table.second.select(0, 69999).fill_(-1.5);
  table.second.select(0, 7).fill_(-0.0);  // its bits are kept
  save_adapter(adaptation, "default", card_, folder_.file("sparse"));
  const SafetensorsFile file(folder_.file("sparse/attune.safetensors"));
  EXPECT_FALSE(file.has(table.first));
  EXPECT_EQ(file.tensor(table.first + "#values").numel(), 2 * table.second.size(1));
  load_adapter(loaded, "default", folder_.file("sparse"), card_.fingerprint);
  EXPECT_TRUE(at::equal(table_of(loaded).second, table.second));
  EXPECT_TRUE(std::signbit(table_of(loaded).second[7][0].item<double>()));

  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors())
    if (info.name != table.first + "#shape")
      tensors.emplace_back(info.name, file.tensor(info.name).clone());
  save_safetensors(folder_.file("sparse/attune.safetensors"), tensors);
  EXPECT_NE(
      error_text(ErrorCode::Corrupt, [&] { read_adapter_tensors(folder_.file("sparse"), *other); })
          .find("#shape is missing"),
      std::string::npos);
}

/// Of a base tensor of which a few numbers were trained the file has these alone.
TEST_F(AdapterFiles, WhatIsMostlyTheBasesIsKeptAsWhatChanged) {
  Json config = architectures().at("bert").make(Options())->tiny_config();
  config["vocab_size"] = 70000;
  write_model(*init_model(config, "tiny.json", {}), "", folder_.file("words"), Json::object());
  const std::unique_ptr<Model> model = load_model(folder_.file("words"), {}).model,
                               other = load_model(folder_.file("words"), {}).model;
  Adaptation adaptation(*model, registry_, 1), loaded(*other, registry_, 1);
  adaptation.add("default", {"full", Json::object()});
  std::pair<std::string, at::Tensor> table;
  for (const std::pair<std::string, at::Tensor>& entry : adaptation.tensors("default"))
    if (entry.second.size(0) == 70000) table = entry;
  ASSERT_TRUE(table.second.defined());
  {
    at::NoGradGuard no_grad;
    table.second.select(0, 5).add_(1);
    table.second.select(0, 69999).zero_();
  }
  save_adapter(adaptation, "default", card_, folder_.file("few"));
  const SafetensorsFile file(folder_.file("few/attune.safetensors"));
  EXPECT_FALSE(file.has(table.first));
  EXPECT_EQ(file.tensor(table.first + "#changed").numel(), 2 * table.second.size(1));
  load_adapter(loaded, "default", folder_.file("few"), card_.fingerprint);
  const NamedTensors before = adaptation.tensors("default"), after = loaded.tensors("default");
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(at::equal(before[i].second, after[i].second)) << before[i].first;

  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors())
    if (info.name != table.first + "#values")
      tensors.emplace_back(info.name, file.tensor(info.name).clone());
  save_safetensors(folder_.file("few/attune.safetensors"), tensors);
  EXPECT_NE(
      error_text(ErrorCode::Corrupt, [&] { read_adapter_tensors(folder_.file("few"), *other); })
          .find("#values is missing"),
      std::string::npos);
}

TEST_F(AdapterFiles, TheCardComesBackAsItWasSaved) {
  const AdapterCard card = read_adapter_card(folder_.file("adapter"));
  EXPECT_EQ(card.base, "tiny");
  EXPECT_EQ(card.fingerprint, card_.fingerprint);
  EXPECT_EQ(card.task, "classify");
  EXPECT_EQ(card.task_state, card_.task_state);
  EXPECT_EQ(card.pool, "mean");
  EXPECT_EQ(card.seed, 11u);
  EXPECT_EQ(card.directory, "/models/tiny");
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
  EXPECT_NE(text.find("it was trained on tiny (tensors' SHA-256 aaaaaaaaaaaaaaaa...)"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("bbbbbbbbbbbbbbbb..."), std::string::npos) << text;
}

TEST_F(AdapterFiles, AMissingFolderIsNotFound) {
  const std::string text =
      error_text(ErrorCode::NotFound, [&] { read_adapter_card(folder_.file("nowhere")); });
  EXPECT_NE(text.find("nowhere/attune.json"), std::string::npos) << text;
}

TEST_F(AdapterFiles, ACardOfAnotherFormatOrVersionIsRefused) {
  change_card([](Json& json) { json["version"] = 2; });
  EXPECT_NE(load_error(ErrorCode::Unsupported)
                .find("version 2 of the adapter format; this build reads version 1"),
            std::string::npos);
  change_card([](Json& json) { json["format"] = "other"; });
  EXPECT_NE(load_error(ErrorCode::Corrupt).find("\"format\" is not \"attune-adapter\""),
            std::string::npos);
}

TEST_F(AdapterFiles, ACardWithoutAKeySaysWhich) {
  change_card([](Json& json) { json.erase("methods"); });
  const std::string text = load_error(ErrorCode::Corrupt);
  EXPECT_NE(text.find("attune.json: a key is missing or of the wrong type"), std::string::npos)
      << text;
  EXPECT_NE(text.find("methods"), std::string::npos) << text;
}

TEST_F(AdapterFiles, TensorsThatDoNotFitAreNamed) {
  const NamedTensors good = adaptation_.tensors("default");
  NamedTensors less(good.begin() + 1, good.end()), more = good, other = good;
  save_tensors(less);
  EXPECT_NE(
      load_error(ErrorCode::Corrupt).find("1 tensor(s) are missing, the first is " + good[0].first),
      std::string::npos);
  more.emplace_back("0.lora/stray", at::zeros({1}));
  save_tensors(more);
  EXPECT_NE(
      load_error(ErrorCode::Corrupt).find("tensor 0.lora/stray belongs to none of the methods"),
      std::string::npos);
  other[0].second = at::zeros({1, 1});
  save_tensors(other);
  EXPECT_NE(load_error(ErrorCode::Corrupt).find("tensor " + good[0].first + " has another shape"),
            std::string::npos);
}

TEST(FreshDirectory, ASlashAtTheEndChangesNothing) {
  const TempFolder folder;
  FreshDirectory fresh(folder.file("deep/result//"));
  EXPECT_EQ(fresh.path(), folder.file("deep/result.tmp"));
  write_file_atomic(fresh.path() + "/file", "x");
  fresh.replace();
  EXPECT_EQ(read_file(folder.file("deep/result/file")), "x");
  EXPECT_EQ(without_end_slash("/"), "/");
  EXPECT_EQ(without_end_slash("a//"), "a");
}

}  // namespace adapter_files_test
}  // namespace attune
