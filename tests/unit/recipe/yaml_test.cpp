#include "recipe/yaml.h"

#include <gtest/gtest.h>

#include "support/temp_folder.h"
#include "variable.h"

namespace attune {
namespace yaml_test {

Json read(const std::string& text) {
  return parse_yaml(text, "r.yaml").to_json();
}
std::string refused(const std::string& text) {
  return error_text(ErrorCode::BadInput, [&] { parse_yaml(text, "r.yaml"); });
}

TEST(Yaml, OneDocumentIsExpected) {
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { parse_yaml("a: 1\n---\nb: 2\n", "r.yaml"); }),
            "r.yaml: one YAML document is expected, found more (after a line \"---\")");
}

TEST(Yaml, EveryNodeKnowsItsPlace) {
  const Node root = parse_yaml(
      "model: m\ntrain:\n  lr: 2e-4\nmethods:\n  - lora: {rank: 8}\n  - bias\n", "r.yaml");
  EXPECT_EQ(root.find("model")->place().text(), "r.yaml:1:8");
  EXPECT_EQ(root.find("train")->find("lr")->place().text(), "r.yaml:3:7");
  const std::vector<Node>& methods = root.find("methods")->items();
  EXPECT_EQ(methods[0].place().text(), "r.yaml:5:5");
  EXPECT_EQ(methods[0].find("lora")->find("rank")->place().text(), "r.yaml:5:18");
  EXPECT_EQ(methods[1].place().text(), "r.yaml:6:5");
}

TEST(Yaml, QuotesMakeTexts) {
  EXPECT_EQ(
      read("{a: 8, b: \"8\", c: '8', d: true, e: 'true', f: ~, g: '', h: yes}"),
      Json::parse(R"({"a":8,"b":"8","c":"8","d":true,"e":"true","f":null,"g":"","h":"yes"})"));
  EXPECT_TRUE(parse_yaml("a: '8'", "r").find("a")->quoted());
  EXPECT_FALSE(parse_yaml("a: 8", "r").find("a")->quoted());
}

TEST(Yaml, JsonIsYaml) {
  const std::string text = R"({"a": [1, 2.5, "x", null, true], "b": {"c": "d: e"}})";
  EXPECT_EQ(read(text), Json::parse(text));
  EXPECT_TRUE(parse_yaml("", "r").is_null());
}

TEST(Yaml, AnchorsAndMergeKeysAreWrittenOut) {
  EXPECT_EQ(
      read("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\nc: *x\nd: {<<: [{p: 5}, *x]}\n"),
      Json::parse(R"({"a":{"p":1,"q":2},"b":{"q":3,"p":1},"c":{"p":1,"q":2},"d":{"p":5,"q":2}})"));
}

TEST(Yaml, WhatIsNotYamlIsRefusedWithItsPlace) {
  EXPECT_EQ(refused("a: 1\nb: 2\na: 3\n"), "r.yaml:3:1: the key \"a\" is there twice; remove one");
  EXPECT_EQ(refused("a: [1, 2\n").substr(0, 9), "r.yaml:2:");
  EXPECT_NE(refused("a: b: c\n").find(": not valid YAML: "), std::string::npos);
  EXPECT_EQ(refused("a: \xff\n"), "r.yaml: not valid UTF-8 at byte 3; save the file as UTF-8");
  EXPECT_NE(refused("a: 1\n---\nb: 2\n").find("one YAML document is expected"), std::string::npos);
  EXPECT_EQ(refused("a: {<<: 3}\n"), "r.yaml:1:9: << merges mappings, found 3");
  EXPECT_NE(refused("? [a]\n: 1\n").find("expected a key, found a list or mapping"),
            std::string::npos);
  EXPECT_NE(refused("a: &x [*x]\n").find("this alias stands inside the value it refers to"),
            std::string::npos);
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int k = 1; k < 10; ++k) bomb += ", " + before;
    bomb += "]\n";
  }
  EXPECT_NE(refused(bomb).find("its aliases stand for more than 1000000 values"),
            std::string::npos);
}

