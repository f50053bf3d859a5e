#include "decode/generate.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "decode/beam_search.h"
#include "decode/decoding.h"
#include "tensor/torch.h"

namespace attune {

namespace {

using Ids = std::vector<int32_t>;

void check_model(const Model& model, const GenerateOptions& options) {
  const Site* table = model.find("dec.embed.tok");
  const Site* logits = model.find("logits");
  if (table == nullptr || logits == nullptr || logits->out != table->in)
    fail(ErrorCode::Unsupported,
         "generating text: this model has no language model head; load a causal language model or "
         "an encoder-decoder for conditional generation");
  if (model.find("enc.embed.tok") != nullptr && options.decoder_start < 0)
    fail(ErrorCode::BadInput,
         "generating text: this encoder-decoder needs decoder_start_token_id, and config.json and "
         "generation_config.json give none");
}

void check_options(const GenerateOptions& options) {
  if (options.max_new_tokens < 1)
    fail(ErrorCode::BadInput, "generating text: max_new_tokens is {}; at least 1 was expected",
         options.max_new_tokens);
  if (options.beams < 1)
    fail(ErrorCode::BadInput, "generating text: {} beams; at least 1 was expected", options.beams);
  if (options.beams > 1 && options.sample)
    fail(ErrorCode::BadInput,
         "generating text: beam search takes the likeliest continuations and does not sample; "
         "leave out the beams, or temperature, top_k and top_p");
  if (!(options.sampling.temperature > 0))
    fail(ErrorCode::BadInput,
         "generating text: the temperature is {}; a number above 0 was expected (greedy decoding "
         "is its limit at 0)",
         options.sampling.temperature);
  if (!(options.sampling.top_p > 0 && options.sampling.top_p <= 1))
    fail(ErrorCode::BadInput,
         "generating text: top_p is {}; a probability above 0 and at most 1 was expected",
         options.sampling.top_p);
  if (options.sampling.top_k < 0)
    fail(ErrorCode::BadInput, "generating text: top_k is {}; 0 (all) or more was expected",
         options.sampling.top_k);
}

/// The next token of every sequence.
Ids choose(const Tensor& logits, const Decoding& decoding, int64_t step,
           const GenerateOptions& options) {
  Ids tokens;
  if (!options.sample) {
    const Tensor best = logits.argmax(-1);
    for (int64_t i = 0; i < best.numel(); ++i)
      tokens.push_back(static_cast<int32_t>(static_cast<const int64_t*>(best.data_ptr())[i]));
    return tokens;
  }
  const Stream64 stream(options.seed, "generate");
  const Tensor rows = logits.to(at::kDouble).contiguous();
  const double* values = static_cast<const double*>(rows.data_ptr());
  for (int64_t i = 0; i < rows.size(0); ++i) {
    const std::vector<double> row(values + i * rows.size(1), values + (i + 1) * rows.size(1));
    const int64_t prompt = options.first_prompt + decoding.prompt_of(static_cast<size_t>(i));
    tokens.push_back(draw_token(
        token_probabilities(row, options.sampling),
        stream.with(static_cast<uint64_t>(prompt)).uniform(static_cast<uint64_t>(step))));
  }
  return tokens;
}

}  // namespace

std::vector<Ids> generate(Model& model, const std::vector<Ids>& prompts,
                          const GenerateOptions& options, const Tensor& sets) {
  check_model(model, options);
  check_options(options);
  for (size_t i = 0; i < prompts.size(); ++i)
    if (prompts[i].empty())
      fail(ErrorCode::BadInput, "generating text: prompt {} has no tokens", i);
  at::NoGradGuard no_grad;
  Decoding decoding(model, prompts, options.decoder_start, options.cached, sets);
  if (options.beams > 1) return beam_search(decoding, prompts.size(), options);
  std::vector<Ids> results(prompts.size());
  for (int64_t step = 0; step < options.max_new_tokens && decoding.size() > 0; ++step) {
    const Ids tokens = choose(decoding.next_logits(), decoding, step, options);
    std::vector<int64_t> running;
    Ids last;
    for (size_t i = 0; i < tokens.size(); ++i) {
      results[static_cast<size_t>(decoding.prompt_of(i))].push_back(tokens[i]);
      if (std::count(options.eos.begin(), options.eos.end(), tokens[i]) > 0) continue;
      running.push_back(static_cast<int64_t>(i));
      last.push_back(tokens[i]);
    }
    decoding.go_on(running, last);
  }
  return results;
}

}  // namespace attune
