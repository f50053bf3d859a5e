// What the program prints: one JSON object a command with --json, lines without it.
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>

#include "base/text.h"
#include "e2e/workshop.h"

namespace attune {

namespace output_test {

using Output = Workshop;

const char* const kTwoRows = "{\"text\": \"the happy house\"}\n{\"text\": \"a sad old road\"}\n";

/// The objects of a text of JSON lines.
Json lines_of(const std::string& text) {
  Json list = Json::array();
  for (const std::string& line : split(text, '\n'))
    if (!line.empty()) list.push_back(parse_json(line, "a line"));
  return list;
}

TEST_F(Output, EveryCommandPrintsOneObject) {
  write("two.jsonl", kTwoRows);
  attune_json(train_args({"train.steps=3"}));
  attune_json({"resume", "run"});
  attune_json({"check", "recipe.yaml"});
  attune_json({"eval", "run", "--data", "train.jsonl"});
  attune_json({"inspect", "run"});
  attune_json({"forward", "run", "--input", "two.jsonl", "-o", "two.safetensors"});
  attune_json({"init", "model/config.json", "-o", "fresh"});
  attune_json({"merge", "run", "-o", "merged"});
  attune_json({"export", "run", "--to", "peft", "-o", "peft"});
  attune_json({"predict", "run", "--data", "two.jsonl"});
  attune_json({"tokenize", "model", "--data", "two.jsonl"});
  attune_json({"doctor"});
}

TEST_F(Output, PredictionsAreTheSameAsLinesAndAsOneObject) {
  ASSERT_EQ(train({"train.steps=3"}).status, 0);
  write("two.jsonl", kTwoRows);
  const Outcome lines = attune({"predict", "run", "--data", "two.jsonl"});
  ASSERT_EQ(lines.status, 0) << lines.err;
  const Json list = lines_of(lines.out);
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(attune_json({"predict", "run", "--data", "two.jsonl"}), (Json{{"results", list}}));
  EXPECT_EQ(attune_json({"predict", "run", "--text", "the happy house"})["results"][0], list[0]);
  const Json written =
      attune_json({"predict", "run", "--data", "two.jsonl", "--output", "two.out"});
  EXPECT_EQ(written, (Json{{"output", "two.out"}, {"results", 2}}));
  EXPECT_EQ(read("two.out"), lines.out);
}

TEST_F(Output, TokensAreTheSameAsLinesAndAsOneObject) {
  write("two.jsonl", kTwoRows);
  const Outcome lines = attune({"tokenize", "model", "--data", "two.jsonl"});
  ASSERT_EQ(lines.status, 0) << lines.err;
  EXPECT_EQ(attune_json({"tokenize", "model", "--data", "two.jsonl"}),
            (Json{{"results", lines_of(lines.out)}}));
}

TEST_F(Output, WhatAnErrorCutsShortIsNotJson) {
  write("bad.jsonl", std::string(kTwoRows) + "{\"txet\": \"x\"}\n");
  const Outcome tokens = attune({"tokenize", "model", "--data", "bad.jsonl", "--json", "--quiet"});
  EXPECT_EQ(tokens.status, 2);
  EXPECT_NE(tokens.err.find("bad.jsonl:3: no column \"text\""), std::string::npos) << tokens.err;
  EXPECT_EQ(tokens.out.substr(0, 12), "{\"results\":[");
  EXPECT_TRUE(Json::parse(tokens.out, nullptr, false).is_discarded()) << tokens.out;
  // An error before the first result leaves standard output empty.
  expect_refused(attune({"tokenize", "model", "--data", "none.jsonl", "--json", "--quiet"}), 3,
                 {"none.jsonl"});
}

TEST_F(Output, AFullStandardOutputIsAnError) {
  for (const char* command : {"tokenize model --text a", "tokenize model --text a --json",
                              "doctor --quiet", "methods", "--help"}) {
    const int status = std::system(
        format("cd {} && {} {} > /dev/full 2> full.err", folder_.string(), ATTUNE_PROGRAM, command)
            .c_str());
    EXPECT_EQ(WEXITSTATUS(status), 7) << command;
    if (std::string(command).starts_with("tokenize")) {
      EXPECT_EQ(read("full.err")
                    .find("attune tokenize: input/output: writing to standard output "
                          "failed: No space left on device"),
                0u)
          << read("full.err");
    }
  }
}

TEST_F(Output, WhatExportCannotWriteIsRefused) {
  expect_refused(attune({"export", "model", "--to", "gguf", "-o", "x"}), 5,
                 {"export --to gguf: this build writes peft and hf"});
  expect_refused(attune({"export", "model", "--to", "peft", "-o", "x"}), 2,
                 {"model holds no adapter to export"});
  expect_refused(attune({"export", "model", "-o", "x"}), 2, {"--to peft|hf is missing"});
  EXPECT_FALSE(exists("x"));
}

TEST_F(Output, ARefusedExportLeavesNothingBehind) {
  const auto names = [&] {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_))
      result.push_back(entry.path().string());
    std::sort(result.begin(), result.end());
    return result;
  };
  ASSERT_EQ(train({"train.steps=1", "methods=[{adapter: {}}]"}).status, 0);
  attune_json({"init", "model/config.json", "-o", "old"});
  const std::string old = read("old/model.safetensors");
  const std::vector<std::string> before = names();
  for (const char* target : {"run", "model"})
    for (const char* output : {"x", "deep/er/x", "old"})
      for (const char* to : {"peft", "hf"}) {
        if (std::string(target) == "model" && std::string(to) == "hf") continue;
        expect_refused(
            attune({"export", target, "--to", to, "-o", output, "--overwrite", "--quiet"}),
            std::string(target) == "run" ? 5 : 2, {});
        EXPECT_EQ(names(), before) << target << " " << output << " " << to;
      }
  EXPECT_EQ(read("old/model.safetensors"), old);
}

