#include "metrics/registry.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace attune {
namespace registry_test {

TEST(Metrics, NamesAreUniqueAndErrorsAreMinimised) {
  std::set<std::string> names;
  for (const MetricInfo& info : metrics()) EXPECT_TRUE(names.insert(info.name).second) << info.name;
  EXPECT_FALSE(find_metric("loss")->higher_is_better);
  EXPECT_FALSE(find_metric("mse")->higher_is_better);
  EXPECT_TRUE(find_metric("macro_f1")->higher_is_better);
  EXPECT_EQ(find_metric("nothing"), nullptr);
}

TEST(Metrics, UnknownNameIsNamedWithItsPlace) {
  try {
    metric("macro_f2", "recipe.yaml:9:3: train.best");
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find("recipe.yaml:9:3: train.best: unknown metric \"macro_f2\";"), 0u) << text;
    EXPECT_NE(text.find("macro_f1"), std::string::npos) << text;
  }
}

}  // namespace registry_test
}  // namespace attune
