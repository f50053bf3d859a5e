#include "train/loader.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "support/toy_run.h"

namespace attune {
namespace loader_test {

/// Rows of text: as many tokens as bytes; "bad" cannot be encoded.
class Letters final : public ToyTask {
 public:
  Example encode(const Record& record, bool) const override {
    const std::string text = record.value.at("text").get<std::string>();
    if (text == "bad") fail(ErrorCode::BadInput, "{}: a bad row", record.where());
    Example example;
    example.ids.assign(std::min<size_t>(text.size(), 6), 1);
    example.dropped = static_cast<int64_t>(text.size()) - example.rows();
    return example;
  }
  Batch collate(const std::vector<Example>& examples) const override {
    std::vector<int64_t> lengths, ids;
    for (const Example& example : examples) {
      lengths.push_back(example.rows());
      ids.push_back(example.id);
    }
    Batch batch;
    batch.streams["enc"].rows = RowIndex::from_lengths(lengths);
    batch.fields["example"] = int64_tensor(ids);
    return batch;
  }
};

class LoaderTest : public ::testing::Test {
 protected:
  DataView rows(int count, int bad = -1) {
    std::string text;
    for (int i = 0; i < count; ++i)
      text += "{\"text\": \"" +
              (i == bad ? std::string("bad") : std::string(static_cast<size_t>(1 + i % 9), 'x')) +
              "\"}\n";
    write_file_atomic(folder_.file("rows.jsonl"), text);
    return DataView::all(Dataset::open(folder_.file("rows.jsonl")));
  }
  static std::vector<int64_t> ids(const Loader::Item& item) {
    std::vector<int64_t> result;
    for (const Example& example : item.examples) result.push_back(example.id);
    return result;
  }
  static SamplerOptions by_tokens(int64_t window = 16) {
    SamplerOptions options;
    options.batch_tokens = 20;
    options.window = window;
    return options;
  }
  TempFolder folder_;
  Letters task_;
};

TEST_F(LoaderTest, GivesTheSamplersBatchesAndItsPositions) {
  Loader loader(task_, rows(50), 7, by_tokens());
  Sampler sampler(
      50, 7, [](int64_t i) { return std::min<int64_t>(1 + i % 9, 6); }, by_tokens());
  EXPECT_EQ(loader.position(), sampler.position());
  for (int i = 0; i < 40; ++i) {
    const Loader::Item item = loader.next();
    EXPECT_EQ(ids(item), sampler.next());
    EXPECT_EQ(loader.position(), sampler.position());  // however far ahead the thread is
    EXPECT_EQ(item.batch.streams.at("enc").rows.rows(), item.tokens);
    EXPECT_LE(item.tokens, 20);
  }
}

TEST_F(LoaderTest, GoesOnFromAPosition) {
  Loader loader(task_, rows(50), 7, by_tokens());
  for (int i = 0; i < 9; ++i) loader.next();
  const Sampler::Position position = loader.position();
  const int64_t cut = loader.cut_rows();
  std::vector<std::vector<int64_t>> after;
  for (int i = 0; i < 30; ++i) after.push_back(ids(loader.next()));
  EXPECT_EQ(loader.cut_rows(), 15);  // rows of 7, 8 and 9 letters, each once
  Loader other(task_, rows(50), 7, by_tokens());
  for (Loader* again : {&loader, &other}) {
    again->seek(position, cut);
    EXPECT_EQ(again->cut_rows(), cut);
    for (const std::vector<int64_t>& expected : after) EXPECT_EQ(ids(again->next()), expected);
    EXPECT_EQ(again->cut_rows(), 15);
  }
}

TEST_F(LoaderTest, AnErrorComesWithTheBatchItBelongsTo) {
  SamplerOptions options;
  options.batch_size = 1;
  options.window = 1;
  Loader loader(task_, rows(12, 5), 3, options);
  Sampler sampler(12, 3, {}, options);
  while (sampler.next() != std::vector<int64_t>{5}) EXPECT_NO_THROW(loader.next());
  for (int i = 0; i < 2; ++i) {
    try {
      loader.next();
      ADD_FAILURE() << "the bad row was given out";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("rows.jsonl:6"), std::string::npos) << error.what();
    }
  }
}

TEST_F(LoaderTest, CanBeLeftAtAnyTime) {
  for (int i = 0; i < 20; ++i) {
    Loader loader(task_, rows(40), 1, by_tokens(40));
    for (int k = 0; k < i % 4; ++k) loader.next();
  }
}

}  // namespace loader_test
}  // namespace attune
