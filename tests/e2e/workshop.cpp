#include "e2e/workshop.h"

#include <unistd.h>

#include <atomic>
#include <random>

#include "base/file.h"
#include "base/text.h"

namespace attune {

namespace fs = std::filesystem;

const char* const kRecipe = R"(model: model
task: classify
data: {train: train.jsonl, eval: 10%}
methods:
  - lora: {sites: "enc.*.{self.[qkvo],ffn.up,ffn.down}", rank: 4, alpha: 8}
head: {pool: mean}
train:
  steps: 60
  batch_size: 8
  lr: 2e-2
  precision: fp32
  save_every: {steps: 3}
  eval_every: {steps: 20}
  log_every: 1
  threads: 1
output: run
)";

namespace {

constexpr const char* kConfig =
    R"({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 2700,
  "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
  "max_position_embeddings": 64, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
  "pad_token_id": 0, "initializer_range": 0.02, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})";

fs::path fresh_folder() {
  static std::atomic<int> count{0};
  const fs::path folder =
      fs::temp_directory_path() / format("attune-e2e-{}-{}.folder", ::getpid(), count++);
  fs::create_directories(folder);
  return folder;
}

/// The model that every test copies, made once by `attune init`.
class SharedModel {
 public:
  SharedModel() : folder_(fresh_folder()) {
    write_file_atomic((folder_ / "config.json").string(), kConfig);
    const Outcome made = run_program(folder_.string(), {"init", "config.json", "-o", "model"});
    EXPECT_EQ(made.status, 0) << made.err;
    fs::copy_file(std::string(ATTUNE_TEST_DATA) + "/tokenizer_small/tokenizer.json",
                  folder_ / "model/tokenizer.json");
  }
  ~SharedModel() { fs::remove_all(folder_); }
  fs::path model() const { return folder_ / "model"; }

 private:
  fs::path folder_;
};

const SharedModel& shared_model() {
  static const SharedModel kModel;
  return kModel;
}

/// Words drawn by a seeded generator; the same on every machine.
class Words {
 public:
  explicit Words(int seed) : draw_(static_cast<uint32_t>(seed)) {}
  int below(int count) { return static_cast<int>(draw_() % static_cast<uint32_t>(count)); }
  std::vector<std::string> some() {
    static const std::vector<std::string> kFiller = {"the",   "a",     "house", "river",
                                                     "stone", "old",   "water", "light",
                                                     "day",   "night", "road",  "tree"};
    std::vector<std::string> words(static_cast<size_t>(3 + below(6)));
    for (std::string& word : words)
      word = kFiller[static_cast<size_t>(below(static_cast<int>(kFiller.size())))];
    return words;
  }
  void insert(std::vector<std::string>& words, const std::string& word) {
    words.insert(words.begin() + below(static_cast<int>(words.size()) + 1), word);
  }

 private:
  std::mt19937 draw_;
};

}  // namespace

std::string classify_rows(int count, int seed) {
  Words draw(seed);
  std::string text;
  for (int i = 0; i < count; ++i) {
    std::vector<std::string> words = draw.some();
    const bool good = draw.below(2) == 0;
    draw.insert(words, good ? "happy" : "sad");
    text += Json{{"text", join(words, " ")}, {"label", good ? "good" : "bad"}}.dump() + "\n";
  }
  return text;
}

std::string multi_rows(int count, int seed) {
  Words draw(seed);
  std::string text;
  for (int i = 0; i < count; ++i) {
    std::vector<std::string> words = draw.some();
    Json labels = Json::array();
    for (const char* word : {"happy", "green"}) {
      if (draw.below(2) == 0) continue;
      draw.insert(words, word);
      labels.push_back(std::string("is ") + word);
    }
    text += Json{{"text", join(words, " ")}, {"labels", labels}}.dump() + "\n";
  }
  return text;
}

std::string regress_rows(int count, int seed) {
  Words draw(seed);
  std::string text;
  for (int i = 0; i < count; ++i) {
    std::vector<std::string> words = draw.some();
    const bool good = draw.below(2) == 0;
    draw.insert(words, good ? "happy" : "sad");
    text += Json{{"text", join(words, " ")}, {"score", good ? 1.5 : -0.5}}.dump() + "\n";
  }
  return text;
}

std::string pair_rows(int count, int seed) {
  Words draw(seed);
  std::string text;
  for (int i = 0; i < count; ++i) {
    std::vector<std::string> first = draw.some(), second = draw.some();
    const bool good = draw.below(2) == 0;
    draw.insert(second, good ? "happy" : "sad");
    text += Json{{"sentence1", join(first, " ")},
                 {"sentence2", join(second, " ")},
                 {"label", good ? 1 : 0}}
                .dump() +
            "\n";
  }
  return text;
}

std::string tag_rows(int count, int seed) {
  Words draw(seed);
  std::string text;
  for (int i = 0; i < count; ++i) {
    std::vector<std::string> words = draw.some();
    draw.insert(words, "Paris");
    std::vector<std::string> tags;
    for (const std::string& word : words) tags.push_back(word == "Paris" ? "B-LOC" : "O");
    text += Json{{"tokens", words}, {"tags", tags}}.dump() + "\n";
  }
  return text;
}

void Workshop::SetUp() {
  folder_ = fresh_folder();
  fs::copy(shared_model().model(), folder_ / "model");
  write("train.jsonl", classify_rows(240, 1));
  write("recipe.yaml", kRecipe);
}

void Workshop::TearDown() {
  fs::remove_all(folder_);
}

void Workshop::write(const std::string& name, const std::string& content) const {
  write_file_atomic(path(name), content);
}

std::string Workshop::read(const std::string& name) const {
  return read_file(path(name));
}

Json Workshop::json(const std::string& name) const {
  return parse_json(read(name), name);
}

std::vector<Json> Workshop::lines(const std::string& name) const {
  std::vector<Json> records;
  const std::string content = read(name);
  for (const std::string& line : split(content, '\n'))
    if (!line.empty()) records.push_back(parse_json(line, name));
  return records;
}

std::vector<std::string> Workshop::left_overs(const std::string& name) const {
  std::vector<std::string> found;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder_ / name)) {
    const std::string file = entry.path().filename().string();
    if (file.find(".tmp") != std::string::npos || file.find(".writing") != std::string::npos ||
        file.find(".old") != std::string::npos)
      found.push_back(entry.path().string());
  }
  return found;
}

Json Workshop::attune_json(std::vector<std::string> args) const {
  args.push_back("--json");
  const Outcome outcome = attune(args);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const Json object = Json::parse(outcome.out, nullptr, false);
  EXPECT_TRUE(object.is_object()) << join(args, " ")
                                  << ": not one JSON object: " << outcome.out.substr(0, 200);
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 1)
      << outcome.out.substr(0, 200);
  return object.is_object() ? object : Json::object();
}

std::vector<std::string> Workshop::train_args(const std::vector<std::string>& sets) {
  std::vector<std::string> args = {"train", "recipe.yaml"};
  for (const std::string& set : sets) {
    args.push_back("--set");
    args.push_back(set);
  }
  return args;
}

Outcome Workshop::train(const std::vector<std::string>& sets) const {
  return attune(train_args(sets));
}

}  // namespace attune
