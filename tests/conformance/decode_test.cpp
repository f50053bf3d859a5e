// Decoding with a cache of keys and values equals decoding without, and transformers' generation.
#include "base/file.h"
#include "base/json.h"
#include "core/cache.h"
#include "decode/generate.h"
#include "methods/registry.h"
#include "tiny.h"

namespace attune {
namespace decode_test {

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
/// Prompt rows in front, and again between the layers, that move the positions of what follows.
void prompts(Attachment& attachment) {
  for (const char* name : {"dec.embed.rows", "dec.0.resid.in", "dec.1.resid.in"})
    for (const Site& site : attachment.all_sites())
      if (site.name == name)
        attachment.add(site, Extend{noise(name, {2, site.out}, 1), {}, {}, true, false, {}, {}});
}
void prompt_that_stays(Attachment& attachment) {
  const Site site = attachment.sites("dec.1.resid.in")[0];
  attachment.add(site, Extend{noise("stays", {3, site.out}, 1), {}, {}, false, false, {}, {}});
}
void nothing(Attachment&) {}

const DecodeCase kCases[] = {
    {"llama", "plain", nothing},
    {"llama", "prefix", prefix},
    {"llama", "scores", inside},
    {"llama", "prompts", prompts},
    {"llama", "prompt_that_stays", prompt_that_stays},
    {"t5", "plain", nothing},
    {"t5", "prefix", prefix},
    {"t5", "cross_prefix", cross_prefix},
    {"t5", "scores", inside},
    {"t5", "prompts", prompts},
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

class Generate : public ::testing::TestWithParam<const char*> {
 protected:
  Generate() : model_(model_of(GetParam(), words())) {
    options_.max_new_tokens = 12;
    options_.decoder_start = 0;
  }
  std::unique_ptr<Model> model_;
  GenerateOptions options_;
  const std::vector<Ids> prompts_{drawn("a", 4), drawn("b", 1), drawn("c", 7)};
};

/// Greedy decoding, sampling and beam search.
std::vector<GenerateOptions> ways(const GenerateOptions& options) {
  std::vector<GenerateOptions> result(4, options);
  result[1].sample = true;
  result[1].sampling = {1.5, 0.9, 20};
  result[2].beams = 3;
  result[3].beams = 4;
  result[3].length_penalty = 0.5;
  result[3].eos = {5, 9, 20};
  return result;
}

TEST_P(Generate, CachedEqualsUncachedAndTogetherEqualsOneByOne) {
  for (GenerateOptions way : ways(options_)) {
    const std::vector<Ids> cached = generate(*model_, prompts_, way);
    way.cached = false;
    EXPECT_EQ(generate(*model_, prompts_, way), cached);
    way.cached = true;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      way.first_prompt = static_cast<int64_t>(i);
      EXPECT_EQ(generate(*model_, {prompts_[i]}, way)[0], cached[i]);
    }
  }
}

/// Sequence by sequence: adapters of one batch against each of them alone.
TEST_P(Generate, EachSequenceFollowsItsOwnAdapterSet) {
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model_, registry, 1);
  adaptation.add("first", {"lora", Json{{"rank", 2}}});
  adaptation.add("second", {"ia3", Json::object()});
  disturb(adaptation, 0.5);
  const std::vector<Ids> together = generate(*model_, prompts_, options_, int32_tensor({1, -1, 0}));
  const std::vector<int32_t> sets{1, -1, 0};
  for (size_t i = 0; i < prompts_.size(); ++i)
    EXPECT_EQ(generate(*model_, {prompts_[i]}, options_, int32_tensor({sets[i]}))[0], together[i]);
  adaptation.enable("first", false);
  adaptation.enable("second", false);
  EXPECT_EQ(generate(*model_, {prompts_[1]}, options_)[0], together[1]);
  EXPECT_NE(generate(*model_, {prompts_[0]}, options_)[0], together[0]);
  adaptation.enable("second", true);
  EXPECT_EQ(generate(*model_, {prompts_[0]}, options_)[0], together[0]);
}

/// The likeliest continuation of `length` tokens among all there are, by trying them.
TEST_P(Generate, WideBeamsFindTheLikeliestContinuation) {
  const Ids prompt = drawn("a", 4);
  const int64_t words = model_->site("logits").out;
  options_.max_new_tokens = 2;
  options_.beams = words;
  const Ids found = generate(*model_, {prompt}, options_)[0];
  at::NoGradGuard no_grad;
  const bool encoder = model_->find("enc.embed.tok") != nullptr;
  double best = -1e9;
  Ids expected;
  for (int32_t first = 0; first < words; ++first) {
    Batch batch;
    Ids text = encoder ? Ids{0} : prompt;
    text.push_back(first);
    batch.streams["dec"] = stream_of({text});
    if (encoder) batch.streams["enc"] = stream_of({prompt});
    const Tensor log_probabilities =
        model_->forward(batch, {}).head->logits(Tensor()).to(at::kDouble).log_softmax(-1);
    const int64_t last = static_cast<int64_t>(text.size()) - 1;
    const int32_t second = static_cast<int32_t>(log_probabilities[last].argmax().item<int64_t>());
    const double score = log_probabilities[last - 1][first].item<double>() +
                         log_probabilities[last][second].item<double>();
    if (score > best) expected = {first, second};
    best = std::max(best, score);
  }
  EXPECT_EQ(found, expected);
}

TEST_P(Generate, ASequenceEndsWithItsEndTokenAndTheOthersGoOn) {
  const std::vector<Ids> whole = generate(*model_, prompts_, options_);
  options_.eos = {whole[1][2], whole[0][5]};
  const std::vector<Ids> found = generate(*model_, prompts_, options_);
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

INSTANTIATE_TEST_SUITE_P(All, Generate, ::testing::Values("llama", "t5"),
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

TEST(GenerateErrors, SayWhatIsMissing) {
  const std::unique_ptr<Model> t5 = model_of("t5", words()), llama = model_of("llama", words());
  HeadRequest tags;
  tags.kind = HeadKind::Token;
  tags.labels = 3;
  const std::unique_ptr<Model> tagger = model_of("llama", tags);
  GenerateOptions options;
  EXPECT_EQ(text_of_error(ErrorCode::BadInput, [&] { generate(*t5, {{3}}, options); }),
            "generating text: this encoder-decoder needs decoder_start_token_id, and config.json "
            "and generation_config.json give none");
  EXPECT_EQ(text_of_error(ErrorCode::BadInput,
                          [&] {
                            generate(*llama, {{3}, {}}, options);
                          }),
            "generating text: prompt 1 has no tokens");
  EXPECT_EQ(text_of_error(ErrorCode::Unsupported, [&] { generate(*tagger, {{3}}, options); }),
            "generating text: this model has no language model head; load a causal language model "
            "or an encoder-decoder for conditional generation");
  options.max_new_tokens = 0;
  EXPECT_EQ(text_of_error(ErrorCode::BadInput, [&] { generate(*llama, {{3}}, options); }),
            "generating text: max_new_tokens is 0; at least 1 was expected");
  const auto refused = [&](const std::function<void(GenerateOptions&)>& change) {
    GenerateOptions changed;
    change(changed);
    return text_of_error(ErrorCode::BadInput, [&] { generate(*llama, {{3}}, changed); });
  };
  EXPECT_EQ(refused([](GenerateOptions& o) { o.beams = 0; }),
            "generating text: 0 beams; at least 1 was expected");
  EXPECT_EQ(refused([](GenerateOptions& o) {
              o.beams = 2;
              o.sample = true;
            }),
            "generating text: beam search takes the likeliest continuations and does not sample; "
            "leave out the beams, or temperature, top_k and top_p");
  EXPECT_EQ(refused([](GenerateOptions& o) { o.sampling.temperature = 0; }),
            "generating text: the temperature is 0; a number above 0 was expected (greedy decoding "
            "is its limit at 0)");
  EXPECT_EQ(refused([](GenerateOptions& o) { o.sampling.top_p = 1.5; }),
            "generating text: top_p is 1.5; a probability above 0 and at most 1 was expected");
  EXPECT_EQ(refused([](GenerateOptions& o) { o.sampling.top_k = -1; }),
            "generating text: top_k is -1; 0 (all) or more was expected");
}

class GeneratedGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(GeneratedGolden, TokensAreThoseOfTransformers) {
  const std::string folder = std::string(ATTUNE_TEST_DATA) + "/" + GetParam();
  const Json golden = parse_json(read_file(folder + "/generated.json"), "generated.json");
  LoadOptions load;
  load.numerics = {kernels::DType::F64};
  const LoadedModel loaded = load_model(folder, load);
  GenerateOptions options;
  options.max_new_tokens = golden["max_new_tokens"];
  options.decoder_start = golden.value("decoder_start_token_id", -1);
  for (const Json& run : golden["runs"]) {
    options.eos = run["eos"].get<Ids>();
    options.beams = run["beams"];
    options.length_penalty = run["length_penalty"];
    EXPECT_EQ(generate(*loaded.model, golden["prompts"].get<std::vector<Ids>>(), options),
              run["new_tokens"].get<std::vector<Ids>>())
        << run["eos"] << " beams " << run["beams"] << " penalty " << run["length_penalty"];
  }
}

INSTANTIATE_TEST_SUITE_P(All, GeneratedGolden,
                         ::testing::Values("llama/lm", "llama/tied-llama3", "t5/lm",
                                           "t5/lm-untied"),
                         [](const ::testing::TestParamInfo<const char*>& info) {
                           std::string name = info.param;
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char c) { return c == '/' || c == '-'; }, '_');
                           return name;
                         });

}  // namespace decode_test
}  // namespace attune
