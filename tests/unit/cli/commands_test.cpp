#include "cli/commands.h"

#include <gtest/gtest.h>

#include <set>

#include "base/file.h"
#include "base/text.h"

namespace attune {
namespace commands_test {

Json request(const std::vector<std::string>& arguments) {
  const ParsedCommand parsed = parse_command_line(arguments);
  EXPECT_EQ(parsed.kind, ParsedCommand::Kind::Run) << parsed.text;
  return parsed.request;
}

std::string refusal(const std::vector<std::string>& arguments) {
  const ParsedCommand parsed = parse_command_line(arguments);
  EXPECT_EQ(parsed.kind, ParsedCommand::Kind::Refuse) << join(arguments, " ");
  EXPECT_EQ(parsed.status, 2);
  return parsed.text;
}

std::string printed(const std::vector<std::string>& arguments) {
  const ParsedCommand parsed = parse_command_line(arguments);
  EXPECT_EQ(parsed.kind, ParsedCommand::Kind::Print);
  EXPECT_EQ(parsed.status, 0);
  return parsed.text;
}

/// Splits an example as a shell would: blanks, single and double quotes.
std::vector<std::string> words(const std::string& line) {
  std::vector<std::string> result;
  std::string word;
  bool open = false;
  char quote = 0;
  for (const char c : line + " ") {
    if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        word += c;
    } else if (c == '"' || c == '\'') {
      quote = c;
      open = true;
    } else if (c == ' ') {
      if (open || !word.empty()) result.push_back(word);
      word.clear();
      open = false;
    } else {
      word += c;
    }
  }
  return result;
}

TEST(CommandLine, ARecipeAndItsOverridesBecomeARequest) {
  const Json got =
      request({"train", "r.yaml", "--set", "train.lr=1e-4", "--set", "seed=2", "--overwrite"});
  EXPECT_EQ(got["command"], "train");
  EXPECT_EQ(got["args"]["recipe"], "r.yaml");
  EXPECT_EQ(got["args"]["set"], Json::parse(R"(["train.lr=1e-4", "seed=2"])"));
  EXPECT_EQ(got["args"]["overwrite"], true);
  EXPECT_EQ(got["args"]["quiet"], false);
  EXPECT_TRUE(got["args"]["model"].is_null());
  EXPECT_TRUE(got["args"]["seed"].is_null());
  EXPECT_EQ(got["args"]["train"], Json::array());
}

TEST(CommandLine, FlagValuesAreTyped) {
  const Json args = request({"train",    "--model",
                             "m",        "--train",
                             "a",        "--train",
                             "b",        "--epochs",
                             "1.5",      "--lr",
                             "2e-4",     "--batch-size",
                             "16",       "--max-length=128",
                             "--seed",   "7",
                             "--method", "lora",
                             "--eval",   "10%"})["args"];
  EXPECT_TRUE(args["recipe"].is_null());
  EXPECT_EQ(args["model"], "m");
  EXPECT_EQ(args["train"], Json::parse(R"(["a", "b"])"));
  EXPECT_EQ(args["epochs"], 1.5);
  EXPECT_EQ(args["lr"], 2e-4);
  EXPECT_TRUE(args["batch_size"].is_number_integer());
  EXPECT_EQ(args["batch_size"], 16);
  EXPECT_EQ(args["max_length"], 128);
  EXPECT_EQ(args["seed"], 7);
  EXPECT_EQ(args["method"], Json::parse(R"(["lora"])"));
  EXPECT_EQ(args["eval"], Json::parse(R"(["10%"])"));
}

TEST(CommandLine, AListFlagTakesOneValueAndLeavesThePositionalAlone) {
  const Json args = request({"predict", "--text", "one", "run", "--text", "two"})["args"];
  EXPECT_EQ(args["target"], "run");
  EXPECT_EQ(args["text"], Json::parse(R"(["one", "two"])"));
}

TEST(CommandLine, TextsKeepBracketsCommasAndSpaces) {
  const Json args =
      request({"predict", "run", "--text", "[a, b]", "--text", "{x: 1}", "--text", ""})["args"];
  EXPECT_EQ(args["text"], Json::parse(R"(["[a, b]", "{x: 1}", ""])"));
  EXPECT_EQ(request({"train", "r", "--set", "a=[1, 2]"})["args"]["set"],
            Json::parse(R"(["a=[1, 2]"])"));
}

TEST(CommandLine, ADashStandsForStandardInput) {
  const Json args = request({"predict", "run", "-"})["args"];
  EXPECT_EQ(args["target"], "run");
  EXPECT_EQ(args["data"], "-");
  EXPECT_NE(refusal({"predict", "run", "-", "--data", "x"}).find("are both given; give one"),
            std::string::npos);
  EXPECT_EQ(request({"predict", "run", "--data", "-"})["args"]["data"], "-");
}

TEST(CommandLine, ShortFlagsAndDefaultsWork) {
  const Json args = request(
      {"forward", "m", "--input", "x", "--want", "logits,enc.*.resid.out", "-o", "out"})["args"];
  EXPECT_EQ(args["output"], "out");
  EXPECT_EQ(args["precision"], "fp32");
  EXPECT_EQ(args["want"], Json::parse(R"(["logits,enc.*.resid.out"])"));
  EXPECT_EQ(args["grad"], false);
  EXPECT_EQ(request({"methods"})["args"]["name"], nullptr);
  EXPECT_EQ(request({"methods", "lora", "--json"})["args"]["json"], true);
}

TEST(CommandLine, MistakesNameTheNearestAndEndWithTwo) {
  EXPECT_EQ(refusal({"trian"}),
            "attune: bad input: unknown command \"trian\"; did you mean \"train\"?\n");
  EXPECT_EQ(refusal({"--versoin"}),
            "attune: bad input: unknown flag \"--versoin\"; did you mean \"--version\"?\n");
  EXPECT_EQ(refusal({"train", "r", "--epoch", "3"}),
            "attune train: bad input: unknown flag \"--epoch\"; did you mean \"--epochs\"?\n");
  EXPECT_EQ(
      refusal({"train", "r", "--overwritten=1"}),
      "attune train: bad input: unknown flag \"--overwritten=1\"; did you mean \"--overwrite\"?\n");
  EXPECT_EQ(refusal({}), "attune: bad input: a command is missing; see attune --help\n");
  EXPECT_EQ(refusal({"resume"}), "attune resume: bad input: RUN is missing: run directory\n");
  EXPECT_EQ(refusal({"resume", "a", "b"}),
            "attune resume: bad input: \"b\" is one argument too many; see attune resume --help\n");
}

TEST(CommandLine, TextThatIsNotUtf8IsRefused) {
  EXPECT_EQ(refusal({"predict", "run", "--text", "a\xff"}),
            "attune: bad input: argument 4 is not valid UTF-8 (at its byte 1)\n");
}

TEST(CommandLine, ValuesOfTheWrongKindAreRefused) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"train", "r", "--epochs", "many"},
        {"train", "r", "--batch-size", "1.5"},
        {"train", "r", "--seed"},
        {"train", "--lr", ""},
        {"doctor", "--threads", "two"}}) {
    const std::string text = refusal(arguments);
    EXPECT_NE(text.find("bad input: "), std::string::npos) << text;
    EXPECT_NE(text.find("--help\n"), std::string::npos) << text;
  }
  EXPECT_EQ(refusal({"train", "r", "--epochs", "many"}),
            "attune train: bad input: --epochs: expected a number, found \"many\"; see attune "
            "train --help\n");
  EXPECT_EQ(refusal({"train", "r", "--batch-size", "1.5"}),
            "attune train: bad input: --batch-size: expected a whole number, found \"1.5\"; see "
            "attune train --help\n");
}