TEST(Yaml, VariablesComeFromTheEnvironment) {
  const Variable set("ATTUNE_TEST_FOLDER", "/data");
  const Variable unset("ATTUNE_TEST_NOTHING", nullptr);
  EXPECT_EQ(read("a: ${ATTUNE_TEST_FOLDER}/x\nb: $${ATTUNE_TEST_FOLDER}\nc: $5\n"),
            Json::parse(R"({"a":"/data/x","b":"${ATTUNE_TEST_FOLDER}","c":"$5"})"));
  EXPECT_EQ(refused("a: ${ATTUNE_TEST_NOTHING}"),
            "r.yaml:1:4: the environment variable ATTUNE_TEST_NOTHING is not set; set it, or write "
            "$${ATTUNE_TEST_NOTHING} for the plain text");
  EXPECT_NE(refused("a: '${x'").find("must be followed by a variable's name"), std::string::npos);
}

TEST(Yaml, IncludesMergeMappingsAndReplaceLists) {
  const TempFolder folder;
  folder.write("base/base.yaml", "model: m\ntrain: {lr: 1, seed: 2}\nmethods: [a, b]\n");
  folder.write("more.yaml", "train: {clip: 3}\n");
  const std::string path = folder.write(
      "r.yaml", "include: [base/base.yaml, more.yaml]\ntrain: {seed: 5}\nmethods: [c]\n");
  EXPECT_EQ(load_yaml(path).to_json(),
            Json::parse(R"({"model":"m","train":{"lr":1,"seed":5,"clip":3},"methods":["c"]})"));
  EXPECT_EQ(load_yaml(path).find("model")->place().text(), folder.file("base/base.yaml") + ":1:8");
}

TEST(Yaml, IncludesInACircleOrMissingAreRefused) {
  const TempFolder folder;
  folder.write("a.yaml", "include: b.yaml\n");
  folder.write("b.yaml", "include: a.yaml\n");
  EXPECT_NE(error_text(ErrorCode::BadInput, [&] { load_yaml(folder.file("a.yaml")); })
                .find("it includes itself"),
            std::string::npos);
  const std::string lost = folder.write("c.yaml", "include: lost.yaml\n");
  EXPECT_EQ(error_text(ErrorCode::NotFound, [&] { load_yaml(lost); }),
            lost + ":1:10: include: there is no file " + folder.file("lost.yaml") +
                " (paths are relative to the including file)");
  error_text(ErrorCode::NotFound, [&] { load_yaml(folder.file("nothing.yaml")); });
}

TEST(Yaml, OverridesReplaceOneValue) {
  const Node root = parse_yaml("methods: [{lora: {rank: 8}}]\ntrain: {lr: 1}\n", "r.yaml");
  EXPECT_EQ(apply_set(root, "methods.0.lora.rank=16").to_json().dump(),
            R"({"methods":[{"lora":{"rank":16}}],"train":{"lr":1}})");
  EXPECT_EQ(apply_set(root, "methods=[bias]").to_json()["methods"], Json::parse(R"(["bias"])"));
  EXPECT_EQ(apply_set(root, "train.best={metric: accuracy}").to_json()["train"]["best"]["metric"],
            "accuracy");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { apply_set(root, "train.lr"); }),
            "--set train.lr: expected path=value, such as methods.0.lora.rank=16");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { apply_set(root, "train.lr=[1"); }).substr(0, 18),
            "--set train.lr:1:1");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { apply_set(root, "methods.4=x"); }).substr(0, 20),
            "--set methods.4=x: s");
}

TEST(Yaml, WhatIsWrittenIsReadBack) {
  const Json value = Json::parse(
      R"({"a":"plain text","b":"8","c":8,"d":2.0,"e":1e-8,"f":"true","g":"no","h":"","i":" x","j":"a: b","k":"#x",
          "l":[1,2.5],"m":[],"n":{},"o":["x",{"p":{"q":1},"r":[{"s":"10%"}]},[[1],["y"]]],"t":"${HOME}","u":"line\nline\ttab",
          "v":"*.self.[qv]","w":null,"x":"é ü 漢","y y":"1_000","on":true,"z":"- a","aa":"'","bb":"\"","cc":"\\","8":"k","dd":"=",
          "ee":".5","ff":"-","gg":"$${x}","hh":"~","ii":"\u0001","jj":0.1,"kk":123456789012345678,"":"empty key"})");
  EXPECT_EQ(read(to_yaml(value)), value) << to_yaml(value);
  EXPECT_EQ(to_yaml(Json::parse(R"({"a":{"b":[{"lora":{"rank":8}},"bias"]},"c":"x"})")),
            "a:\n  b:\n    - lora:\n        rank: 8\n    - bias\nc: x\n");
}

}  // namespace yaml_test
}  // namespace attune
