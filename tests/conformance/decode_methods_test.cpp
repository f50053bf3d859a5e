// Every method on models that write text: step by step with a cache as in whole texts.
#include <set>

#include "decode/decoding.h"
#include "methods.h"

namespace attune {
namespace decode_methods_test {

using namespace tiny;

class DecodingWithMethod : public MethodTest {
 protected:
  DecodingWithMethod() {
    HeadRequest words;
    words.kind = HeadKind::Lm;
    model_ = model_of(GetParam().architecture, words);
  }
};

std::vector<MethodCase> cases() {
  std::vector<MethodCase> result;
  for (const char* architecture : {"llama", "t5"})
    for (const std::string& method : methods().names()) result.push_back({architecture, method});
  return result;
}

TEST_P(DecodingWithMethod, GivesTheLogitsOfWholeTextsAtEveryStep) {
  at::NoGradGuard no_grad;
  try {
    adapt();
  } catch (const Error& error) {
    ASSERT_EQ(error.code(), ErrorCode::BadInput) << error.what();
    GTEST_SKIP() << error.what();  // it acts where this model has nothing
  }
  disturb(*adaptation_, 0.3);
  const std::vector<Decoding::Ids> prompts{{5, 9, 20, 3}, {7}, {11, 4, 30}};
  Decoding cached(*model_, prompts, 0, true, Tensor()), whole(*model_, prompts, 0, false, Tensor());
  for (int step = 0; step < 4; ++step) {
    EXPECT_LE(distance(cached.next_logits(), whole.next_logits()), 1e-11) << "step " << step;
    const std::vector<int64_t> from =
        step == 1 ? std::vector<int64_t>{2, 0, 0} : std::vector<int64_t>{0, 1, 2};
    const std::vector<int32_t> tokens{6 + step, 21 - step, 40};
    cached.go_on(from, tokens);
    whole.go_on(from, tokens);
  }
  // No method is slow without need.
  const std::set<std::string> by_row{"full",
                                     "lora",
                                     "dora",
                                     "ia3",
                                     "bias",
                                     "adapter",
                                     "compacter",
                                     "propetl",
                                     "prompt",
                                     "head_offset",
                                     "invertible_adapter"};
  if (by_row.count(method()) > 0) {
    EXPECT_TRUE(cached.cached());
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecodingWithMethod, ::testing::ValuesIn(cases()), case_name);

}  // namespace decode_methods_test
}  // namespace attune
