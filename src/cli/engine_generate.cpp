// generate: text or tokens that a language model goes on with.
#include "base/error.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "data/columns.h"
#include "data/records.h"
#include "decode/generate.h"
#include "nn/transformer.h"
#include "tasks/generation.h"

namespace attune {

namespace {

constexpr int64_t kRowsAtOnce = 4096;      // of prompts
constexpr int64_t kSequencesAtOnce = 128;  // beams counted

double number_arg(const Json& args, const char* name, double fallback) {
  return args.contains(name) && args[name].is_number() ? args[name].get<double>() : fallback;
}

bool given(const Json& args, const char* name) {
  return args.contains(name) && !args[name].is_null();
}

GenerateOptions options_of(const Json& args, const Target& target) {
  GenerateOptions options;
  options.max_new_tokens = int_arg(args, "max_new_tokens", 128);
  options.sample = given(args, "temperature") || given(args, "top_k") || given(args, "top_p");
  if (flag_arg(args, "greedy") && (options.sample || int_arg(args, "beams", 1) > 1))
    fail(ErrorCode::BadInput,
         "--greedy takes the likeliest token every time; leave it out, or --temperature, --top-k, "
         "--top-p and --beams");
  options.sampling = {number_arg(args, "temperature", 1), number_arg(args, "top_p", 1),
                      int_arg(args, "top_k", 0)};
  options.beams = int_arg(args, "beams", 1);
  options.seed = static_cast<uint64_t>(int_arg(args, "seed", 1));
  const GenerationDefaults defaults = generation_defaults(
      target.loaded.model->config(), target.base_directory, target.tokenizer.get());
  if (!flag_arg(args, "ignore_eos")) options.eos = defaults.eos;
  options.decoder_start = defaults.decoder_start;
  if (const Transformer* model = dynamic_cast<const Transformer*>(target.loaded.model.get());
      options.decoder_start < 0 && model != nullptr)
    options.decoder_start = static_cast<int32_t>(model->spec().decoder_start);
  return options;
}

const Tokenizer& tokenizer_of(const Target& target, const std::string& what) {
  target.check_text(what);
  if (target.tokenizer == nullptr)
    fail(ErrorCode::NotFound,
         "{}: text needs a tokenizer, and {} has none; give input_ids, and --ids for what is "
         "generated",
         what, target.base_directory);
  return *target.tokenizer;
}

/// The tokens of one input.
std::vector<int32_t> ids_of(const Target& target, const Record& record) {
  if (has_column(record, "input_ids")) {
    const std::vector<int64_t> ids = integers_of(record, "input_ids");
    return {ids.begin(), ids.end()};
  }
  const char* const column = has_column(record, "prompt") ? "prompt" : "text";
  const std::string text = text_of(record, column);
  const Tokenizer& tokenizer = tokenizer_of(target, record.where());
  const bool encoder = target.loaded.model->find("enc.embed.tok") != nullptr;
  return encoder ? tokenizer.encode(text).ids : prompt_ids(tokenizer, text);
}

Record record_of_prompt(const std::string& text, int64_t number) {
  Record record;
  record.value = Json{{"text", text}};
  record.file = "--prompt";
  record.line = number;
  return record;
}

/// Generates for one batch of inputs and prints a line each.
class Printer {
 public:
  Printer(const Json& args, Target& target)
      : target_(target),
        ids_(flag_arg(args, "ids")),
        options_(options_of(args, target)),
        results_(args) {}

  void add(const Record& record) {
    std::vector<int32_t> ids = ids_of(target_, record);
    if (ids.empty())
      fail(ErrorCode::BadInput, "{}: the input has no tokens; there is nothing to go on with",
           record.where());
    const int64_t rows = static_cast<int64_t>(ids.size());
    const int64_t sequences = static_cast<int64_t>(prompts_.size() + 1) * options_.beams;
    if (!prompts_.empty() && (rows_ + rows > kRowsAtOnce || sequences > kSequencesAtOnce)) run();
    rows_ += rows;
    prompts_.push_back(std::move(ids));
  }
  void finish() {
    if (!prompts_.empty()) run();
    results_.finish();
  }

 private:
  void run() {
    const bool encoder = target_.model().find("enc.embed.tok") != nullptr;
    for (std::vector<int32_t>& ids : generate(target_.model(), prompts_, options_)) {
      Json result = Json::object();
      if (target_.tokenizer != nullptr) result["text"] = target_.tokenizer->text(ids);
      if (ids_ || target_.tokenizer == nullptr) {
        if (encoder) ids.insert(ids.begin(), options_.decoder_start);
        result["output_ids"] = ids;
      }
      results_.add(result);
    }
    options_.first_prompt += static_cast<int64_t>(prompts_.size());
    prompts_.clear();
    rows_ = 0;
  }

  Target& target_;
  const bool ids_;
  GenerateOptions options_;
  ResultStream results_;
  std::vector<std::vector<int32_t>> prompts_;
  int64_t rows_ = 0;
};

}  // namespace

int run_generate(const Json& args) {
  const std::vector<std::string> prompts = list_arg(args, "prompt");
  const std::string input = text_arg(args, "input");
  if (prompts.empty() == input.empty())
    fail(ErrorCode::BadInput, "{}",
         input.empty() ? "nothing to go on with: give --prompt TEXT, or --input F.jsonl (-: "
                         "standard input)"
                       : "give either --prompt or --input, not both");
  const std::unique_ptr<Target> target = target_of(args, false);
  Printer printer(args, *target);
  for (size_t i = 0; i < prompts.size(); ++i)
    printer.add(record_of_prompt(prompts[i], static_cast<int64_t>(i) + 1));
  if (!input.empty()) {
    const Dataset data = open_input(input);
    for (int64_t i = 0; i < data.size(); ++i) printer.add(data.at(i));
  }
  printer.finish();
  return 0;
}

}  // namespace attune
