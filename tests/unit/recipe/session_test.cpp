#include "recipe/session.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/hash.h"
#include "io/safetensors.h"
#include "kernels/kernels.h"
#include "recipe/forward_inputs.h"
#include "recipe/verify.h"
#include "recipe/yaml.h"
#include "support/temp_folder.h"

namespace attune {
namespace session_test {

constexpr const char* kConfig =
    R"({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 2700,
  "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
  "max_position_embeddings": 64, "type_vocab_size": 2})";

/// A tiny model and a few rows in a folder of their own.
class Sessions : public ::testing::Test {
 protected:
  Sessions() {
    make_model("model", 1);
    folder_.write("train.jsonl",
                  "{\"text\": \"the house\", \"label\": \"good\"}\n"
                  "{\"text\": \"a tree\", \"label\": \"bad\"}\n"
                  "{\"text\": \"a river\", \"label\": \"bad\"}\n");
    folder_.write("dev.jsonl", "{\"text\": \"the night\", \"label\": \"bad\"}\n");
  }
  void make_model(const std::string& name, uint64_t seed, bool tokenizer = true) {
    LoadOptions options;
    options.seed = seed;
    const Json config = parse_json(kConfig, "the config");
    write_model(*init_model(config, "config.json", options), "", folder_.file(name),
                Json::object());
    if (tokenizer)
      folder_.write(name + "/tokenizer.json",
                    read_file(std::string(ATTUNE_TEST_DATA) + "/tokenizer_small/tokenizer.json"));
  }
  Recipe recipe(const std::vector<std::string>& sets) const {
    Node node = parse_yaml("task: classify\nmethods: [lora]\ntrain: {precision: fp32}\n", "r.yaml")
                    .with("model", Node::scalar(folder_.file("model"), true, {}))
                    .with("data.train", Node::scalar(folder_.file("train.jsonl"), true, {}))
                    .with("output", Node::scalar(folder_.file("run"), true, {}));
    for (const std::string& set : sets) node = apply_set(node, set);
    return Recipe::from_node(node);
  }
  std::string refused(ErrorCode code, const std::vector<std::string>& sets) const {
    return error_text(folder_, code, [&] {
      Session session(recipe(sets));
      session.train_config();
      session.check_rows();
    });
  }
  std::string dev() const { return folder_.file("dev.jsonl"); }
  TargetRequest request(const std::string& name, bool need_task = false) const {
    TargetRequest request;
    request.name = folder_.file(name);
    request.precision = "fp32";
    request.need_task = need_task;
    return request;
  }

  TempFolder folder_;
};

TEST_F(Sessions, WhatTheRecipeSaysIsMade) {
  Session session(recipe({"eval_on=[" + dev() + "]", "head={dropout: 0.3, pool: mean}"}));
  EXPECT_EQ(session.train_view().size(), 3);
  ASSERT_EQ(session.eval_on().size(), 1u);
  EXPECT_EQ(session.eval_on()[0].name, "dev");
  EXPECT_EQ(session.card().directory, folder_.file("model"));
  EXPECT_EQ(session.start(), nullptr);
  EXPECT_EQ(session.parts("run").eval_on.size(), 1u);
  EXPECT_TRUE(session.train_config().batches.mixture.empty());
}

