#include "base/options.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/temp_folder.h"

namespace attune {
namespace options_test {

Node plain(std::string text, int line = 7, int column = 12) {
  return Node::scalar(std::move(text), false, {"recipe.yaml", line, column});
}
Node quoted(std::string text) {
  return Node::scalar(std::move(text), true, {"recipe.yaml", 7, 12});
}
Node map(std::vector<std::pair<std::string, Node>> entries) {
  return Node::map(std::move(entries), {"recipe.yaml", 5, 3});
}

const std::vector<Option>& declared() {
  static const std::vector<Option> kOptions = {
      {"rank", "int", "8", "[1, inf)", "inner size"},
      {"alpha", "number", "auto", "(0, inf)", "strength"},
      {"dropout", "number", "0", "[0, 1)", "dropout"},
      {"sites", "globs", "\"*.self.[qv]\"", "", "sites"},
      {"betas", "numbers", "[0.9, 0.999]", "[0, 1)", "betas"},
      {"pool", "choice", "auto", "auto|first|mean|max", "pooling"},
      {"bias", "bool", "false", "", "bias too"},
      {"name", "string", "null", "", "a name"},
      {"weights", "map", "{}", "", "weights"},
      {"extra", "any", "{a: 1, b: [x, 'y z']}", "", "anything"},
  };
  return kOptions;
}

Options checked(Node given) {
  return Options(declared(), given, "methods[0].lora");
}
std::string refused(Node given) {
  return error_text(ErrorCode::BadInput, [&] { checked(given); });
}

TEST(Options, DefaultsFillWhatIsNotGiven) {
  const Options options = checked(Node());
  EXPECT_EQ(options.get<int>("rank"), 8);
  EXPECT_EQ(options.get<std::string>("alpha"), "auto");
  EXPECT_EQ(options.get<std::vector<std::string>>("sites"),
            std::vector<std::string>{"*.self.[qv]"});
  EXPECT_EQ(options.get<std::vector<double>>("betas"), (std::vector<double>{0.9, 0.999}));
  EXPECT_FALSE(options.get<bool>("bias"));
  EXPECT_EQ(options.get<std::string>("name"), "");
  EXPECT_FALSE(options.given("rank"));
  EXPECT_EQ(
      options.to_json().dump(),
      R"({"rank":8,"alpha":"auto","dropout":0,"sites":"*.self.[qv]","betas":[0.9,0.999],"pool":"auto",)"
      R"("bias":false,"name":null,"weights":{},"extra":{"a":1,"b":["x","y z"]}})");
}

TEST(Options, GivenValuesAreTypedAndKeepTheirPlace) {
  const Options options = checked(map({{"rank", plain("16")},
                                       {"alpha", plain("2e-1")},
                                       {"name", plain("007")},
                                       {"bias", plain("true")},
                                       {"dropout", Node()}}));
  EXPECT_EQ(options.get<int64_t>("rank"), 16);
  EXPECT_DOUBLE_EQ(options.get<double>("alpha"), 0.2);
  EXPECT_EQ(options.get<double>("dropout"), 0);
  EXPECT_TRUE(options.given("rank"));
  EXPECT_FALSE(options.given("dropout"));
  EXPECT_EQ(options.where("rank"), "recipe.yaml:7:12: methods[0].lora.rank");
  EXPECT_EQ(options.where("pool"), "default: methods[0].lora.pool");
  EXPECT_EQ(options.path(), "methods[0].lora");
  EXPECT_EQ(options.to_json()["name"], "007");
}

TEST(Options, UnknownKeysGetASuggestion) {
  EXPECT_EQ(refused(map({{"rnak", plain("8")}})),
            "recipe.yaml:7:12: methods[0].lora.rnak: unknown key; did you mean \"rank\"?");
  EXPECT_EQ(error_text(ErrorCode::BadInput,
                       [] {
                         Options({{"a", "int", "1", "", ""}}, map({{"zzzz", Node()}}), "");
                       }),
            "recipe.yaml:5:3: zzzz: unknown key; known: a");
}

TEST(Options, WrongKindsAndRangesAreRefused) {
  const std::string at = "recipe.yaml:7:12: methods[0].lora.";
  EXPECT_EQ(refused(map({{"rank", plain("eight")}})),
            at + "rank: expected an integer in [1, inf), found \"eight\"");
  EXPECT_EQ(refused(map({{"rank", plain("0")}})),
            at + "rank: expected an integer in [1, inf), found 0");
  EXPECT_EQ(refused(map({{"rank", plain("1.5")}})),
            at + "rank: expected an integer in [1, inf), found 1.5");
  EXPECT_EQ(refused(map({{"rank", quoted("8")}})),
            at + "rank: expected an integer in [1, inf), found \"8\" in quotes");
  EXPECT_EQ(refused(map({{"alpha", plain("0")}})),
            at + "alpha: expected a number in (0, inf) or \"auto\", found 0");
  EXPECT_EQ(refused(map({{"dropout", plain("1")}})),
            at + "dropout: expected a number in [0, 1), found 1");
  EXPECT_EQ(refused(map({{"dropout", plain(".nan")}})),
            at + "dropout: expected a number in [0, 1), found .nan");
  EXPECT_EQ(refused(map({{"betas", plain("1.5")}})),
            at + "betas: expected numbers in [0, 1), found 1.5");
  EXPECT_EQ(refused(map({{"betas", plain("x")}})),
            at + "betas: expected a list of numbers, found \"x\"");
  EXPECT_EQ(
      refused(map({{"pool", plain("maen")}})),
      at + "pool: expected one of auto, first, mean, max, found \"maen\"; did you mean \"mean\"?");
  EXPECT_EQ(refused(map({{"bias", plain("yes")}})),
            at + "bias: expected true or false, found \"yes\"");
  EXPECT_EQ(refused(map({{"weights", plain("1")}})), at + "weights: expected a mapping, found 1");
  EXPECT_EQ(refused(map({{"name", map({})}})),
            "recipe.yaml:5:3: methods[0].lora.name: expected a text, found a mapping");
  EXPECT_EQ(refused(map({{"sites", Node::list({map({})}, {"recipe.yaml", 7, 12})}})),
            at + "sites: expected a text or a list of texts, found a list");
  EXPECT_EQ(refused(plain("3")),
            "recipe.yaml:7:12: methods[0].lora: expected a mapping of options, found 3");
}

TEST(Options, RequiredKeysMustBeGiven) {
  const std::vector<Option> options = {{"factor", "number", "required", "", "decay per layer"}};
  EXPECT_EQ(
      error_text(ErrorCode::BadInput, [&] { Options(options, map({}), "policies[0].decay"); }),
      "recipe.yaml:5:3: policies[0].decay.factor: missing; it is required (decay per layer)");
}

TEST(Options, OurOwnMistakesAreInternal) {
  EXPECT_EQ(error_text(ErrorCode::Internal, [] { checked(Node()).get<int>("nothing"); }),
            "option \"nothing\" of methods[0].lora was read but never declared");
  EXPECT_EQ(error_text(ErrorCode::Internal,
                       [] {
                         Options({{"a", "colour", "red", "", ""}}, map({{"a", plain("blue")}}), "");
                       }),
            "option a: unknown kind \"colour\"");
  const Options big(declared(), map({{"rank", plain("99999999999")}}), "m");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { big.get<int>("rank"); }),
            "recipe.yaml:7:12: m.rank: 99999999999 is too large");
}

