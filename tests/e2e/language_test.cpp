// Language models as a user meets them: lm from a fresh model to perplexities and generated text.
#include <cmath>

#include "base/file.h"
#include "e2e/workshop.h"

namespace attune {

namespace {

const char* const kTinyModel = ATTUNE_TEST_DATA "/../../examples/models/llama-tiny";

/// A tiny decoder that `attune init` made, and plain text to learn.
class Language : public Workshop {
 protected:
  void SetUp() override {
    Workshop::SetUp();
    Json config = Json::parse(read_file(std::string(kTinyModel) + "/config.json"));
    config["hidden_size"] = 32;
    config["num_hidden_layers"] = 2;
    config["head_dim"] = 8;
    config["intermediate_size"] = 64;
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      write(name, read_file(std::string(kTinyModel) + "/" + name));
    write("config.json", config.dump());
    config["tie_word_embeddings"] = false;
    std::filesystem::create_directories(folder_ / "untied");
    write("untied/config.json", config.dump());
    write("untied/tokenizer.json", read("tokenizer.json"));
    const Outcome made = attune({"init", "config.json", "-o", "decoder"});
    ASSERT_EQ(made.status, 0) << made.err;
    std::string text;
    for (int i = 0; i < 60; ++i)
      text += i % 2 == 0 ? "KING:\nGood morrow, my lord.\n\n" : "QUEEN:\nWhat news, my lord?\n\n";
    write("play.txt", text);
  }

  std::vector<std::string> lm(const std::string& output, std::vector<std::string> more) const {
    std::vector<std::string> args = {"train",
                                     "--model",
                                     "decoder",
                                     "--task",
                                     "lm",
                                     "--train",
                                     "play.txt",
                                     "--eval",
                                     "play.txt",
                                     "--max-length",
                                     "32",
                                     "--output",
                                     output,
                                     "--batch-tokens",
                                     "256",
                                     "--set",
                                     "train.precision=fp32",
                                     "--set",
                                     "train.threads=1"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
};

TEST_F(Language, InitCopiesTheTokenizer) {
  EXPECT_EQ(read("decoder/tokenizer.json"), read("tokenizer.json"));
  EXPECT_TRUE(exists("decoder/tokenizer_config.json"));
}

TEST_F(Language, AFreshDecoderLearnsPlainTextWithEveryKindOfMethod) {
  double untrained = 0;
  for (const char* method : {"full", "lora", "prompt", "prefix", "adalora"}) {
    const std::string run = std::string("run-") + method;
    // One trains every weight, and long enough to know the text by heart.
    const std::string epochs = std::string(method) == "full" ? "40" : "6";
    std::vector<std::string> args =
        lm(run, {"--method", method, "--epochs", epochs, "--lr", "1e-2"});
    const Json result = attune_json(args);
    EXPECT_LT(result["last_loss"], result["first_loss"]) << method;
    const Json metrics = result["metrics"];
    const double loss = metrics["loss"];
    EXPECT_NEAR(metrics["perplexity"].get<double>(), std::exp(loss), 1e-6 * std::exp(loss));
    EXPECT_NEAR(
        metrics["bits_per_byte"].get<double>(),
        loss * metrics["tokens"].get<double>() / metrics["bytes"].get<double>() / std::log(2.0),
        1e-9);
    EXPECT_EQ(metrics["bytes"], read("play.txt").size());
    EXPECT_EQ(metrics["words"], 60 * 5);
    if (untrained == 0) untrained = std::log(1024.0);
    EXPECT_LT(loss, untrained) << method;
  }
  const Json full = json("run-full/run.json"), lora = json("run-lora/run.json");
  EXPECT_LT(full["metrics"]["loss"], 1.0);
  EXPECT_TRUE(exists("run-full/model/tokenizer.json"));
  // What a run says of itself is what `eval` finds.
  const Json again = attune_json({"eval", "run-lora", "--data", "play.txt"});
  EXPECT_NEAR(again["loss"].get<double>(), lora["metrics"]["loss"].get<double>(),
              2e-3);  // there in the machine's own precision
  const Json predicted = attune_json({"predict", "run-full", "--text", "KING:\nGood"});
  EXPECT_EQ(predicted["results"][0]["text"].get<std::string>().substr(0, 16), " morrow, my lord");
}

TEST_F(Language, AnOutputMatrixOfItsOwnTrainsToo) {
  ASSERT_EQ(attune({"init", "untied/config.json", "-o", "decoder", "--overwrite"}).status, 0);
  const Json result = attune_json(lm("run", {"--epochs", "4", "--lr", "1e-2"}));
  EXPECT_LT(result["metrics"]["loss"], 4.5);
}

TEST_F(Language, ResumingEndsAsWithoutAStop) {
  const std::vector<std::string> more = {"--method",      "lora",  "--set",
                                         "train.steps=8", "--set", "train.save_every={steps: 4}"};
  ASSERT_EQ(attune(lm("whole", more)).status, 0);
  ASSERT_EQ(attune(lm("part", more)).status, 0);
  std::filesystem::remove_all(folder_ / "part/checkpoints/step-00000008");
  const Outcome outcome = attune({"resume", "part"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(read("part/adapter/attune.safetensors"), read("whole/adapter/attune.safetensors"));
}

TEST_F(Language, ASharePartedFromTheWindowsIsEvaluated) {
  const Json result = attune_json(lm("run", {"--set", "data.eval=25%", "--set", "train.steps=1"}));
  const int64_t held_out = result["metrics"]["examples"];
  EXPECT_GT(held_out, 5);
}

TEST_F(Language, BadInputIsExplained) {
  Outcome outcome = attune(lm("run", {"--set", "data.max_length=1"}));
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("predicting the next token takes at least 2"), std::string::npos);
  outcome = attune(lm("run", {"--set", "data.max_length=999"}));
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  outcome = attune(lm("run", {"--set", "model=model"}));
  EXPECT_EQ(outcome.status, 5);
  EXPECT_NE(outcome.err.find("bert has no next-token language model head"), std::string::npos)
      << outcome.err;
  EXPECT_FALSE(exists("run"));
}

}  // namespace

}  // namespace attune