TEST_F(Sessions, WeightsMakeAMixtureOfTheRowsLeftForTraining) {
  const std::string files = "data.train=[{path: " + folder_.file("train.jsonl") +
                            ", weight: 3}, {path: " + dev() + ", weight: 1}]";
  const Session session(recipe({files}));
  const std::vector<MixtureSource> mixture = session.train_config().batches.mixture;
  ASSERT_EQ(mixture.size(), 2u);
  EXPECT_EQ(mixture[0].examples, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(mixture[1].examples, (std::vector<int64_t>{3}));
  EXPECT_EQ(mixture[0].weight, 3);
}

TEST_F(Sessions, AFileWhoseRowsAreAllHeldOutIsNamed) {
  const std::string files = "data.train=[{path: " + folder_.file("train.jsonl") +
                            ", weight: 3}, {path: " + dev() + ", weight: 1}]";
  std::string text;
  for (int seed = 0; seed < 50 && text.empty(); ++seed) {
    // Which rows are held out is the seed's choice: one of them takes the only row of the file.
    try {
      Session(recipe({files, "data.eval=2", "train.seed=" + std::to_string(seed)})).train_config();
    } catch (const Error& error) {
      text = error.what();
    }
  }
  EXPECT_EQ(text, "data.train[1]: none of the rows of " + dev() +
                      " are left for training; hold out fewer (data.eval), or leave the file out");
}

TEST_F(Sessions, WhatIsWrongWithARecipeIsNamed) {
  EXPECT_EQ(refused(ErrorCode::Unsupported, {"data.too_long=stride"}),
            "data.too_long: stride belongs to question answering, which is not built yet; choose "
            "truncate or error");
  EXPECT_EQ(refused(ErrorCode::BadInput, {"data.max_length=65"}),
            "data.max_length: 65 is more than the 64 positions of model");
  EXPECT_EQ(Session(recipe({"class_weights={good: 2}"})).parts("run").class_weights.numel(), 2);
  EXPECT_EQ(error_text(folder_, ErrorCode::BadInput,
                       [&] { Session(recipe({"class_weights={goood: 2}"})).parts("run"); }),
            "class_weights: the label \"goood\" does not occur; did you mean \"good\"?");
  EXPECT_EQ(refused(ErrorCode::BadInput, {"train.best=accuracy"}),
            "train.best needs evaluation data: give data.eval a file or a share such as 10%");
  EXPECT_EQ(refused(ErrorCode::BadInput, {"train.best=auto", "eval_on=[" + dev() + "]"}),
            "train.best needs evaluation data: give data.eval a file or a share such as 10%, or "
            "name a metric of eval_on, as in dev/accuracy");
  EXPECT_EQ(refused(ErrorCode::BadInput, {"train.best=dev/pearson", "eval_on=[" + dev() + "]"})
                .find("train.best: the task classify has no metric \"pearson\"; known: accuracy"),
            0u);
}

TEST_F(Sessions, TextsLeaveRoomForPromptRowsInATableOfPositions) {
  std::string words = "{\"label\": \"good\", \"text\": \"";
  for (int i = 0; i < 90; ++i) words += "tree ";
  folder_.write("long.jsonl", words + "\"}\n");
  const std::string rows = "data.eval=" + folder_.file("long.jsonl");
  for (const std::string method :
       {"prompt: {length: 5}", "prefix: {length: 5, shift_positions: true}"}) {
    Session session(recipe({"methods=[{" + method + "}]", rows}));
    EXPECT_EQ(session.recipe().max_length, 59);
    EXPECT_NO_THROW(session.check_rows());
    const Example longest = session.eval_view().encode(session.task(), 0, true);
    EXPECT_EQ(longest.ids.size(), 59u);
    EXPECT_NO_THROW(session.model().forward(session.task().collate({longest}), {}));
    EXPECT_EQ(refused(ErrorCode::BadInput, {"methods=[{" + method + "}]", "data.max_length=60"}),
              "data.max_length: 60 tokens and the 5 rows that the methods put in front of them are "
              "more than the 64 positions of model; give 59 at most");
  }
  EXPECT_EQ(Session(recipe({"methods=[{prefix: {length: 5}}]", rows})).recipe().max_length, 0);
}

TEST_F(Sessions, StartingFromWhatIsNoRunIsNamed) {
  EXPECT_EQ(refused(ErrorCode::NotFound, {"init_from=" + folder_.file("nowhere")}),
            "init_from: there is no folder nowhere; give the directory of a run, or null to start "
            "anew");
  EXPECT_EQ(refused(ErrorCode::NotFound, {"init_from=" + folder_.file("model")}),
            "init_from: model is not a run: neither adapter/attune.json nor attune.json is in it");
}

TEST_F(Sessions, AStartThatCannotBeKeptIsAnError) {
  Session session(recipe({}));
  save_adapter(session.adaptation(), "default", session.card(), folder_.file("first/adapter"));
  const WarmStart start(folder_.file("first"));
  folder_.write("file", "x");
  const std::string text =
      error_text(folder_, ErrorCode::Io, [&] { start.keep_in(folder_.file("file")); });
  EXPECT_EQ(text.find("keeping first/adapter/attune.json in file/init: "), 0u) << text;
  std::filesystem::create_directories(folder_.file("run"));
  start.keep_in(folder_.file("run"));
  EXPECT_EQ(kept_start(folder_.file("run")), folder_.file("run/init"));
  EXPECT_EQ(read_file(folder_.file("run/init/attune.safetensors")),
            read_file(folder_.file("first/adapter/attune.safetensors")));
  EXPECT_EQ(kept_start(folder_.file("first")), "");
}

TEST(Precision, UnknownOnesAreNamed) {
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { numerics_of("fp8"); }),
            "precision \"fp8\" is unknown; choose auto, fp32, bf16 or fp64");
  if (kernels::has_native_bf16()) {
    EXPECT_EQ(numerics_of("bf16").compute, kernels::DType::BF16);
    EXPECT_EQ(numerics_of("auto").compute, kernels::DType::BF16);
  } else {
    EXPECT_EQ(numerics_of("auto").compute, kernels::DType::F32);
    EXPECT_EQ(error_text(ErrorCode::Unsupported, [] { numerics_of("bf16"); }),
              "precision bf16: this CPU has no AVX-512 BF16 or AMX; choose fp32 (auto does)");
  }
}

