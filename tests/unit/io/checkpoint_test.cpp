#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace checkpoint_test {

NamedTensors sample() {
  return {{"b", at::arange(4, at::kFloat)},
          {"a", at::ones({2, 2}, at::kHalf)},
          {"c", at::full({1}, 3, at::kLong)}};
}

std::string load_error(const TempFolder& folder, ErrorCode code) {
  std::string text = error_text(folder, code, [&] { Checkpoint checkpoint(folder.file(".")); });
  // What is left of the folder's own path.
  for (size_t at; (at = text.find("./")) != std::string::npos;) text.erase(at, 2);
  return text;
}

/// Messages logged while it lives.
class Messages {
 public:
  Messages() {
    set_log_sink([this](LogLevel, const std::string& text) { texts.push_back(text); });
  }
  ~Messages() { set_log_sink({}); }
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  std::vector<std::string> texts;
};

TEST(Checkpoint, OneFileIsReadWhole) {
  const TempFolder folder;
  save_checkpoint(folder.file(""), sample());
  const Checkpoint checkpoint(folder.file(""));
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(checkpoint.files().size(), 1U);
  EXPECT_EQ(checkpoint.info("a").dtype, "F16");
  EXPECT_TRUE(checkpoint.has("c"));
  EXPECT_FALSE(checkpoint.has("d"));
  for (const auto& [name, value] : sample()) EXPECT_TRUE(at::equal(checkpoint.tensor(name), value));
}

TEST(Checkpoint, ShardsFollowTheGivenOrderAndLimit) {
  const TempFolder folder;
  save_checkpoint(folder.file(""), sample(), 20);  // 16, then 8 + 8
  const Json index = read_json(folder.file("model.safetensors.index.json"));
  EXPECT_EQ(index.dump(),
            R"({"metadata":{"total_size":32},"weight_map":{"a":"model-00002-of-00002.safetensors",)"
            R"("b":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}})");
  const Checkpoint checkpoint(folder.file(""));
  EXPECT_EQ(checkpoint.files().size(), 2U);
  for (const auto& [name, value] : sample()) EXPECT_TRUE(at::equal(checkpoint.tensor(name), value));
}

TEST(Checkpoint, LargeTensorsGetShardsOfTheirOwn) {
  const TempFolder folder;
  save_checkpoint(folder.file(""), sample(), 1);
  EXPECT_TRUE(file_exists(folder.file("model-00003-of-00003.safetensors")));
  EXPECT_EQ(Checkpoint(folder.file("")).names().size(), 3U);
}

TEST(Checkpoint, ALaterSaveReplacesAnEarlierOneOfTheOtherKind) {
  const TempFolder folder;
  save_checkpoint(folder.file(""), {{"old", at::zeros({1})}});
  save_checkpoint(folder.file(""), sample(), 1);
  EXPECT_TRUE(Checkpoint(folder.file("")).has("a"));
  save_checkpoint(folder.file(""), {{"new", at::zeros({1})}});
  EXPECT_EQ(Checkpoint(folder.file("")).names(), (std::vector<std::string>{"new"}));
  EXPECT_FALSE(file_exists(folder.file("model.safetensors.index.json")));
}

TEST(Checkpoint, TheSingleFileHasPrecedence) {
  const TempFolder folder;
  save_checkpoint(folder.file(""), sample());
  folder.write("model.safetensors.index.json", "nonsense");
  EXPECT_EQ(Checkpoint(folder.file("")).names().size(), 3U);
}

// Computed with Python: hashlib.sha256 over b"a\0F16 2,2\n" + data, b"b\0F32 4\n" + data, b"c\0I64
// 1\n" + data.
TEST(Checkpoint, DigestIsThatOfTheContentHoweverItIsSplit) {
  const TempFolder folder;
  save_checkpoint(folder.file(""), sample());
  const Checkpoint whole(folder.file(""));
  EXPECT_EQ(whole.sha256(), "099f7550bd3482a5ed8cf80f52621e257e95a4e4631155c72d359d353eb260ce");
  EXPECT_EQ(whole.sha256(), whole.sha256());
  save_checkpoint(folder.file(""), sample(), 1);
  EXPECT_EQ(Checkpoint(folder.file("")).sha256(), whole.sha256());
  save_checkpoint(folder.file(""), {{"b", at::zeros({4})}});
  EXPECT_NE(Checkpoint(folder.file("")).sha256(), whole.sha256());
}

