// What every policy promises. Driven from the registry: a policy without a line in `weakest` fails.
#include "support/toy_run.h"

namespace attune {
namespace every_policy_test {

/// Options with which a policy must change nothing; "" when none exist: it says so in its summary.
const std::map<std::string, std::string>& weakest() {
  static const std::map<std::string, std::string> options{
      {"adversarial", R"({"weight": 0})"}, {"gradual_unfreezing", R"({"share": 0})"},
      {"half", R"({"ratio": 1})"},         {"head_lr", R"({"scale": 1})"},
      {"layer_decay", R"({"factor": 1})"}, {"lottery_ticket", ""},
      {"mixout", R"({"p": 0})"},           {"r_drop", R"({"alpha": 0})"},
      {"tensor_lr", R"({"scale": 1})"}};
  return options;
}

/// "{share: 0.8}" with quoted keys.
Json tiny_options(const Entry<TrainingPolicy>& entry) {
  std::string text;
  for (size_t i = 0; i < entry.tiny.size(); ++i) {
    const bool starts = std::isalpha(static_cast<unsigned char>(entry.tiny[i])) != 0 &&
                        (i == 0 || entry.tiny[i - 1] == '{' || entry.tiny[i - 1] == ' ');
    if (!starts) {
      text += entry.tiny[i];
      continue;
    }
    const size_t end = entry.tiny.find_first_of(":,}", i);
    text += '"' + entry.tiny.substr(i, end - i) + '"';
    i = end - 1;
  }
  return Json::parse(text);
}

std::vector<std::string> names() {
  return attune::policies().names();
}

class EveryPolicy : public ::testing::TestWithParam<std::string> {
 protected:
  const ToyRun::Named methods_{{"full", Json{{"sites", {"enc.*"}}}},
                               {"head", Json{{"fresh_only", true}}}};
};

TEST_P(EveryPolicy, WithoutStrengthItHasNoEffect) {
  ASSERT_EQ(weakest().count(GetParam()), 1u) << "say with which options it has no effect";
  const std::string text = weakest().at(GetParam());
  if (text.empty()) GTEST_SKIP() << "always changes a run";
  ToyRun plain(methods_, {}, 0.1), with(methods_, {{GetParam(), Json::parse(text)}}, 0.1);
  plain.train();
  with.train();
  EXPECT_TRUE(same(plain.trained(), with.trained()));
  EXPECT_EQ(plain.model.forwards, with.model.forwards) << "and costs nothing";
}

TEST_P(EveryPolicy, WithItsTinyOptionsItChangesTheRun) {
  const Registry<TrainingPolicy> known = attune::policies();
  ToyRun plain(methods_, {}, 0.1),
      with(methods_, {{GetParam(), tiny_options(known.at(GetParam()))}}, 0.1);
  plain.train();
  with.train();
  EXPECT_FALSE(same(plain.trained(), with.trained()));
  for (const std::pair<const std::string, Tensor>& entry : with.trained())
    EXPECT_TRUE(at::isfinite(entry.second).all().item<bool>()) << entry.first;
}

TEST_P(EveryPolicy, AResumedRunEndsWithTheSameBits) {
  const Registry<TrainingPolicy> known = attune::policies();
  const Json options = tiny_options(known.at(GetParam()));
  ToyRun whole(methods_, {{GetParam(), options}}, 0.1);
  const Trainer::Result result = whole.train();
  for (int64_t step = 1; step < result.steps; ++step) {
    ToyRun rest(methods_, {{GetParam(), options}}, 0.1);
    rest.resume_from(whole, step);
    EXPECT_TRUE(same(whole.trained(), rest.trained())) << "from step " << step;
  }
}

TEST_P(EveryPolicy, GoesWithEveryOther) {
  const Registry<TrainingPolicy> known = attune::policies();
  for (const Entry<TrainingPolicy>& other : known.all()) {
    if (other.name == GetParam()) continue;
    ToyRun run(
        methods_,
        {{GetParam(), tiny_options(known.at(GetParam()))}, {other.name, tiny_options(other)}}, 0.1);
    run.train();
    for (const std::pair<const std::string, Tensor>& entry : run.trained())
      EXPECT_TRUE(at::isfinite(entry.second).all().item<bool>())
          << other.name << " " << entry.first;
  }
}

TEST_P(EveryPolicy, SaysWhatItIs) {
  const Registry<TrainingPolicy> known = attune::policies();
  const Entry<TrainingPolicy>& entry = known.at(GetParam());
  EXPECT_FALSE(entry.summary.empty());
  EXPECT_NE(entry.reference.find("arXiv"), std::string::npos);
  for (const Option& option : entry.options) EXPECT_FALSE(option.help.empty()) << option.name;
}

INSTANTIATE_TEST_SUITE_P(All, EveryPolicy, ::testing::ValuesIn(names()),
                         [](const auto& info) { return info.param; });

}  // namespace every_policy_test
}  // namespace attune