TEST_F(Sessions, ATargetWithoutAHeadOrAnAdapterIsNamed) {
  EXPECT_EQ(error_text(folder_, ErrorCode::BadInput, [&] { open_target(request("model", true)); }),
            "model has no head that a task could read; give a RUN, or a checkpoint with a "
            "classification or tagging head (`attune tasks` lists the tasks)");
  folder_.write("half/recipe.yaml", "model: m\n");
  EXPECT_EQ(error_text(folder_, ErrorCode::NotFound, [&] { open_target(request("half")); }),
            "half is a run that has not finished: it has no adapter yet; `attune resume half` goes "
            "on with it");
}

TEST_F(Sessions, AnObjectiveThatDoesNotFitTheTaskIsNamed) {
  EXPECT_EQ(refused(ErrorCode::BadInput, {"objective=mse"}),
            "objective: mse reads targets, and the examples of task classify have labels; take "
            "cross_entropy (auto does), or another task");
  EXPECT_EQ(refused(ErrorCode::BadInput, {"objective=binary_cross_entropy"})
                .find("objective: binary_cross_entropy reads targets"),
            0u);
  folder_.write("scores.jsonl", "{\"text\": \"a\", \"score\": 1}\n");
  const std::string scores = "data.train=" + folder_.file("scores.jsonl");
  EXPECT_EQ(refused(ErrorCode::BadInput, {scores, "task=regress", "objective=cross_entropy"}),
            "objective: cross_entropy reads labels, and the examples of task regress have targets; "
            "take mse (auto does), or another task");
}

TEST_F(Sessions, WhatATasksLossDoesNotTakeIsNamed) {
  folder_.write("scores.jsonl", "{\"text\": \"a\", \"text_pair\": \"b\", \"score\": 1}\n");
  const std::string scores = "data.train=" + folder_.file("scores.jsonl");
  EXPECT_EQ(refused(ErrorCode::BadInput, {scores, "task=regress", "label_smoothing=0.1"}),
            "label_smoothing: only cross_entropy spreads its target, and task regress trains with "
            "mse here; leave it out (tasks that take it: classify, image, lm, pair with labels, "
            "seq2seq, sft, tag)");
  EXPECT_EQ(refused(ErrorCode::BadInput, {scores, "task=pair", "class_weights=balanced"}),
            "class_weights: task pair trains with mse here, and only cross_entropy weighs labels; "
            "leave them out (tasks that take them: classify, image, pair with labels, tag)");
  for (const char* option : {"label_smoothing=0.1", "class_weights=balanced"})
    EXPECT_NE(refused(ErrorCode::BadInput, {"task=classify_multi", option}).find("leave"),
              std::string::npos);
  EXPECT_EQ(Session(recipe({"label_smoothing=0.1", "class_weights=balanced"}))
                .parts("run")
                .class_weights.numel(),
            2);
}

TEST_F(Sessions, WhatTheRunIsMadeFromIsHashedFileByFile) {
  Session session(recipe({"data.eval=" + dev(), "eval_on={more: " + dev() + "}"}));
  const Json sources = session.sources();
  EXPECT_EQ(sources["data"], sha256_file(folder_.file("train.jsonl")));
  EXPECT_EQ(sources["eval"], sha256_file(dev()));
  EXPECT_EQ(sources["eval_on"], (Json{{"more", sha256_file(dev())}}));
  EXPECT_EQ(sources["model"], checkpoint_fingerprint(folder_.file("model")));
  EXPECT_FALSE(Session(recipe({})).sources().contains("eval"));
}

TEST_F(Sessions, TheSitesOfEveryMethodAreListed) {
  const Session session(recipe({"methods=[{lora: {sites: \"*.self.[qv]\"}}, norms]"}));
  const auto sites = session.method_sites();
  ASSERT_EQ(sites.size(), 2u);
  EXPECT_EQ(sites[0].first, "lora");
  EXPECT_EQ(sites[0].second, (Names{"enc.0.self.q", "enc.0.self.v"}));
  EXPECT_EQ(sites[1].first, "norms");
  EXPECT_EQ(sites[1].second, (Names{"enc.embed.norm", "enc.0.self.norm", "enc.0.ffn.norm"}));
}

TEST_F(Sessions, ATaskOnACheckpointWithoutATokenizerIsNamed) {
  make_model("bare", 1, false);
  TargetRequest asked = request("bare", true);
  asked.task = "classify";
  const std::string text = error_text(folder_, ErrorCode::NotFound, [&] { open_target(asked); });
  EXPECT_EQ(
      text,
      "bare has no tokenizer, so its task cannot read text; looked for tokenizer.json, "
      "vocab.txt, vocab.json, spiece.model, tokenizer.model, sentencepiece.bpe.model; put the "
      "tokenizer's files into bare");
}

