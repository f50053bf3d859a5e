// Language models as a user meets them: lm from a fresh model to perplexities and generated text.
#include <cmath>

#include "base/file.h"
#include "e2e/workshop.h"

namespace attune {

namespace language_test {

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
    EXPECT_NEAR(metrics["bits_per_byte"].get<double>(),
                loss * metrics["counts"]["tokens"].get<double>() /
                    metrics["counts"]["bytes"].get<double>() / std::log(2.0),
                1e-9);
    EXPECT_EQ(metrics["counts"]["bytes"], read("play.txt").size());
    EXPECT_EQ(metrics["counts"]["words"], 60 * 5);
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
  EXPECT_EQ(json("run-lora/adapter/adapter_config.json")["task_type"], "CAUSAL_LM");
  // A checkpoint says by its class that it is a language model.
  const Json of_model = attune_json({"eval", "run-full/model", "--data", "play.txt"});
  EXPECT_LT(of_model["loss"], 1.0);
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
  std::filesystem::remove_all(folder_ / "part/checkpoints/step-000008");
  const Outcome outcome = attune({"resume", "part"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(read("part/adapter/attune.safetensors"), read("whole/adapter/attune.safetensors"));
}

TEST_F(Language, ASharePartedFromTheWindowsIsEvaluated) {
  const Json result = attune_json(lm("run", {"--set", "data.eval=25%", "--set", "train.steps=1"}));
  const int64_t held_out = result["metrics"]["examples"];
  EXPECT_GT(held_out, 5);
}

/// Pairs of which the second part follows from the first.
std::string pairs(const std::string& first, const std::string& second, int count) {
  static const std::vector<std::pair<std::string, std::string>> kPairs = {
      {"Who is there?", "The king."},
      {"What news?", "None, my lord."},
      {"Where is the queen?", "She is gone."},
      {"How goes the night?", "The moon is down."}};
  std::string rows;
  for (int i = 0; i < count; ++i) {
    const std::pair<std::string, std::string>& pair = kPairs[static_cast<size_t>(i % 4)];
    rows += Json{{first, pair.first}, {second, pair.second}}.dump() + "\n";
  }
  return rows;
}

TEST_F(Language, SftLearnsToAnswerAndCountsOnlyTheCompletion) {
  write("answers.jsonl", pairs("prompt", "completion", 24));
  const Json result = attune_json({"train",
                                   "--model",
                                   "decoder",
                                   "--task",
                                   "sft",
                                   "--train",
                                   "answers.jsonl",
                                   "--eval",
                                   "answers.jsonl",
                                   "--output",
                                   "run",
                                   "--batch-size",
                                   "8",
                                   "--epochs",
                                   "40",
                                   "--lr",
                                   "1e-2",
                                   "--set",
                                   "train.precision=fp32",
                                   "--set",
                                   "train.threads=1",
                                   "--set",
                                   "train.best={metric: exact_match}"});
  EXPECT_EQ(result["metrics"]["exact_match"], 1.0);
  EXPECT_EQ(result["metrics"]["rougeL"], 1.0);
  EXPECT_EQ(result["metrics"]["counts"]["decoded"], 24);
  EXPECT_LT(result["metrics"]["perplexity"], 1.2);
  const Json tokens =
      attune_json({"tokenize", "decoder", "--text", "The king.", "--text", "None, my lord.",
                   "--text", "She is gone.", "--text", "The moon is down."});
  size_t count = 0;  // without the begin token, with the end token
  for (const Json& text : tokens["results"]) count += 6 * text["ids"].size();
  EXPECT_EQ(result["metrics"]["counts"]["tokens"], count);
  const Json predicted = attune_json({"predict", "run", "--text", "What news?"});
  EXPECT_EQ(predicted["results"][0]["text"], "None, my lord.");
  const Json generated =
      attune_json({"generate", "run", "--prompt", "Who is there?", "--beams", "2", "--ids"});
  EXPECT_EQ(generated["results"][0]["text"], "The king.");
  EXPECT_EQ(generated["results"][0]["output_ids"].back(), 1);
  write("chat.jsonl", "{\"messages\": []}\n");
  const Outcome outcome = attune({"eval", "run", "--data", "chat.jsonl"});
  EXPECT_EQ(outcome.status, 5);
  EXPECT_NE(outcome.err.find("chat.jsonl:1: column \"messages\": chat templates are not built yet"),
            std::string::npos)
      << outcome.err;
}

/// A tiny encoder-decoder beside the decoder, with a tokenizer that ends texts as T5's do.
class Translation : public Language {
 protected:
  void SetUp() override {
    Language::SetUp();
    Json tokenizer = json("tokenizer.json");
    Json& parts = tokenizer["post_processor"]["processors"][1];
    parts["single"] = Json::parse(
        R"([{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}])");
    parts["pair"] = Json::parse(
        R"([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}])");
    parts["special_tokens"] =
        Json::parse(R"({"<|end|>": {"id": "<|end|>", "ids": [1], "tokens": ["<|end|>"]}})");
    std::filesystem::create_directories(folder_ / "t5");
    write("t5/tokenizer.json", tokenizer.dump());
    write(
        "t5/config.json",
        R"({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "vocab_size": 1024,
  "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
  "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
  "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20})");
    const Outcome made = attune({"init", "t5/config.json", "-o", "pair"});
    ASSERT_EQ(made.status, 0) << made.err;
  }
};

TEST_F(Translation, AnEncoderDecoderLearnsToWriteTargets) {
  write("pairs.jsonl", pairs("source", "target", 24));
  const Json result = attune_json({"train",
                                   "--model",
                                   "pair",
                                   "--task",
                                   "seq2seq",
                                   "--train",
                                   "pairs.jsonl",
                                   "--eval",
                                   "pairs.jsonl",
                                   "--output",
                                   "run",
                                   "--batch-size",
                                   "8",
                                   "--epochs",
                                   "60",
                                   "--lr",
                                   "1e-2",
                                   "--set",
                                   "train.precision=fp32",
                                   "--set",
                                   "train.threads=1",
                                   "--set",
                                   "train.eval_every=100%"});
  const Json metrics = result["metrics"];
  for (const char* name : {"exact_match", "rouge1", "rouge2", "rougeL"})
    EXPECT_EQ(metrics[name], 1.0) << name;
  EXPECT_NEAR(metrics["bleu"].get<double>(), 100, 1e-9);
  EXPECT_NEAR(metrics["chrf"].get<double>(), 100, 1e-9);
  EXPECT_EQ(metrics["counts"]["decoded"], 24);
  const Json predicted = attune_json({"predict", "run", "--text", "Where is the queen?"});
  EXPECT_EQ(predicted["results"][0]["text"], "She is gone.");
  const Json generated =
      attune_json({"generate", "run/model", "--prompt", "Where is the queen?", "--ids"});
  EXPECT_EQ(generated["results"][0]["text"], "She is gone.");
  EXPECT_EQ(generated["results"][0]["output_ids"].front(), 0);
}

TEST_F(Translation, TasksSayWhichModelsTheyNeed) {
  write("pairs.jsonl", pairs("source", "target", 24));
  const auto refused = [&](const std::string& model, const std::string& task) {
    const Outcome outcome =
        attune({"train", "--model", model, "--task", task, "--train", "pairs.jsonl", "--columns",
                "prompt=source,completion=target", "--output", "run"});
    EXPECT_EQ(outcome.status, 5) << outcome.err;
    return outcome.err;
  };
  EXPECT_NE(refused("pair", "sft").find("choose task seq2seq"), std::string::npos);
  EXPECT_NE(refused("decoder", "seq2seq").find("choose task sft"), std::string::npos);
  EXPECT_FALSE(exists("run"));
}

TEST_F(Language, GenerateGivesTheTokensOfTransformers) {
  for (const char* model : {"llama/lm", "t5/lm"}) {
    const std::string folder = std::string(ATTUNE_TEST_DATA) + "/" + model;
    const Json golden = Json::parse(read_file(folder + "/generated.json"));
    const bool encoder = golden.contains("decoder_start_token_id");
    std::string rows;
    for (const Json& prompt : golden["prompts"]) rows += Json{{"input_ids", prompt}}.dump() + "\n";
    write("prompts.jsonl", rows);
    for (const Json& run : golden["runs"]) {
      if (!run["eos"].empty() || run["length_penalty"] != 1.0) continue;
      const Json found =
          attune_json({"generate", folder, "--input", "prompts.jsonl", "--ids", "--ignore-eos",
                       "--max-new-tokens", "20", "--beams", std::to_string(run["beams"].get<int>()),
                       "--precision", "fp32"});
      for (size_t i = 0; i < 3; ++i) {
        std::vector<int> expected = run["new_tokens"][i].get<std::vector<int>>();
        if (encoder) expected.insert(expected.begin(), 0);
        EXPECT_EQ(found["results"][i]["output_ids"], expected) << model << run["beams"];
      }
    }
  }
}

TEST_F(Language, SamplingIsAFunctionOfTheSeed) {
  const auto sampled = [&](const std::string& seed, const std::vector<std::string>& more) {
    std::vector<std::string> args = {"generate", "decoder",     "--prompt", "My lord",
                                     "--ids",    "--seed",      seed,       "--max-new-tokens",
                                     "12",       "--ignore-eos"};
    args.insert(args.end(), more.begin(), more.end());
    return attune_json(args)["results"][0]["output_ids"];
  };
  EXPECT_EQ(sampled("1", {"--temperature", "1.2"}), sampled("1", {"--temperature", "1.2"}));
  EXPECT_NE(sampled("1", {"--temperature", "1.2"}), sampled("2", {"--temperature", "1.2"}));
  EXPECT_EQ(sampled("1", {"--top-k", "1"}), sampled("2", {"--greedy"}));
}

TEST_F(Language, GenerateExplainsBadInput) {
  const auto refused = [&](const std::vector<std::string>& more, const std::string& what) {
    std::vector<std::string> args = {"generate", "decoder"};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome outcome = attune(args);
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    EXPECT_NE(outcome.err.find(what), std::string::npos) << outcome.err;
  };
  refused({}, "nothing to go on with: give --prompt TEXT, or --input F.jsonl");
  refused({"--prompt", "a", "--input", "b"}, "give either --prompt or --input, not both");
  refused({"--prompt", "a", "--greedy", "--top-k", "3"}, "--greedy takes the likeliest token");
  refused({"--prompt", "a", "--temperature", "0"}, "the temperature is 0");
  refused({"--prompt", "a", "--beams", "2", "--top-p", "0.5"}, "beam search takes the likeliest");
  const Outcome outcome = attune({"generate", "model", "--prompt", "a"});
  EXPECT_EQ(outcome.status, 5);
  EXPECT_NE(outcome.err.find("this model has no language model head"), std::string::npos);
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

}  // namespace language_test

}  // namespace attune