TEST_F(Output, ASlashAtTheEndOfAnOutputChangesNothing) {
  ASSERT_EQ(train({"train.steps=1"}).status, 0);
  EXPECT_EQ(attune_json({"init", "model/config.json", "-o", "fresh/"})["output"], "fresh");
  attune_json({"merge", "run", "-o", "deep/merged/"});
  attune_json({"export", "run", "--to", "peft", "-o", "peft/"});
  attune_json({"export", "run", "--to", "peft", "-o", "peft/", "--overwrite"});
  for (const char* file :
       {"fresh/config.json", "deep/merged/config.json", "peft/adapter_config.json"})
    EXPECT_TRUE(exists(file)) << file;
}

TEST_F(Output, AnExportOfSeveralTypesIsReplacedToo) {
  ASSERT_EQ(train({"train.steps=1", "methods=[lora, {ia3: {}}]", "head={pool: pooler}"}).status, 0);
  const std::vector<std::string> args = {"export", "run",  "--to",       "peft",
                                         "-o",     "peft", "--overwrite"};
  EXPECT_EQ(attune_json(args)["directories"].size(), 2u);
  EXPECT_EQ(attune_json(args)["directories"].size(), 2u);
  write("peft/mine.txt", "x");
  expect_refused(attune(args), 2, {"peft holds neither a checkpoint nor an adapter"});
}

TEST_F(Output, AnAdapterIsTakenWhereARunIs) {
  ASSERT_EQ(train({"train.steps=3"}).status, 0);
  attune_json({"merge", "run", "-o", "one"});
  attune_json({"merge", "model", "--adapter", "run/adapter", "-o", "two"});
  EXPECT_EQ(read("two/model.safetensors"), read("one/model.safetensors"));
  attune_json({"export", "model", "--adapter", "run/adapter", "--to", "peft", "-o", "peft"});
  EXPECT_TRUE(exists("peft/adapter_config.json"));
  expect_refused(
      attune({"export", "run", "--adapter", "run/adapter", "--to", "peft", "-o", "both"}), 2,
      {"export --to peft: 2 adapters are given, and one is written"});
  EXPECT_EQ(attune({"tokenize", "model", "--adapter", "run/adapter:0.5", "--text", "a"}).out,
            attune({"tokenize", "model", "--text", "a"}).out);
  expect_refused(attune({"tokenize", "model", "--adapter", "gone", "--text", "a"}), 3,
                 {"--adapter gone: there is no adapter in gone"});
}

TEST_F(Output, WhatDataIsReadAsIsPrinted) {
  ASSERT_EQ(train({"train.steps=1"}).status, 0);
  write("rows", "text,label\n\"happy, so happy\",good\nsad,bad\n");
  const std::string line = "read as csv\n";
  const Outcome measured = attune({"eval", "run", "--data", "rows"});
  EXPECT_EQ(measured.status, 0) << measured.err;
  EXPECT_NE(measured.err.find("rows: 2 rows, " + line), std::string::npos) << measured.err;
  const Outcome predicted = attune({"predict", "run", "-"}, read("rows"));
  EXPECT_EQ(lines_of(predicted.out).size(), 2u) << predicted.out;
  EXPECT_NE(predicted.err.find("standard input: 2 rows, " + line), std::string::npos)
      << predicted.err;
}

