// Decoding with a cache of keys and values equals decoding without, and transformers' generation.
#include "base/json.h"
#include "core/cache.h"
#include "decode/greedy.h"
#include "recipe/target.h"
#include "tiny.h"

namespace attune {
namespace {

using namespace tiny;
using Ids = std::vector<int32_t>;

Stream stream_of(const std::vector<Ids>& sequences) {
  std::vector<int64_t> lengths;
  Ids all;
  for (const Ids& ids : sequences) {
    lengths.push_back(static_cast<int64_t>(ids.size()));
    all.insert(all.end(), ids.begin(), ids.end());
  }
  Stream stream;
  stream.rows = RowIndex::from_lengths(lengths);
  stream.ids = int32_tensor(all);
  return stream;
}

Ids drawn(const std::string& name, size_t count) {
  const Stream64 stream(11, name);
  Ids ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(2 + static_cast<int32_t>(stream.below(i, 50)));
  return ids;
}

using Attach = void (*)(Attachment&);
struct DecodeCase {
  const char* architecture;
  const char* name;
  Attach attach;
};

void prefix(Attachment& attachment) {
  for (const Site& site : attachment.sites("dec.*.self.kv"))
    attachment.add(site, Extend{{},
                                noise(site.name + "/k", {3, site.out}, 1),
                                noise(site.name + "/v", {3, site.out}, 1),
                                true,
                                false,
                                {},
                                {}});
}
void cross_prefix(Attachment& attachment) {
  for (const Site& site : attachment.sites("dec.*.cross.kv"))
    attachment.add(site, Extend{{},
                                noise(site.name + "/k", {2, site.out}, 1),
                                noise(site.name + "/v", {2, site.out}, 1),
                                true,
                                false,
                                {},
                                {}});
}
void inside(Attachment& attachment) {
  for (const char* glob : {"dec.*.self.scores", "dec.*.self.probs"})
    for (const Site& site : attachment.sites(glob))
      attachment.add(site, Apply{[](const View& view) { return view.x * 0.9; }, {}});
}
void nothing(Attachment&) {}

const DecodeCase kCases[] = {
    {"llama", "plain", nothing}, {"llama", "prefix", prefix}, {"llama", "scores", inside},
    {"t5", "plain", nothing},    {"t5", "prefix", prefix},    {"t5", "cross_prefix", cross_prefix},
    {"t5", "scores", inside},
};

HeadRequest words() {
  HeadRequest head;
  head.kind = HeadKind::Lm;
  return head;
}

class CachedDecoding : public ::testing::TestWithParam<DecodeCase> {};

TEST_P(CachedDecoding, GivesTheLogitsOfWholeTextsAtEveryStep) {
  at::NoGradGuard no_grad;
  const std::unique_ptr<Model> model = model_of(GetParam().architecture, words());
  Edits edits(*model, GetParam().attach);
  const bool encoder = model->find("enc.embed.tok") != nullptr;
  const Stream source = stream_of({drawn("a", 4), drawn("b", 1), drawn("c", 7)});
  std::vector<Ids> texts{drawn("d", 5), drawn("e", 1), drawn("f", 3)};
  Cache cache;
  std::vector<Ids> fresh = texts;
  for (int step = 0; step < 5; ++step) {
    Batch whole, part;
    whole.streams["dec"] = stream_of(texts);
    if (encoder) whole.streams["enc"] = source;
    part.streams["dec"] = stream_of(fresh);
    if (encoder && step == 0) part.streams["enc"] = source;
    part.cache = &cache;
    const Tensor expected = model->forward(whole, {}).head->logits(Tensor());
    const Tensor found = model->forward(part, {}).head->logits(Tensor());
    const RowIndex &all = whole.streams["dec"].rows, &added = part.streams["dec"].rows;
    for (int64_t b = 0; b < 3; ++b)
      EXPECT_LE(distance(found.slice(0, added.begin(b), added.end(b)),
                         expected.slice(0, all.end(b) - added.length(b), all.end(b))),
                1e-12)
          << "step " << step << " sequence " << b;
    for (size_t b = 0; b < 3; ++b) {
      // A step may bring more than one token.
      fresh[b] = drawn(std::to_string(step) + std::to_string(b), step == 2 ? 3 : 1);
      texts[b].insert(texts[b].end(), fresh[b].begin(), fresh[b].end());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CachedDecoding, ::testing::ValuesIn(kCases),
                         [](const ::testing::TestParamInfo<DecodeCase>& info) {
                           return std::string(info.param.architecture) + "_" + info.param.name;
                         });

class Greedy : public ::testing::TestWithParam<const char*> {
 protected:
  Greedy() : model_(model_of(GetParam(), words())) {
    options_.max_new_tokens = 12;
    options_.decoder_start = 0;
  }
  std::unique_ptr<Model> model_;
  GreedyOptions options_;
  const std::vector<Ids> prompts_{drawn("a", 4), drawn("b", 1), drawn("c", 7)};
};

TEST_P(Greedy, CachedEqualsUncachedAndTogetherEqualsOneByOne) {
  const std::vector<Ids> cached = greedy(*model_, prompts_, options_);
  options_.cached = false;
  EXPECT_EQ(greedy(*model_, prompts_, options_), cached);
  options_.cached = true;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    EXPECT_EQ(cached[i].size(), 12u);
    EXPECT_EQ(greedy(*model_, {prompts_[i]}, options_)[0], cached[i]);
  }
}

TEST_P(Greedy, ASequenceEndsWithItsEndTokenAndTheOthersGoOn) {
  const std::vector<Ids> whole = greedy(*model_, prompts_, options_);
  options_.eos = {whole[1][2], whole[0][5]};
  const std::vector<Ids> found = greedy(*model_, prompts_, options_);
  bool ended = false;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    Ids expected;
    for (const int32_t id : whole[i]) {
      expected.push_back(id);
      if (id == options_.eos[0] || id == options_.eos[1]) break;
    }
    EXPECT_EQ(found[i], expected);
    ended = ended || expected.size() < 12;
  }
  EXPECT_TRUE(ended);
}

INSTANTIATE_TEST_SUITE_P(All, Greedy, ::testing::Values("llama", "t5"),
                         [](const ::testing::TestParamInfo<const char*>& info) {
                           return std::string(info.param);
                         });

std::string text_of_error(ErrorCode code, const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(GreedyErrors, SayWhatIsMissing) {
  const std::unique_ptr<Model> t5 = model_of("t5", words()), llama = model_of("llama", words());
  HeadRequest tags;
  tags.kind = HeadKind::Token;
  tags.labels = 3;
  const std::unique_ptr<Model> tagger = model_of("llama", tags);
  GreedyOptions options;
  EXPECT_EQ(text_of_error(ErrorCode::BadInput, [&] { greedy(*t5, {{3}}, options); }),
            "generating text: this encoder-decoder needs decoder_start_token_id, and config.json "
            "and generation_config.json give none");
  EXPECT_EQ(text_of_error(ErrorCode::BadInput,
                          [&] {
                            greedy(*llama, {{3}, {}}, options);
                          }),
            "generating text: prompt 1 has no tokens");
  EXPECT_EQ(text_of_error(ErrorCode::Unsupported, [&] { greedy(*tagger, {{3}}, options); }),
            "generating text: this model has no language model head; load a causal language model "
            "or an encoder-decoder for conditional generation");
  options.max_new_tokens = 0;
  EXPECT_EQ(text_of_error(ErrorCode::BadInput, [&] { greedy(*llama, {{3}}, options); }),
            "generating text: max_new_tokens is 0; at least 1 was expected");
}

}  // namespace
}  // namespace attune
