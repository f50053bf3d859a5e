// init_from: a run that starts from the values of another; dropout of the head.
#include "base/text.h"
#include "e2e/workshop.h"

namespace attune {

namespace warm_start_test {

/// Trained, but by so little that no value changes.
const std::vector<std::string> kStill = {"train.steps=1", "train.lr=1e-30", "output=still"};

class WarmStart : public Workshop {
 protected:
  void SetUp() override {
    Workshop::SetUp();
    ASSERT_EQ(train({"output=first", "train.steps=30"}).status, 0);
  }
  /// Trains nothing on top of `first`.
  Outcome start(const std::vector<std::string>& sets) const {
    std::vector<std::string> all = kStill;
    all.push_back("init_from=first");
    all.insert(all.end(), sets.begin(), sets.end());
    return train(all);
  }
  void refused(const std::vector<std::string>& sets, int status,
               const std::vector<std::string>& parts) const {
    expect_refused(start(sets), status, parts);
    EXPECT_FALSE(exists("still"));
  }
};

std::string tensors(const std::string& run) {
  return run + "/adapter/attune.safetensors";
}

TEST_F(WarmStart, TheValuesOfTheOtherRunAreTheStart) {
  const Outcome outcome = start({"train.seed=7"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(read(tensors("still")), read(tensors("first")));
  EXPECT_NE(outcome.err.find("start      from first\n"), std::string::npos) << outcome.err;
  const std::string text = "the happy house";
  EXPECT_EQ(attune({"predict", "still", "--text", text}).out,
            attune({"predict", "first", "--text", text}).out);
}

TEST_F(WarmStart, FullFineTuningAndSeededMethodsStartToo) {
  for (const char* methods : {"[]", "[{vera: {rank: 4}}]"}) {
    const std::string set = std::string("methods=") + methods;
    ASSERT_EQ(train({set, "output=a", "train.steps=5", "train.lr=1e-3"}).status, 0) << methods;
    ASSERT_EQ(start({set, "init_from=a", "train.seed=9"}).status, 0) << methods;
    EXPECT_EQ(read(tensors("still")), read(tensors("a"))) << methods;
    EXPECT_EQ(attune({"predict", "still", "--text", "happy"}).out,
              attune({"predict", "a", "--text", "happy"}).out)
        << methods;
    std::filesystem::remove_all(folder_ / "a");
    std::filesystem::remove_all(folder_ / "still");
  }
}

TEST_F(WarmStart, LabelsKeepTheOrderOfTheOtherRun) {
  // The first row decides the order of labels where there is no other run.
  write("train.jsonl", "{\"text\": \"sad\", \"label\": \"bad\"}\n" + classify_rows(60, 2));
  const Json first = json("first/adapter/attune.json")["task_state"]["labels"];
  ASSERT_EQ(start({}).status, 0);
  EXPECT_EQ(json("still/adapter/attune.json")["task_state"]["labels"], first);
  EXPECT_EQ(read(tensors("still")), read(tensors("first")));
}

TEST_F(WarmStart, OtherLabelsGetANewHead) {
  std::string rows = classify_rows(60, 2);
  for (size_t at; (at = rows.find("\"good\"")) != std::string::npos;)
    rows.replace(at, 6, "\"fine\"");
  write("train.jsonl", rows);
  const Outcome outcome = start({});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("the head starts anew, for its labels are others"), std::string::npos)
      << outcome.err;
  EXPECT_EQ(json("still/adapter/attune.json")["task_state"]["labels"].size(), 2u);
  EXPECT_NE(read(tensors("still")), read(tensors("first")));
}

TEST_F(WarmStart, OtherMethodsAreRefusedAndTheDifferenceIsNamed) {
  const std::string lora = "{lora: {sites: \"enc.*.self.[qv]\", rank: 4}}";
  refused({"methods=[{ia3: {}}]"}, 2,
          {"init_from: first was trained with the methods lora, this recipe has ia3 "
           "(only there: lora; only here: ia3)",
           "take the same methods in the same order, or start from its weights: attune merge first "
           "-o DIR, and DIR as `model`"});
  refused({"methods=[" + lora + ", {bias: {}}]"}, 2,
          {"with the methods lora, this recipe has lora + bias (only here: bias)"});
  refused({"methods=[]"}, 2, {"this recipe has full (only there: lora; only here: full)"});
  ASSERT_EQ(train({"methods=[" + lora + ", {bias: {}}]", "output=two", "train.steps=2"}).status, 0);
  refused(
      {"methods=[{bias: {}}, " + lora + "]", "init_from=two"}, 2,
      {"with the methods lora + bias, this recipe has bias + lora (the same in another order)"});
  refused({"methods=[{bias: {}}]", "init_from=two"}, 2, {"(only there: lora)"});
  refused(
      {"methods=[{lora: {sites: \"enc.*.self.[qkv]\", rank: 4}}, {bias: {}}]", "init_from=two"}, 2,
      {"there is no tensor 0.lora/enc.0.self.k/", "Options that differ: methods[0].lora.sites"});
}

TEST_F(WarmStart, OptionsThatGiveOtherTensorsAreRefusedAndNamed) {
  const auto lora = [](const std::string& options) {
    return "methods=[{lora: {sites: \"enc.*.{self.[qkvo],ffn.up,ffn.down}\", " + options + "}}]";
  };
  refused({lora("rank: 8, alpha: 8")}, 2,
          {"the values of first do not fit this recipe's methods: the tensor 0.lora/", "has shape",
           "Options that differ: methods[0].lora.rank is 4 there and 8 here; give the methods the "
           "options they had there"});
  const auto sites = [](const std::string& glob) {
    return "methods=[{lora: {sites: \"" + glob + "\", rank: 4, alpha: 8}}]";
  };
  refused({sites("enc.*.self.q")}, 2, {"is only there", "methods[0].lora.sites is "});
}

TEST_F(WarmStart, OptionsThatKeepTheTensorsAreReported) {
  const Outcome outcome =
      start({"methods=[{lora: {sites: \"enc.*.{self.[qkvo],ffn.up,ffn.down}\", rank: 4, alpha: 16, "
             "dropout: 0.2}}]"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  for (const char* part : {"init_from: methods[0].lora.alpha is 8", "there and 16",
                           " here; the values of first are taken as "
                           "they are",
                           "methods[0].lora.dropout is 0"})
    EXPECT_NE(outcome.err.find(part), std::string::npos) << part << "\n" << outcome.err;
  EXPECT_EQ(read(tensors("still")), read(tensors("first")));
}

TEST_F(WarmStart, WhatIsNoRunIsNamed) {
  refused({"init_from=nowhere"}, 3,
          {"init_from: there is no folder nowhere; give the directory of "
           "a run, or null to start anew"});
  refused({"init_from=model"}, 3,
          {"init_from: model is not a run: neither adapter/attune.json nor attune.json is in it"});
  std::filesystem::create_directories(folder_ / "begun");
  std::filesystem::copy_file(folder_ / "first/recipe.yaml", folder_ / "begun/recipe.yaml");
  refused({"init_from=begun"}, 3,
          {"init_from: the run begun has not finished: it has no adapter yet; `attune resume "
           "begun` goes on with it"});
  attune_json({"export", "first", "--to", "peft", "-o", "peft"});
  refused({"init_from=peft"}, 5,
          {"init_from: peft is an adapter of PEFT, and a run of Attune is expected",
           "attune merge peft -o DIR"});
}

TEST_F(WarmStart, AnotherModelIsNamedWithItsArchitecture) {
  // The same shapes with other values.
  std::filesystem::create_directories(folder_ / "config");
  std::filesystem::copy_file(folder_ / "model/config.json", folder_ / "config/config.json");
  attune_json({"init", "config", "-o", "second", "--seed", "9"});
  std::filesystem::copy_file(folder_ / "model/tokenizer.json", folder_ / "second/tokenizer.json");
  refused({"model=second"}, 2,
          {"init_from: first was trained on model, whose tensors are not those of second (SHA-256 ",
           "give as `model` the one it was trained on"});
  write("config/config.json",
        R"({"model_type": "llama", "architectures": ["LlamaModel"], "vocab_size": 2700,
      "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
      "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
      "rms_norm_eps": 1e-6, "hidden_act": "silu"})");
  attune_json({"init", "config", "-o", "third"});
  std::filesystem::copy_file(folder_ / "model/tokenizer.json", folder_ / "third/tokenizer.json");
  refused({"model=third"}, 2,
          {"was trained on model, whose tensors are not those of third",
           "and that was a bert model, this is a llama one"});
}

TEST_F(WarmStart, ARunDoesNotReplaceTheOneItStartsFrom) {
  std::vector<std::string> args = train_args({"init_from=first", "output=first", "train.steps=1"});
  args.insert(args.end(), {"--overwrite", "--quiet"});
  expect_refused(attune(args), 2, {"init_from: first lies in the output directory first"});
  EXPECT_TRUE(exists(tensors("first")));
}

TEST_F(WarmStart, ResumingDoesNotNeedTheOtherRun) {
  ASSERT_EQ(train({"init_from=first", "output=a", "train.steps=9"}).status, 0);
  ASSERT_EQ(train({"init_from=first", "output=b", "train.steps=9"}).status, 0);
  EXPECT_EQ(read(tensors("a")), read(tensors("b")));
  std::filesystem::remove_all(folder_ / "first");
  std::filesystem::remove_all(folder_ / "a/checkpoints/step-000009");
  std::filesystem::remove_all(folder_ / "b/checkpoints");
  for (const char* run : {"a", "b"}) {
    const std::string before = read(tensors(run));
    const Outcome outcome = attune({"resume", run});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(read(tensors(run)), before) << run;
  }
}

TEST_F(WarmStart, DropoutOfTheHeadIsTheRecipes) {
  const auto loss = [&](const std::string& head) {
    std::filesystem::remove_all(folder_ / "d");
    return attune_json(train_args({"output=d", "train.steps=1", "head=" + head}))["first_loss"]
        .get<double>();
  };
  const double own = loss("{pool: mean}");
  EXPECT_EQ(loss("{pool: mean, dropout: 0.1}"), own);  // the checkpoint's
  EXPECT_NE(loss("{pool: mean, dropout: 0}"), own);
  EXPECT_NE(loss("{pool: mean, dropout: 0.9}"), own);
}

}  // namespace warm_start_test
}  // namespace attune
