// A checkpoint that has a head for labels already.
#include <gtest/gtest.h>

#include "base/file.h"
#include "recipe/session.h"
#include "recipe/target.h"
#include "recipe/yaml.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace own_head_test {

class OwnHead : public ::testing::Test {
 protected:
  /// A classifier (or tagger) of two labels by these names.
  void checkpoint(const std::vector<std::string>& names,
                  const std::string& class_name = "BertForSequenceClassification") {
    Json config = parse_json(
        R"({"model_type": "bert", "vocab_size": 2700, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 64,
            "type_vocab_size": 2})",
        "the config");
    config["architectures"] = {class_name};
    for (size_t i = 0; i < names.size(); ++i) config["id2label"][std::to_string(i)] = names[i];
    LoadOptions options;
    options.seed = 7;
    const std::unique_ptr<Model> model = init_model(config, "config.json", options);
    stored_ = model->slot(model->site("head.proj")).weight.clone();
    write_model(*model, "", folder_.file("model"), Json::object());
    folder_.write("model/tokenizer.json",
                  read_file(std::string(ATTUNE_TEST_DATA) + "/tokenizer_small/tokenizer.json"));
  }
  /// Rows "a tree" with these labels, as JSON values.
  Session session(const std::vector<std::string>& labels) {
    std::string rows;
    for (const std::string& label : labels)
      rows += "{\"text\": \"a tree\", \"label\": " + label + "}\n";
    folder_.write("train.jsonl", rows);
    return Session(Recipe::from_node(
        parse_yaml("task: classify\nmethods: [lora]\ntrain: {precision: fp32}\n", "r.yaml")
            .with("model", Node::scalar(folder_.file("model"), true, {}))
            .with("data.train", Node::scalar(folder_.file("train.jsonl"), true, {}))
            .with("output", Node::scalar(folder_.file("run"), true, {}))));
  }
  /// Is the head of the file the session's, and frozen?
  bool kept(Session& session) const {
    const WeightSlot& slot = session.model().slot(session.model().site("head.proj"));
    EXPECT_EQ(at::equal(slot.weight, stored_), !slot.fresh);
    return !slot.fresh;
  }

  TempFolder folder_;
  Tensor stored_;
};

using Names = std::vector<std::string>;

TEST_F(OwnHead, KeepsItsOrderWhereItHasTheLabelsOfTheData) {
  checkpoint({"bad", "good"});
  for (const Names& labels : {Names{"\"good\"", "\"bad\""}, Names{"1", "0"}}) {
    Session same = session(labels);
    EXPECT_EQ(same.task().labels(), (Names{"bad", "good"}));
    EXPECT_TRUE(kept(same));
  }
}

TEST_F(OwnHead, IsDrawnAnewForOtherLabels) {
  checkpoint({"bad", "good"});
  Session others = session({"\"spam\"", "\"ham\""});
  EXPECT_EQ(others.task().labels(), (Names{"spam", "ham"}));
  EXPECT_FALSE(kept(others));
  ASSERT_FALSE(others.loaded().report.fresh.empty());
  EXPECT_EQ(others.loaded().report.fresh[0],
            "classifier.weight (the checkpoint's is for other labels)");
  // What was trained is loaded on the same base again.
  save_adapter(others.adaptation(), "default", others.card(), folder_.file("run/adapter"));
  TargetRequest request;
  request.name = folder_.file("run");
  request.precision = "fp32";
  const std::unique_ptr<Target> target = open_target(request);
  EXPECT_TRUE(target->model().slot(target->model().site("head.proj")).fresh);

  checkpoint({"bad", "good"}, "BertForTokenClassification");
  Session tagger = session({"\"good\"", "\"bad\""});
  EXPECT_FALSE(kept(tagger));
}

TEST_F(OwnHead, WithoutNamesIsForNumbers) {
  checkpoint({"LABEL_0", "LABEL_1"});
  Session numbers = session({"1", "0"});
  EXPECT_EQ(numbers.task().labels(), (Names{"0", "1"}));
  EXPECT_TRUE(kept(numbers));
  Session words = session({"\"good\"", "\"bad\""});
  EXPECT_FALSE(kept(words));
  Session others = session({"1", "2"});
  EXPECT_FALSE(kept(others));
  Session named = session({"\"LABEL_1\"", "\"LABEL_0\""});
  EXPECT_EQ(named.task().labels(), (Names{"LABEL_0", "LABEL_1"}));
  EXPECT_TRUE(kept(named));
}

TEST_F(OwnHead, OfMoreLabelsIsNotForNumbers) {
  checkpoint({"crane", "tench", "crane"});  // as ImageNet's, which has two of that name
  Session numbers = session({"0", "1"});
  EXPECT_EQ(numbers.task().labels(), (Names{"0", "1"}));
  EXPECT_FALSE(kept(numbers));
  Session all = session({"2", "0", "1"});
  EXPECT_EQ(all.task().labels(), (Names{"0", "1", "2"}));
  EXPECT_TRUE(kept(all));
}

}  // namespace own_head_test
}  // namespace attune
