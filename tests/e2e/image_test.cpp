// Images as a user meets them: a folder of pictures, a model that `attune init` made.
#include "base/file.h"
#include "e2e/workshop.h"

namespace attune {

namespace image_test {

namespace fs = std::filesystem;

/// A tiny ViT, and pictures of two kinds in folders of these names.
class Images : public Workshop {
 protected:
  void SetUp() override {
    Workshop::SetUp();
    write("vit.json", R"({"model_type": "vit", "architectures": ["ViTForImageClassification"],
  "image_size": 8, "patch_size": 4, "num_channels": 3, "hidden_size": 16, "num_hidden_layers": 2,
  "num_attention_heads": 2, "intermediate_size": 32, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
  "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.02,
  "num_labels": 2})");
    const Outcome made = attune({"init", "vit.json", "-o", "vit"});
    ASSERT_EQ(made.status, 0) << made.err;
    copies("colour", {"rgb.png", "photo.jpg", "alpha.png"});
    copies("grey", {"grey.png", "grey.jpg"});
  }

  void copies(const std::string& label, const std::vector<std::string>& files) const {
    fs::create_directories(folder_ / "pictures" / label);
    for (const std::string& file : files)
      for (int i = 0; i < 6; ++i)
        fs::copy_file(fs::path(ATTUNE_TEST_DATA) / "images" / file,
                      folder_ / "pictures" / label / (std::to_string(i) + file));
  }

  std::vector<std::string> training(const std::vector<std::string>& more) const {
    std::vector<std::string> args = {"train",
                                     "--model",
                                     "vit",
                                     "--task",
                                     "image",
                                     "--train",
                                     "pictures",
                                     "--eval",
                                     "20%",
                                     "--output",
                                     "run",
                                     "--epochs",
                                     "20",
                                     "--batch-size",
                                     "6",
                                     "--lr",
                                     "5e-3",
                                     "--set",
                                     "train.precision=fp32",
                                     "--set",
                                     "train.threads=1"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
};

TEST_F(Images, AFolderOfPicturesTrainsAClassifier) {
  const Json result = attune_json(training({"--method", "lora"}));
  EXPECT_LT(result["last_loss"], result["first_loss"]);
  EXPECT_EQ(result["metrics"]["accuracy"], 1.0);
  EXPECT_EQ(json("run/adapter/adapter_config.json")["target_modules"].size(), 2U);
  const Json metrics = attune_json({"eval", "run", "--data", "pictures"});
  EXPECT_EQ(metrics["accuracy"], 1.0);
  EXPECT_EQ(metrics["examples"], 30);
  write("list.jsonl",
        "{\"image\": \"pictures/grey/0grey.png\"}\n"
        "{\"image\": \"pictures/colour/1photo.jpg\"}\n");
  const Json predicted = attune_json({"predict", "run", "--data", "list.jsonl"});
  EXPECT_EQ(predicted["results"][0]["label"], "grey");
  EXPECT_EQ(predicted["results"][1]["label"], "colour");
  attune_json({"forward", "run", "--input", "list.jsonl", "-o", "out.safetensors"});
  write("gone.jsonl", "{\"image\": \"gone.png\"}\n");
  expect_refused(attune({"forward", "run", "--input", "gone.jsonl", "-o", "x", "--quiet"}), 3,
                 {"gone.jsonl:1: reading the image gone.png: there is no such file"});
}

TEST_F(Images, BatchesByRowsAndFullFineTuningLeaveACheckpoint) {
  write("vit/preprocessor_config.json", R"({"size": {"height": 8, "width": 8}, "resample": 3})");
  const Json result =
      attune_json(training({"--set", "train.batch_size=0", "--set", "train.batch_tokens=24"}));
  EXPECT_EQ(result["metrics"]["accuracy"], 1.0);
  const Json metrics = attune_json({"eval", "run/model", "--data", "pictures"});
  EXPECT_EQ(metrics["accuracy"], 1.0);
  EXPECT_TRUE(exists("run/model/preprocessor_config.json"));
}

TEST_F(Images, BadInputIsExplained) {
  write("list.jsonl",
        "{\"image\": \"gone.png\", \"label\": \"a\"}\n{\"image\": \"gone.png\", "
        "\"label\": \"b\"}\n");
  const auto refused = [&](const std::vector<std::string>& more, int status,
                           const std::string& what) {
    const Outcome outcome = attune(training(more));
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_NE(outcome.err.find(what), std::string::npos) << outcome.err;
  };
  refused({"--set", "data.train=list.jsonl", "--set", "data.eval=list.jsonl"}, 3,
          "list.jsonl:1: reading the image gone.png: there is no such file");
  write("pictures/grey/9bad.png", "no picture");
  refused({"--set", "data.eval=pictures"}, 5, "it is neither PNG nor JPEG");
  refused({"--set", "model=model"}, 5, "task image: this model reads no images");
  fs::create_directories(folder_ / "empty");
  refused({"--set", "data.train=empty"}, 2, "empty is a folder");
}

}  // namespace image_test

}  // namespace attune