TEST_F(Sessions, AnExportThatDiffersIsNotKept) {
  make_model("other", 2);
  const std::unique_ptr<Target> source = open_target(request("model"));
  EXPECT_EQ(verify_export(*source, request("model")), 0);
  const std::string text =
      error_text(ErrorCode::ProofFailed, [&] { verify_export(*source, request("other")); });
  EXPECT_EQ(text.find("reading the export back: its outputs differ from the run's by "), 0u)
      << text;
  EXPECT_NE(text.find(" (allowed 1e-4); it was not kept"), std::string::npos) << text;
}

TEST_F(Sessions, AutomaticRatesStandInTheResolvedRecipe) {
  const Session session(recipe({}));
  const Recipe& resolved = session.recipe();
  EXPECT_EQ(resolved.rates.size(), 2u);
  EXPECT_GT(resolved.rates.at("lora"), 0);
  EXPECT_GT(resolved.rates.at("head"), 0);
  EXPECT_EQ(session.train_config().lr,
            std::min(resolved.rates.at("lora"), resolved.rates.at("head")));
  const Session again(Recipe::from_node(parse_yaml(resolved.resolved_yaml(), "recipe.yaml")));
  EXPECT_EQ(again.recipe().resolved(), resolved.resolved()) << "running it again repeats the run";
  const std::vector<std::string> lines = session.summary();
  EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find("rates      head") == 0 && line.find("lora") != std::string::npos;
  }));
  EXPECT_TRUE(Session(recipe({"train.lr=1e-3"})).recipe().rates.empty());
  const Session given(recipe({"train.lr={lora: 3e-3}"}));
  EXPECT_EQ(given.recipe().rates.at("lora"), 3e-3);
  EXPECT_EQ(given.recipe().rates.at("head"), resolved.rates.at("head")) << "auto where not named";
  EXPECT_NE(refused(ErrorCode::BadInput, {"train.lr={lroa: 3e-3}"})
                .find("there is no method \"lroa\"; did you mean \"lora\"?"),
            std::string::npos);
  EXPECT_NE(refused(ErrorCode::BadInput, {"train.lr={lora: -1}"}).find("outside (0, 1000]"),
            std::string::npos);
}

TEST_F(Sessions, LinesThatForwardCannotReadAreNamed) {
  const std::unique_ptr<Target> target = open_target(request("model"));
  const auto bad = [&](const std::string& line, const std::string& want) {
    const Dataset data = Dataset::open(folder_.write("in.jsonl", line + "\n"));
    return error_text(folder_, ErrorCode::BadInput,
                      [&] { forward_all(*target, data, {want}, false); });
  };
  EXPECT_EQ(bad("{\"txt\": \"a\"}", "final"), "in.jsonl:1: a line needs \"input_ids\" or \"text\"");
  EXPECT_EQ(bad("{\"input_ids\": [1, 2], \"token_type_ids\": [0]}", "final"),
            "in.jsonl:1: 2 input_ids and 1 token_type_ids; both need the same, positive number");
  EXPECT_EQ(bad("{\"input_ids\": [1, 2]}", "logits"),
            "model has no head, so no logits; ask for sites, as in --want final");
  make_model("bare", 1, false);
  const std::unique_ptr<Target> bare = open_target(request("bare"));
  const Dataset data = Dataset::open(folder_.write("in.jsonl", "{\"text\": \"a\"}\n"));
  EXPECT_EQ(
      error_text(folder_, ErrorCode::NotFound, [&] { forward_all(*bare, data, {"final"}, false); }),
      "in.jsonl:1: \"text\" needs a tokenizer, and bare has none; give input_ids");
}

TEST_F(Sessions, ATokenizerThatIsNotReadMattersToTextOnly) {
  make_model("odd", 1, false);
  folder_.write("odd/tokenizer.json", R"({"model": {"type": "Odd", "vocab": {}}})");
  const std::unique_ptr<Target> target = open_target(request("odd"));
  const Dataset ids = Dataset::open(folder_.write("ids.jsonl", "{\"input_ids\": [1, 2]}\n"));
  EXPECT_EQ(forward_all(*target, ids, {"final"}, false).size(), 1u);
  const Dataset text = Dataset::open(folder_.write("in.jsonl", "{\"text\": \"a\"}\n"));
  const auto forward = [&] { forward_all(*target, text, {"final"}, false); };
  const std::string error = error_text(folder_, ErrorCode::Unsupported, forward);
  EXPECT_NE(error.find("in.jsonl:1: reading text: "), std::string::npos) << error;
  EXPECT_NE(error.find("model type \"Odd\" is not supported"), std::string::npos) << error;
  EXPECT_NE(error.find("; or give input_ids"), std::string::npos) << error;
  error_text(folder_, ErrorCode::Unsupported, [&] { open_target(request("odd", true)); });
}

}  // namespace session_test
}  // namespace attune