/// A safetensors file of F32 tensors as one of BF16: the upper half of every number.
std::string halved(const std::string& bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  Json header = Json::parse(bytes.substr(8, length));
  for (Json& tensor : header) {
    if (!tensor.contains("dtype")) continue;
    tensor["dtype"] = "BF16";
    for (Json& offset : tensor["data_offsets"]) offset = offset.get<uint64_t>() / 2;
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text += ' ';
  const uint64_t size = text.size();
  std::string result(reinterpret_cast<const char*>(&size), sizeof size);
  result += text;
  for (size_t at = 8 + length; at < bytes.size(); at += 4) result += bytes.substr(at + 2, 2);
  return result;
}

TEST_F(Output, TensorsHaveTheDtypeOfTheirFile) {
  const std::vector<std::string> inspect = {"inspect", "model", "enc.0.self.q"};
  const Json full = attune_json(inspect);
  EXPECT_EQ(full["sites"][0]["dtype"], "F32");
  write("model/model.safetensors", halved(read("model/model.safetensors")));
  const Json half = attune_json(inspect);
  EXPECT_EQ(half["sites"][0]["dtype"], "BF16");
  EXPECT_EQ(half["bytes"].get<int64_t>() * 2, full["bytes"].get<int64_t>());
  const std::string line = attune(inspect).out;
  EXPECT_NE(line.find(" [32, 32]       BF16 "), std::string::npos) << line;
}

TEST_F(Output, TheMachinesMemoryIsPrinted) {
  const Json machine = attune_json({"doctor"});
  EXPECT_GT(machine["memory_bytes"].get<int64_t>(), int64_t{1} << 28);
  EXPECT_LE(machine["memory_available_bytes"].get<int64_t>(),
            machine["memory_bytes"].get<int64_t>());
  const Outcome text = attune({"doctor"});
  EXPECT_NE(text.out.find("\nmemory         "), std::string::npos);
  EXPECT_NE(text.out.find("agree with double precision"), std::string::npos);
  for (const Json& kernel : machine["kernels"]) EXPECT_EQ(kernel["ok"], true) << kernel;
}

TEST_F(Output, ATagMayBeAWholeNumber) {
  std::string rows;
  for (int i = 0; i < 40; ++i) rows += "{\"tokens\": [\"the\", \"Paris\"], \"ner_tags\": [0, 3]}\n";
  write("tags.jsonl", rows);
  const Json result = attune_json(
      train_args({"task=tag", "data.train=tags.jsonl", "data.eval=tags.jsonl", "train.steps=40"}));
  EXPECT_EQ(result["metrics"]["accuracy"], 1.0);
  EXPECT_EQ(attune_json({"predict", "run", "--data", "tags.jsonl"})["results"][0]["tags"],
            (Json{"0", "3"}));
  write("bad.jsonl", rows + "{\"tokens\": [\"a\"], \"ner_tags\": [0, 3]}\n");
  expect_refused(attune({"check", "recipe.yaml", "--set", "task=tag", "--set",
                         "data.train=bad.jsonl", "--set", "output=x", "--quiet"}),
                 2, {"bad.jsonl:41: 1 tokens but 2 tags"});
}

TEST_F(Output, AFailedPredictionLeavesNoFile) {
  ASSERT_EQ(train({"train.steps=3"}).status, 0);
  write("bad.jsonl", std::string(kTwoRows) + "{\"txet\": \"x\"}\n");
  const std::vector<std::string> args = {"predict",   "run",      "--data",
                                         "bad.jsonl", "--output", "out.jsonl"};
  expect_refused(attune(args), 2, {"bad.jsonl:3"});
  EXPECT_FALSE(exists("out.jsonl"));
  expect_refused(attune({"predict", "run"}), 2, {"nothing to read: give --data FILE (or -)"});
  expect_refused(attune({"predict", "run", "--text", "a", "--data", "two.jsonl"}), 2,
                 {"give either --data or --text, not both"});
}

}  // namespace output_test
}  // namespace attune