TEST(Node, ScalarsFollowTheCoreSchema) {
  const Json values = Node::list({plain("1"), plain("-0.5"), plain("1e3"), plain("0x1F"),
                                  plain("0o17"), plain("true"), plain("null"), plain("yes"),
                                  plain("nan"), plain("1_000"), plain("+3"), quoted("1")},
                                 {})
                          .to_json();
  EXPECT_EQ(values.dump(), R"([1,-0.5,1000.0,31,15,true,null,"yes","nan","1_000",3,"1"])");
  EXPECT_TRUE(std::isinf(plain("-.inf").as_number("x")));
  EXPECT_TRUE(std::isnan(plain(".nan").as_number("x")));
}

TEST(Node, TypedReadingsNamePlaceAndPath) {
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { plain("fast").as_number("train.lr"); }),
            "recipe.yaml:7:12: train.lr: expected a number, found \"fast\"");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { quoted("3").as_int("seed"); }),
            "recipe.yaml:7:12: seed: expected an integer, found \"3\" in quotes");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { plain("1").as_bool("x"); }),
            "recipe.yaml:7:12: x: expected true or false, found 1");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { Node().as_string("x"); }),
            "x: expected a text, found nothing");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { map({}).as_strings("x"); }),
            "recipe.yaml:5:3: x: expected a list of texts, found a mapping");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { map({}).as_numbers("x"); }),
            "recipe.yaml:5:3: x: expected a list of numbers, found a mapping");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { Node::list({plain("a")}, {}).as_numbers("x"); }),
            "recipe.yaml:7:12: x[0]: expected a number, found \"a\"");
}

TEST(Node, WithReplacesOneValueAndLeavesTheOriginal) {
  const Node recipe =
      map({{"methods", Node::list({plain("lora"), map({{"bias", map({})}})}, {"r", 1, 1})}});
  const Node changed =
      recipe.with("methods.0.lora.rank", plain("16")).with("train.seed", plain("2"));
  EXPECT_EQ(changed.to_json().dump(),
            R"({"methods":[{"lora":{"rank":16}},{"bias":{}}],"train":{"seed":2}})");
  EXPECT_EQ(recipe.to_json().dump(), R"({"methods":["lora",{"bias":{}}]})");
  EXPECT_EQ(recipe.with("methods.1", plain("norms")).to_json().dump(),
            R"({"methods":["lora","norms"]})");
}

TEST(Node, WithRefusesPathsThatLeadNowhere) {
  const Node recipe =
      map({{"methods", Node::list({plain("lora")}, {"r", 1, 1})}, {"seed", plain("1")}});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { recipe.with("methods.3", plain("x")); }),
            "setting methods.3: methods has 1 items, so after it a number from 0 to 0 is expected, "
            "found \"3\"");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { recipe.with("seed.x", plain("x")); }),
            "setting seed.x: seed is 1, which has no \"x\" inside");
  EXPECT_EQ(
      error_text(ErrorCode::BadInput, [&] { recipe.with("a..b", plain("x")); }),
      "setting \"a..b\": a path is names and numbers joined by dots, such as methods.0.lora.rank");
}

TEST(Node, JsonBecomesNodesAndBack) {
  const Json json = Json::parse(R"({"b":[1,2.5,"3",null,true],"a":{}})");
  EXPECT_EQ(Node::from_json(json, {"x", 0, 0}).to_json(), json);
}

}  // namespace options_test
}  // namespace attune
