#include "recipe/model_inputs.h"

#include "base/file.h"
#include "recipe/session.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace model_inputs_test {

/// A tiny classifier with a head of so many outputs.
class Losses : public ::testing::Test {
 protected:
  double loss(const std::string& problem, const std::vector<double>& logits,
              const std::string& labels) const {
    return loss_of(*target(problem, logits.size()), record(labels), tensor(logits)).item<double>();
  }
  std::string refused(const std::string& problem, const std::vector<double>& logits,
                      const std::string& labels) const {
    const std::unique_ptr<Target> model = target(problem, logits.size());
    return error_text(ErrorCode::BadInput,
                      [&] { loss_of(*model, record(labels), tensor(logits)); });
  }

 private:
  std::unique_ptr<Target> target(const std::string& problem, size_t outputs) const {
    Json config = parse_json(
        R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"],
            "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "max_position_embeddings": 8, "type_vocab_size": 2})",
        "the config");
    config["num_labels"] = outputs;
    config["problem_type"] = problem.empty() ? Json() : Json(problem);
    write_model(*init_model(config, "config.json", LoadOptions()), "", folder_.file("model"),
                Json::object());
    TargetRequest request;
    request.name = folder_.file("model");
    request.precision = "fp32";
    request.need_task = false;
    return open_target(request);
  }
  static Record record(const std::string& labels) {
    return {Json{{"labels", parse_json(labels, "the labels")}}, "in.jsonl", 3};
  }
  static Tensor tensor(const std::vector<double>& logits) {
    return at::tensor(logits, at::kDouble).reshape({1, -1});
  }
  TempFolder folder_;
};

const std::vector<double> kThree = {0.3, -1.2, 0.7};

/// Values of transformers 5.23, loss_utils.ForSequenceClassificationLoss, in double precision.
TEST_F(Losses, OfASequenceAreThoseOfTransformersByProblemType) {
  EXPECT_NEAR(loss("", kThree, "2"), 0.5987753262825496, 1e-12);
  EXPECT_NEAR(loss("single_label_classification", kThree, "2"), 0.5987753262825496, 1e-12);
  EXPECT_NEAR(loss("", kThree, "[1.0, 0.0, 1.0]"), 0.4069412535640054, 1e-12);
  EXPECT_NEAR(loss("multi_label_classification", kThree, "[1, 0, 1]"), 0.4069412535640054, 1e-12);
  EXPECT_NEAR(loss("regression", kThree, "[1, 0, 1]"), 0.6733333333333333, 1e-12);
  EXPECT_NEAR(loss("", {0.3}, "2.7"), 5.76, 1e-12);
  EXPECT_NEAR(loss("multi_label_classification", {0.3}, "[1]"), 0.5543552444685271, 1e-12);
}

TEST_F(Losses, LabelsOfTheWrongKindAreNamed) {
  EXPECT_EQ(
      refused("", kThree, "2.7"),
      "in.jsonl:3: column \"labels\": expected a class, a whole number, found the number 2.7");
  EXPECT_EQ(refused("", kThree, "\"good\""),
            "in.jsonl:3: column \"labels\": expected a class, a whole number, found \"good\"");
  EXPECT_EQ(refused("regression", {0.3}, "\"good\""),
            "in.jsonl:3: column \"labels\": expected a number, or one for each output, found "
            "\"good\"");
  EXPECT_EQ(refused("", kThree, "[1, null, 0]"),
            "in.jsonl:3: column \"labels\": expected a number, or one for each output, found null");
  EXPECT_EQ(refused("", kThree, "[1, 0]"), "in.jsonl:3: 2 labels for 3 outputs");
  EXPECT_EQ(refused("", kThree, "3"), "in.jsonl:3: label 3 is outside the 3 classes of the head");
}

}  // namespace model_inputs_test
}  // namespace attune
