// Bad input of every kind: one clear error, its exit status, and nothing half written.
#include <sys/mount.h>

#include <filesystem>

#include "base/text.h"
#include "e2e/workshop.h"

namespace attune {

namespace bad_input_test {

namespace fs = std::filesystem;

class Refused : public Workshop {
 protected:
  /// Training with these overrides is refused, and leaves no run behind.
  void refuses(const std::vector<std::string>& sets, int status,
               const std::vector<std::string>& parts) const {
    std::vector<std::string> args = train_args(sets);
    args.push_back("--quiet");
    expect_refused(attune(args), status, parts);
    EXPECT_FALSE(exists("run"));
  }

  void refuses_rows(const std::string& rows, int status,
                    const std::vector<std::string>& parts) const {
    write("bad.jsonl", rows);
    refuses({"data.train=bad.jsonl", "data.eval=null"}, status, parts);
  }

  /// The model's tensor file with its header replaced by `edit(header)`.
  template <class Edit>
  void edit_header(Edit edit) const {
    const std::string bytes = read("model/model.safetensors");
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | static_cast<unsigned char>(bytes[static_cast<size_t>(i)]);
    Json header = Json::parse(bytes.substr(8, length));
    edit(header);
    std::string text = header.dump();
    while (text.size() % 8 != 0) text += ' ';
    std::string prefix;
    for (int i = 0; i < 8; ++i) prefix += static_cast<char>(text.size() >> (8 * i) & 0xff);
    write("model/model.safetensors", prefix + text + bytes.substr(8 + length));
  }
};

TEST_F(Refused, AnUnknownKeyIsAnsweredWithTheNearest) {
  refuses({"train.epocs=3"}, 2, {"epocs", "did you mean \"epochs\"?"});
  refuses({"methods=[{lora: {rnak: 8}}]"}, 2, {"rnak", "rank"});
  refuses({"methods=[lorra]"}, 2, {"lorra", "lora"});
  refuses({"task=clasify"}, 2, {"clasify", "classify"});
  expect_refused(attune({"train", "recipe.yaml", "--overwrit"}), 2, {"--overwrit"});
}

TEST_F(Refused, AValueOfTheWrongTypeIsNamed) {
  refuses({"train.batch_size=many"}, 2, {"batch_size", "many"});
  refuses({"train.lr=-1"}, 2, {"lr", "-1"});
  write("recipe.yaml", std::string(kRecipe) + "label_smoothing: [1]\n");
  refuses({}, 2, {"recipe.yaml:", "label_smoothing"});
}

TEST_F(Refused, AMissingFileIsNamed) {
  refuses({"data.train=trian.jsonl"}, 3, {"trian.jsonl"});
  refuses({"model=nowhere"}, 3, {"nowhere"});
  expect_refused(attune({"train", "nowhere.yaml"}), 3, {"nowhere.yaml"});
  expect_refused(attune({"resume", "nowhere"}), 3, {"nowhere"});
  expect_refused(attune({"predict", "nowhere", "--text", "a"}), 3, {"nowhere"});
}

TEST_F(Refused, AnEmptyFileIsNamed) {
  refuses_rows("", 2, {"bad.jsonl", "empty"});
}

TEST_F(Refused, ARowWithoutTheColumnIsNamedByItsLine) {
  refuses_rows("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\"}\n", 2,
               {"bad.jsonl:2", "label"});
}

TEST_F(Refused, ATrainingRowThatWouldStopTheRunIsFoundBeforeItBegins) {
  const auto refused = [&](const std::string& task, const std::string& rows,
                           const std::vector<std::string>& parts) {
    write("late.jsonl", rows);
    expect_refused(
        train({"data.train=late.jsonl", "data.eval=null", "task=" + task, "train.steps=1"}), 2,
        parts);
    EXPECT_FALSE(exists("run")) << task;
  };
  refused("classify", classify_rows(60, 1) + "{\"body\": \"x\", \"label\": \"good\"}\n",
          {"late.jsonl:61: no column \"text\"; the record has: body, label"});
  refused("pair", pair_rows(60, 1) + "{\"sentence1\": \"x\", \"label\": 1}\n", {"late.jsonl:61: "});
  refused("tag", tag_rows(60, 1) + "{\"tokens\": [\"a\", \"b\"], \"tags\": [\"O\"]}\n",
          {"late.jsonl:61: 2 tokens but 1 tags; each token needs one tag"});
}

TEST_F(Refused, AnUnseenLabelIsNamedByItsLine) {
  write("eval.jsonl",
        "{\"text\": \"a\", \"label\": \"good\"}\n{\"text\": \"b\", \"label\": \"goood\"}\n");
  const Outcome outcome =
      attune({"check", "recipe.yaml", "--set", "data.eval=eval.jsonl", "--quiet"});
  expect_refused(outcome, 2, {"eval.jsonl:2", "goood"});
  ASSERT_EQ(train({"train.steps=2"}).status, 0);
  expect_refused(attune({"eval", "run", "--data", "eval.jsonl"}), 2, {"eval.jsonl:2", "goood"});
}

TEST_F(Refused, TrainingItselfRefusesAnUnseenLabelBeforeTheFirstStep) {
  write("eval.jsonl", "{\"text\": \"b\", \"label\": \"goood\"}\n");
  refuses({"data.eval=eval.jsonl"}, 2, {"eval.jsonl:1", "goood"});
}

TEST_F(Refused, OneClassOnlyCannotBeLearned) {
  refuses_rows("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"x\"}\n", 2,
               {"1 different label: x"});
}

TEST_F(Refused, ALabelThatIsANumberInOneRowAndTextInAnotherIsNamed) {
  refuses_rows("{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": \"x\"}\n", 2,
               {"bad.jsonl:2", "label"});
}

TEST_F(Refused, InvalidUtf8IsNamedByItsOffset) {
  refuses_rows("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"\xff\", \"label\": \"y\"}\n", 2,
               {"bad.jsonl", "UTF-8", "offset 38"});
}

TEST_F(Refused, BrokenJsonIsNamedByItsLine) {
  refuses_rows("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \n", 2, {"bad.jsonl:2"});
}

TEST_F(Refused, LongTextsAreCountedOrRefused) {
  refuses({"data.max_length=4", "data.too_long=error"}, 2, {"train.jsonl:", "max_length"});
  const Outcome cut = train({"data.max_length=4", "train.steps=2"});
  EXPECT_EQ(cut.status, 0) << cut.err;
  EXPECT_NE(cut.err.find("row(s) were longer than data.max_length and were cut"), std::string::npos)
      << cut.err;
  EXPECT_GT(json("run/run.json")["rows_cut"], 0);
}

TEST_F(Refused, ATruncatedTensorFileIsCorrupt) {
  const std::string bytes = read("model/model.safetensors");
  write("model/model.safetensors", bytes.substr(0, bytes.size() - 100));
  refuses({}, 4, {"model.safetensors"});
  write("model/model.safetensors", bytes.substr(0, 5));
  refuses({}, 4, {"model.safetensors"});
}

TEST_F(Refused, AnOversizedHeaderIsCorrupt) {
  std::string bytes = read("model/model.safetensors");
  bytes[6] = 1;
  write("model/model.safetensors", bytes);
  refuses({}, 4, {"model.safetensors", "header"});
}

TEST_F(Refused, OverlappingTensorsAreCorrupt) {
  edit_header([](Json& header) {
    Json* first = nullptr;
    for (Json& tensor : header)
      if (tensor.contains("data_offsets") && tensor["shape"] == Json{32}) {
        if (first == nullptr)
          first = &tensor;
        else
          tensor["data_offsets"] = (*first)["data_offsets"];
      }
  });
  refuses({}, 4, {"model.safetensors"});
}

TEST_F(Refused, ATensorOfAnotherTypeIsCorrupt) {
  edit_header([](Json& header) {
    for (Json& tensor : header)
      if (tensor.contains("dtype")) tensor["dtype"] = "I32";
  });
  refuses({}, 4, {"dtype"});
}

TEST_F(Refused, AConfigurationThatDisagreesWithTheTensorsIsCorrupt) {
  Json config = json("model/config.json");
  config["intermediate_size"] = 64;
  write("model/config.json", config.dump());
  refuses({}, 4, {"[48, 32]", "[64, 32]"});
  config["intermediate_size"] = 48;
  config["num_hidden_layers"] = 3;
  write("model/config.json", config.dump());
  refuses({}, 4, {"missing", "encoder.layer.2"});
}

TEST_F(Refused, AnUnknownArchitectureIsUnsupported) {
  Json config = json("model/config.json");
  config["model_type"] = "brt";
  write("model/config.json", config.dump());
  refuses({}, 5, {"model_type", "brt", "bert"});
}

TEST_F(Refused, AGlobThatMatchesNothingIsAnsweredWithNearSites) {
  refuses({"methods=[{lora: {sites: \"enc.*.self.query\"}}]"}, 2,
          {"enc.*.self.query", "enc.0.self.q"});
}

TEST_F(Refused, ARankLargerThanTheMatrixIsNamed) {
  refuses({"methods=[{lora: {sites: \"*.self.[qv]\", rank: 33}}]"}, 2, {"33", "32"});
}

TEST_F(Refused, AnOutputThatExistsIsLeftAlone) {
  fs::create_directories(folder_ / "mine");
  write("mine/letter.txt", "dear reader");
  std::vector<std::string> args = train_args({"output=mine"});
  expect_refused(attune(args), 2, {"the output directory mine exists already"});
  args.push_back("--overwrite");
  expect_refused(attune(args), 2, {"mine holds no run"});
  EXPECT_EQ(read("mine/letter.txt"), "dear reader");
  args.back() = "--set";
  args.push_back("output=train.jsonl");
  expect_refused(attune(args), 2, {"train.jsonl is a file"});
}

TEST_F(Refused, OverwriteReplacesARun) {
  ASSERT_EQ(train({"train.steps=9"}).status, 0);
  std::vector<std::string> args = train_args({"train.steps=3"});
  args.push_back("--overwrite");
  EXPECT_EQ(attune_json(args)["steps"], 3);
  EXPECT_FALSE(exists("run/checkpoints/step-000009"));
}

TEST_F(Refused, AFullDiskLeavesTheEarlierCheckpoint) {
  fs::create_directories(folder_ / "disk");
  if (::mount("tmpfs", path("disk").c_str(), "tmpfs", 0, "size=3500k") != 0)
    GTEST_SKIP() << "mounting a small disk needs root";
  // Full fine-tuning: a checkpoint is 1.2 MB, so the third (with two kept) does not fit.
  std::vector<std::string> args =
      train_args({"output=disk/run", "methods=[]", "train.keep=5", "train.lr=1e-3"});
  args.push_back("--quiet");
  expect_refused(attune(args), 7, {"No space left on device"});
  EXPECT_TRUE(exists("disk/run/checkpoints/step-000003/state.safetensors"));
  EXPECT_EQ(left_overs("disk/run"), std::vector<std::string>());
  EXPECT_EQ(::mount("tmpfs", path("disk").c_str(), "tmpfs", MS_REMOUNT, "size=99000k"), 0);
  const Outcome resumed = attune({"resume", "disk/run"});
  EXPECT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_EQ(train({"methods=[]", "train.keep=5", "train.lr=1e-3"}).status, 0);
  EXPECT_EQ(read("disk/run/model/model.safetensors"), read("run/model/model.safetensors"));
  ::umount(path("disk").c_str());
}

TEST_F(Refused, ALossThatIsNotANumberStopsAndKeepsTheCheckpoint) {
  std::vector<std::string> args = train_args({"train.lr=1000", "train.save_every={steps: 1}"});
  args.push_back("--quiet");
  const Outcome outcome = attune(args);
  expect_refused(outcome, 8, {"not a finite number at step ", "train.jsonl:", "train.lr"});
  EXPECT_TRUE(exists("run/checkpoints/step-000001/state.json") ||
              exists("run/checkpoints/step-000003/state.json"))
      << outcome.err;
  EXPECT_FALSE(exists("run/run.json"));
  EXPECT_EQ(left_overs("run"), std::vector<std::string>());
}

TEST_F(Refused, MemoryThatRunsOutSaysWhatToLower) {
  Json config = json("model/config.json");
  config["hidden_size"] = 8192;
  config["num_hidden_layers"] = 8;
  config["intermediate_size"] = 32768;
  write("big.json", config.dump());
  const Outcome outcome = run_program(folder_.string(), {"init", "big.json", "-o", "big"}, "",
                                      int64_t{3} * 1024 * 1024);
  expect_refused(outcome, 6, {"lower"});
  EXPECT_FALSE(exists("big"));
}

}  // namespace bad_input_test
}  // namespace attune
