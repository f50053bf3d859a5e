#include "cli/schema.h"

#include <gtest/gtest.h>

#include "base/options.h"
#include "base/text.h"
#include "cli/commands.h"

namespace attune {
namespace schema_test {

const std::vector<std::string> kKinds = {"methods",    "archs",    "tasks",
                                         "objectives", "policies", "metrics"};

Answer answer(const std::vector<std::string>& arguments) {
  const std::optional<Answer> result = schema_answer(parse_command_line(arguments).request);
  EXPECT_TRUE(result.has_value()) << join(arguments, " ");
  return result.value_or(Answer());
}

TEST(Schema, HoldsEveryKindWithNamesSummariesAndReferences) {
  for (const std::string& kind : kKinds) {
    EXPECT_FALSE(schema_names(kind).empty()) << kind;
    for (const Json& entry : option_schema()[kind])
      for (const char* key : {"name", "summary", "reference"}) {
        const bool free = kind == "metrics" && entry["name"] == "loss";  // nobody's invention
        EXPECT_EQ(entry[key].get<std::string>().empty(), free && key == std::string("reference"))
            << kind << " " << entry.dump();
      }
  }
  EXPECT_EQ(schema_names("method"), std::vector<std::string>());
}

TEST(Schema, EveryOptionIsADeclarationThatItsOwnDefaultSatisfies) {
  int64_t count = 0;
  for (const std::string& kind : kKinds)
    for (const Json& entry : option_schema()[kind])
      for (const Json& option : entry.value("options", Json::array())) {
        const Option declared = {
            option["name"].get<std::string>(), option["kind"].get<std::string>(),
            option["default"].get<std::string>(), option["range"].get<std::string>(),
            option["help"].get<std::string>()};
        if (declared.fallback != "required") {
          EXPECT_NO_THROW(Options({declared}, Node(), entry["name"].get<std::string>()))
              << option.dump();
        }
        EXPECT_FALSE(declared.help.empty()) << entry["name"] << option.dump();
        ++count;
      }
  EXPECT_GT(count, 5);
}

TEST(Schema, AListIsOneObjectOrALineEach) {
  for (const std::string& kind : kKinds) {
    const Json object = Json::parse(answer({kind, "--json"}).out);
    ASSERT_TRUE(object.is_object()) << kind;
    EXPECT_EQ(object.size(), 1u);
    EXPECT_EQ(object[kind], option_schema()[kind]);
    const std::string text = answer({kind}).out;
    EXPECT_EQ(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')),
              schema_names(kind).size());
  }
}

TEST(Schema, ANameIsAnsweredWithItsOptions) {
  const Json lora = Json::parse(answer({"methods", "lora", "--json"}).out);
  EXPECT_EQ(lora["name"], "lora");
  const std::string text = answer({"methods", "lora"}).out;
  EXPECT_NE(text.find("\n  rank "), std::string::npos) << text;
  EXPECT_NE(text.find("\n  reference: "), std::string::npos) << text;
  EXPECT_NE(answer({"metrics", "mse"}).out.find("(lower is better)"), std::string::npos);
  EXPECT_EQ(Json::parse(answer({"metrics", "mse", "--json"}).out)["name"], "mse");
}

TEST(Schema, AnUnknownNameIsAnsweredWithTheNearest) {
  const Answer wrong = answer({"methods", "lroa"});
  EXPECT_EQ(wrong.status, 2);
  EXPECT_EQ(wrong.out, "");
  EXPECT_EQ(wrong.err,
            "attune methods: bad input: there is no method \"lroa\"; did you mean \"lora\"?\n");
  EXPECT_NE(answer({"policies", "layer_dekay"}).err.find("there is no policy \"layer_dekay\"; did"),
            std::string::npos);
}

TEST(Schema, OtherCommandsAreNotAnswered) {
  EXPECT_FALSE(schema_answer(parse_command_line({"doctor"}).request).has_value());
  EXPECT_FALSE(schema_answer(parse_command_line({"train", "r.yaml"}).request).has_value());
}

}  // namespace schema_test
}  // namespace attune
