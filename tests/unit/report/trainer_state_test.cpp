#include "report/trainer_state.h"

#include <gtest/gtest.h>

namespace attune {
namespace trainer_state_test {

TEST(TrainerState, LogRecordsBecomeEntriesOfTheHuggingFaceKind) {
  EXPECT_EQ(
      trainer_log_entry(
          parse_json(
              R"({"step":10,"epoch":0.5,"loss":1.25,"lr":5e-5,"grad_norm":2.0,"tokens_per_second":9})",
              "test"))
          .dump(),
      R"({"epoch":0.5,"grad_norm":2.0,"learning_rate":5e-05,"loss":1.25,"step":10})");
  EXPECT_EQ(
      trainer_log_entry(
          parse_json(R"({"step":10,"epoch":0.5,"eval":{"loss":1.5,"accuracy":0.75,"note":"x"}})",
                     "test"))
          .dump(),
      R"({"epoch":0.5,"eval_accuracy":0.75,"eval_loss":1.5,"step":10})");
}

TEST(TrainerState, FurtherEvaluationSetsLeadTheNames) {
  EXPECT_EQ(trainer_log_entry(
                parse_json(R"({"step":10,"epoch":0.5,"eval":{"accuracy":0.75,"dev/accuracy":0.5}})",
                           "test"))
                .dump(),
            R"({"epoch":0.5,"eval_accuracy":0.75,"eval_dev_accuracy":0.5,"step":10})");
}

TEST(TrainerState, OtherRecordsAreLeftOut) {
  TrainerState state;
  const Json result =
      trainer_state_json(state, {Json{{"event", "resumed"}}, Json(3), Json{{"loss", 1.0}}});
  EXPECT_EQ(result["log_history"].dump(), R"([{"loss":1.0}])");
}

TEST(TrainerState, HoldsTheKeysThatPlottersExpect) {
  TrainerState state;
  state.epoch = 3;
  state.global_step = 30;
  state.max_steps = 30;
  state.num_train_epochs = 3;
  state.best_metric = 0.5;
  state.best_model_checkpoint = "out/checkpoint-20";
  EXPECT_EQ(
      trainer_state_json(state, {}).dump(),
      R"({"best_metric":0.5,"best_model_checkpoint":"out/checkpoint-20","epoch":3.0,"eval_steps":0,)"
      R"("global_step":30,"is_hyper_param_search":false,"is_local_process_zero":true,)"
      R"("is_world_process_zero":true,"log_history":[],"logging_steps":0,"max_steps":30,)"
      R"("num_train_epochs":3,"save_steps":0,"total_flos":0.0,"train_batch_size":0,)"
      R"("trial_name":null,"trial_params":null})");
}

}  // namespace trainer_state_test
}  // namespace attune