TEST(CommandLine, ExamplesNameFilesThatTheRepositoryHas) {
  int64_t found = 0;
  for (const CommandSpec& command : commands()) {
    for (const std::string& example : command.examples) {
      for (const std::string& word : words(example)) {
        if (!word.starts_with("examples/")) continue;
        EXPECT_TRUE(file_exists(std::string(ATTUNE_SOURCE_DIR) + "/" + word)) << example;
        ++found;
      }
    }
  }
  EXPECT_GE(found, 3);
}

TEST(CommandLine, EveryCommandHasHelpWithTwoExamplesThatParse) {
  for (const CommandSpec& command : commands()) {
    const std::string help = printed({command.name, "--help"});
    EXPECT_NE(help.find(command.summary), std::string::npos) << help;
    ASSERT_EQ(command.examples.size(), 2u) << command.name;
    for (const std::string& example : command.examples) {
      EXPECT_NE(help.find(example), std::string::npos) << help;
      std::vector<std::string> arguments = words(example);
      ASSERT_EQ(arguments.front(), "attune");
      arguments.erase(arguments.begin());
      EXPECT_EQ(request(arguments)["command"], command.name) << example;
    }
    for (const std::vector<FlagSpec>* flags : {&command.flags, &common_flags()})
      for (const FlagSpec& flag : *flags)
        EXPECT_NE(help.find(flag.name), std::string::npos) << help << flag.name;
    EXPECT_EQ(printed({command.name, "-h"}), help);
  }
}

TEST(CommandLine, TheHelpOfAListNamesWhatItLists) {
  EXPECT_NE(printed({"methods", "--help"}).find("\nNames: "), std::string::npos);
  EXPECT_NE(printed({"tasks", "--help"}).find("classify, classify_multi"), std::string::npos);
}

TEST(CommandLine, TheProgramsHelpListsEveryCommandOnce) {
  const std::string help = printed({"--help"});
  std::set<std::string> names;
  for (const CommandSpec& command : commands()) {
    EXPECT_TRUE(names.insert(command.name).second) << command.name;
    EXPECT_NE(help.find("\n  " + command.name + " "), std::string::npos) << help;
  }
  EXPECT_EQ(printed({"--version"}), std::string("attune ") + program_version() + "\n");
}

}  // namespace commands_test
}  // namespace attune
