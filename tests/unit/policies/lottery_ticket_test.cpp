#include <algorithm>
#include <cmath>

#include "support/toy_run.h"
#include "tensor/autograd.h"

namespace attune {
namespace lottery_ticket_test {

const ToyRun::Named kFull{{"full", Json::object()}};

/// What differs from the base, by name.
Snapshot moved(ToyRun& run) {
  Snapshot result;
  for (const std::pair<const std::string, Tensor>& entry : run.trained())
    result[entry.first] = entry.second.ne(run.base(entry.first));
  return result;
}

bool of_head(const std::string& name) {
  return name.find("head.") != std::string::npos;
}

/// Twelve epochs of one batch each, so that a phase of six steps is a run of six.
void whole_batches(ToyRun& run, double epochs) {
  run.config.batches.batch_size = 12;
  run.config.epochs = epochs;
  run.config.clip = 0.5;
}

TEST(LotteryTicket, KeepsExactlyTheParametersThatMovedMost) {
  ToyRun ticket(kFull, {{"lottery_ticket", Json{{"count", 60}}}}), full(kFull);
  whole_batches(ticket, 12);
  whole_batches(full, 6);  // the first phase alone, with its own schedule
  ticket.train();
  full.train();
  std::vector<double> distances;
  Snapshot first;
  for (const std::pair<const std::string, Tensor>& entry : full.trained()) {
    if (of_head(entry.first)) continue;
    first[entry.first] = (entry.second - full.base(entry.first)).abs();
    for (int64_t i = 0; i < entry.second.numel(); ++i)
      distances.push_back(first[entry.first].reshape({-1})[i].item<double>());
  }
  std::sort(distances.rbegin(), distances.rend());
  ASSERT_GT(distances[59] - distances[60], 1e-9);
  int64_t changed = 0;
  for (const std::pair<const std::string, Tensor>& entry : moved(ticket)) {
    if (of_head(entry.first)) {
      EXPECT_TRUE(entry.second.all().item<bool>()) << "a new head trains whole";
      continue;
    }
    const Tensor expected = first.at(entry.first).gt((distances[59] + distances[60]) / 2);
    EXPECT_TRUE(at::equal(entry.second, expected)) << entry.first;
    changed += entry.second.sum().item<int64_t>();
  }
  EXPECT_EQ(changed, 60) << "of all tensors together";
}

TEST(LotteryTicket, KeepingAllIsFullFineTuningFromTheStart) {
  ToyRun ticket(kFull, {{"lottery_ticket", Json{{"density", 1}}}}), full(kFull);
  whole_batches(ticket, 12);
  whole_batches(full, 6);
  ticket.config.schedule.warmup_steps = full.config.schedule.warmup_steps = 2;
  ticket.train();
  full.train();
  // Only the order of the rows inside the one batch differs: rounding.
  for (const std::pair<const std::string, Tensor>& entry : full.trained())
    EXPECT_LE((entry.second - ticket.trained().at(entry.first)).abs().max().item<double>(), 1e-10)
        << entry.first;
}

TEST(LotteryTicket, OtherTensorsTrainWholeAndAreRewoundToo) {
  const ToyRun::Named methods{{"full", Json{{"sites", {"enc.*"}}}},
                              {"head", Json{{"fresh_only", true}}},
                              {"lora", Json{{"rank", 1}, {"sites", {"enc.0.self.q"}}}}};
  ToyRun ticket(methods, {{"lottery_ticket", Json{{"density", 1}, {"sites", {"*.ffn.*"}}}}});
  ToyRun plain(methods);
  whole_batches(ticket, 12);
  whole_batches(plain, 6);
  ticket.train();
  plain.train();
  for (const std::pair<const std::string, Tensor>& entry : plain.trained())
    EXPECT_LE((entry.second - ticket.trained().at(entry.first)).abs().max().item<double>(), 1e-10)
        << entry.first;
}

TEST(LotteryTicket, WhatIsNotKeptIsBitEqualUnderDecayMomentsClippingAndAccumulation) {
  ToyRun run(kFull, {{"lottery_ticket", Json{{"density", 0.1}}}});
  run.config.adamw.weight_decay = 0.5;
  run.config.accumulate = 2;
  run.config.clip = 0.1;
  run.config.epochs = 4;
  run.train();
  int64_t elements = 0, changed = 0;
  for (const std::pair<const std::string, Tensor>& entry : moved(run)) {
    if (of_head(entry.first)) continue;
    elements += entry.second.numel();
    changed += entry.second.sum().item<int64_t>();
  }
  EXPECT_LE(changed, static_cast<int64_t>(std::floor(0.1 * static_cast<double>(elements))));
  EXPECT_GE(changed, elements / 20);
}

TEST(LotteryTicket, ThePullToTheStartIsTheMeanDistanceAndHasNoSlopeThere) {
  ToyRun run(kFull, {{"lottery_ticket", Json{{"full_l1", 0.3}}}});
  std::vector<Param> params = run.adaptation.trainable();
  TrainState state{run.model, run.adaptation, params, {}};
  run.policies[0]->begin(state);
  const Batch batch = toy_batch(0, 4);
  const auto around = [&] {
    return run.policies[0]->around(state, batch, [](const Batch&) {
      return Loss{{at::zeros({}, at::kDouble), 4}, {}};
    });
  };
  backward(around().total.sum);
  for (Param& param : params) {
    if (of_head(param.name)) continue;
    EXPECT_EQ(param.value.grad().abs().max().item<double>(), 0) << param.name;
    param.value.mutable_grad() = Tensor();
  }
  int64_t parameters = 0;
  double distance = 0;
  for (Param& param : params) {
    parameters += param.value.numel();
    if (of_head(param.name)) continue;
    at::NoGradGuard no_grad;
    const Tensor by =
        normal_tensor(Stream64(4, param.name).key(), param.value.sizes().vec(), 1, at::kDouble);
    param.value.add_(by);
    for (int64_t i = 0; i < by.numel(); ++i)
      distance += std::abs(by.reshape({-1})[i].item<double>());
  }
  const Loss loss = around();
  const double each = 0.3 / static_cast<double>(parameters) * 4;  // the sum of four examples
  EXPECT_NEAR(loss.total.sum.item<double>(), each * distance, 1e-9);
  backward(loss.total.sum);
  for (const Param& param : params) {
    if (of_head(param.name)) continue;
    const Tensor sign = (param.value.detach() - run.base(param.name)).sign();
    EXPECT_LE((param.value.grad() - sign * each).abs().max().item<double>(), 1e-15);
  }
}

/// Moves every trained tensor, as the values of another run do.
Snapshot start_elsewhere(ToyRun& run) {
  at::NoGradGuard no_grad;
  for (const Param& param : run.adaptation.trainable()) {
    param.value.detach().add_(
        normal_tensor(Stream64(9, param.name).key(), param.value.sizes().vec(), 0.1, at::kDouble));
    mark_changed(param.value);
  }
  return run.trained();
}

TEST(LotteryTicket, ARunThatStartsFromAnothersValuesGoesBackToThose) {
  ToyRun run(kFull, {{"lottery_ticket", Json{{"count", 60}}}});
  const Snapshot start = start_elsewhere(run);
  run.train();
  int64_t changed = 0;
  for (const std::pair<const std::string, Tensor>& entry : run.trained())
    if (!of_head(entry.first))
      changed += entry.second.ne(start.at(entry.first)).sum().item<int64_t>();
  EXPECT_EQ(changed, 60);
  // Resumed in the first phase, such a run has its start from RUN/init again.
  for (const int64_t step : {2, 6}) {
    ToyRun rest(kFull, {{"lottery_ticket", Json{{"count", 60}}}});
    start_elsewhere(rest);
    rest.resume_from(run, step);
    EXPECT_TRUE(same(rest.trained(), run.trained())) << step;
  }
}

TEST(LotteryTicket, TheHeadGoesBackToTheOtherRunsToo) {
  ToyRun ticket(kFull, {{"lottery_ticket", Json{{"density", 1}}}}), full(kFull);
  whole_batches(ticket, 12);
  whole_batches(full, 6);
  start_elsewhere(ticket);
  start_elsewhere(full);
  ticket.train();
  full.train();
  for (const std::pair<const std::string, Tensor>& entry : full.trained())
    EXPECT_LE((entry.second - ticket.trained().at(entry.first)).abs().max().item<double>(), 1e-10)
        << entry.first;
}

TEST(LotteryTicket, MixoutMayStandBeforeOrBehindIt) {
  const Json ticket{{"count", 60}}, half{{"p", 0.5}};
  ToyRun before(kFull, {{"mixout", half}, {"lottery_ticket", ticket}});
  ToyRun behind(kFull, {{"lottery_ticket", ticket}, {"mixout", half}});
  before.train();
  behind.train();
  EXPECT_TRUE(same(before.trained(), behind.trained()));
  int64_t changed = 0;
  for (const std::pair<const std::string, Tensor>& entry : moved(before))
    if (!of_head(entry.first)) changed += entry.second.sum().item<int64_t>();
  EXPECT_EQ(changed, 60);
}

std::string train_error(const ToyRun::Named& methods, const Json& options) {
  ToyRun run(methods, {{"lottery_ticket", options}});
  return error_text(ErrorCode::BadInput, [&] { run.train(); });
}

TEST(LotteryTicket, ChoicesThatCannotBeMadeAreReadableErrors) {
  EXPECT_NE(train_error(kFull, Json{{"count", 100000}})
                .find("lottery_ticket: count 100000 is more than the "),
            std::string::npos);
  EXPECT_NE(train_error(kFull, Json{{"density", 1e-6}}).find("leaves none to train"),
            std::string::npos);
  EXPECT_EQ(train_error({{"lora", Json{{"rank", 1}}}}, Json::object()),
            "lottery_ticket: no tensor of the base model trains among the chosen sites; add a "
            "method that trains them, such as full");
  EXPECT_EQ(train_error({{"sparse_mask", Json{{"choose", "random"},
                                              {"density", 0.5},
                                              {"sites", {"*.self.q"}},
                                              {"biases", false}}}},
                        Json::object()),
            "lottery_ticket: default/0.sparse_mask/enc.0.self.q/weight has a mask of its method's "
            "own; the ticket is drawn from tensors that train whole, so use a method such as full");
}

TEST(LotteryTicket, AnotherShareThanTheCheckpointsIsRefused) {
  ToyRun whole(kFull, {{"lottery_ticket", Json{{"count", 10}}}});
  whole.train();
  ToyRun rest(kFull, {{"lottery_ticket", Json{{"count", 10}, {"share", 0.25}}}});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { rest.resume_from(whole, 3); }),
            "lottery_ticket: the checkpoint's run keeps 10 parameters after 0.5 of the run, but "
            "this recipe says 10 after 0.25; resume with the recipe of the run");
}

}  // namespace lottery_ticket_test
}  // namespace attune