TEST(Checkpoint, MissingWeightsNameWhatWasLookedFor) {
  const TempFolder folder;
  EXPECT_EQ(load_error(folder, ErrorCode::NotFound),
            "loading .: no weights; looked for model.safetensors, model.safetensors.index.json and "
            "pytorch_model.bin");
  folder.write("adapter_model.safetensors", "x");
  EXPECT_EQ(load_error(folder, ErrorCode::NotFound),
            "loading .: no weights; looked for model.safetensors, model.safetensors.index.json and "
            "pytorch_model.bin; this "
            "folder holds an adapter: pass the base model here and this one with --adapter");
  folder.write("pytorch_model.bin", "x");
  EXPECT_EQ(load_error(folder, ErrorCode::Unsupported),
            "loading .: the weights are there as pytorch_model.bin only, a pickle, which is not "
            "read; convert them with "
            "transformers: AutoModel.from_pretrained(\".\").save_pretrained(\".-safetensors\")");
  EXPECT_EQ(
      error_text(folder, ErrorCode::NotFound, [&] { Checkpoint checkpoint(folder.file("none")); }),
      "loading none: there is no such folder");
}

TEST(Checkpoint, UnknownTensorsAreRefusedWithTheNearest) {
  const TempFolder folder;
  save_checkpoint(folder.file(""), {{"encoder.weight", at::zeros({1})}});
  const Checkpoint checkpoint(folder.file(""));
  EXPECT_NE(error_text(folder, ErrorCode::NotFound, [&] { checkpoint.tensor("encoder.wieght"); })
                .find("there is no tensor \"encoder.wieght\"; did you mean \"encoder.weight\"?"),
            std::string::npos);
}

std::string index_error(ErrorCode code, std::string_view index) {
  const TempFolder folder;
  save_safetensors(folder.file("s.safetensors"),
                   {{"a", at::zeros({1})}, {"extra", at::zeros({1})}});
  folder.write("model.safetensors.index.json", index);
  return load_error(folder, code);
}

TEST(Checkpoint, IndexesThatDoNotFitAreRefused) {
  const std::string file = "model.safetensors.index.json: ";
  EXPECT_EQ(index_error(ErrorCode::Corrupt, "[]"),
            file + "weight_map is missing; expected an object from tensor names to file names");
  EXPECT_EQ(index_error(ErrorCode::Corrupt, R"({"weight_map":{"a":1}})"),
            file + "weight_map.a: expected a file name, found 1");
  EXPECT_EQ(index_error(ErrorCode::Corrupt, R"({"weight_map":{"a":"x/s.safetensors"}})"),
            file + "weight_map.a: \"x/s.safetensors\" is not the name of a file in this folder");
  EXPECT_EQ(index_error(ErrorCode::Corrupt, R"({"weight_map":{"a":".."}})"),
            file + "weight_map.a: \"..\" is not the name of a file in this folder");
  EXPECT_EQ(index_error(ErrorCode::NotFound, R"({"weight_map":{"a":"t.safetensors"}})"),
            "loading .: model.safetensors.index.json lists t.safetensors, which is not there; "
            "fetch the missing file");
  EXPECT_EQ(index_error(ErrorCode::Corrupt, R"({"weight_map":{"b":"s.safetensors"}})"),
            "loading .: model.safetensors.index.json puts tensor b into s.safetensors, which does "
            "not hold it; the files "
            "do not belong together");
  EXPECT_EQ(index_error(ErrorCode::Corrupt, "{").substr(0, 33),
            "model.safetensors.index.json:1:2:");
}

TEST(Checkpoint, TensorsOutsideTheIndexAreIgnoredWithAWarning) {
  const TempFolder folder;
  save_safetensors(folder.file("s.safetensors"),
                   {{"a", at::zeros({1})}, {"extra", at::zeros({1})}});
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"s.safetensors"}})");
  const Messages messages;
  const Checkpoint checkpoint(folder.file(""));
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a"}));
  ASSERT_EQ(messages.texts.size(), 1U);
  EXPECT_NE(
      messages.texts[0].find("1 tensor(s) that the index does not list here are ignored: extra"),
      std::string::npos);
}

}  // namespace checkpoint_test
}  // namespace attune
