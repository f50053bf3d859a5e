// eval, predict, tokenize.
#include <functional>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "data/records.h"
#include "recipe/model_path.h"
#include "train/evaluate.h"

namespace attune {

namespace {

constexpr int64_t kBatchTokens = 4096;

/// Texts given with --text, or the rows of --data ("-": standard input).
struct Input {
  std::vector<std::string> texts;
  std::optional<Dataset> data;
  int64_t size() const { return data ? data->size() : static_cast<int64_t>(texts.size()); }
  Record at(int64_t i) const {
    if (data) return data->at(i);
    Record record;
    record.value = Json{{"text", texts[static_cast<size_t>(i)]}};
    record.file = "--text";
    record.line = i + 1;
    return record;
  }
};

Input input_of(const Json& args) {
  Input input;
  input.texts = list_arg(args, "text");
  const std::string path = text_arg(args, "data");
  if (path.empty() && input.texts.empty())
    fail(ErrorCode::BadInput, "nothing to read: give --data FILE (or -), or --text TEXT");
  if (!path.empty() && !input.texts.empty())
    fail(ErrorCode::BadInput, "give either --data or --text, not both");
  if (!path.empty()) input.data = open_input(path);
  return input;
}

}  // namespace

int run_eval(const Json& args) {
  const std::string data = needed_arg(args, "data", "--data FILE");
  const std::unique_ptr<Target> target = target_of(args, true);
  const DataView view = DataView::of(*target->task, open_input(data));
  const Json metrics = evaluate(target->model(), *target->task, view, kBatchTokens);
  answer(args, metrics, metrics.dump(2));
  return 0;
}

namespace {

/// Texts from the command line are in the column "text", whatever the run's own data calls it.
void read_plain_texts(Target& target) {
  Json state = target.task->state();
  state["columns"] = Json::object();
  TaskContext context;
  context.columns = {{"text", "text"}};
  context.max_length = target.card.task_state.value("max_length", int64_t{512});
  context.tokenizer = target.tokenizer.get();
  context.directory = target.base_directory;
  target.task->restore(state, context);
}

/// Predicts every input, a slice at a time, so that memory stays flat for any number of rows.
void predict_all(Target& target, const Input& input, const std::function<void(const Json&)>& take) {
  constexpr int64_t kSlice = 8192;
  for (int64_t begin = 0; begin < input.size(); begin += kSlice) {
    const int64_t count = std::min(kSlice, input.size() - begin);
    const std::vector<Json> results = predict(
        target.model(), *target.task, count, [&](int64_t i) { return input.at(begin + i); },
        kBatchTokens);
    for (const Json& result : results) take(result);
  }
}

}  // namespace

int run_predict(const Json& args) {
  const Input input = input_of(args);
  const std::unique_ptr<Target> target = target_of(args, true);
  if (!input.texts.empty()) read_plain_texts(*target);
  const std::string output = text_arg(args, "output");
  if (output.empty()) {
    ResultStream results(args);
    predict_all(*target, input, [&](const Json& result) { results.add(result); });
    results.finish();
    return 0;
  }
  write_file_atomic(output, [&](const Sink& sink) {
    predict_all(*target, input, [&](const Json& result) {
      const std::string line = result.dump() + "\n";
      sink(line.data(), line.size());
    });
  });
  if (flag_arg(args, "json")) answer(args, Json{{"output", output}, {"results", input.size()}}, "");
  return 0;
}

namespace {

Json tokens_json(const Tokenizer& tokenizer, const Record& record) {
  if (!record.value.contains("text") || !record.value["text"].is_string())
    fail(ErrorCode::BadInput,
         "{}: no column \"text\"; `tokenize` reads {{\"text\": ...}} (and \"text_pair\")",
         record.where());
  const std::string text = record.value["text"].get<std::string>();
  const bool pair = record.value.contains("text_pair") && record.value["text_pair"].is_string();
  const Encoding encoding =
      pair ? tokenizer.encode_pair(text, record.value["text_pair"].get<std::string>())
           : tokenizer.encode(text);
  Json tokens = Json::array(), words = Json::array();
  for (const int32_t id : encoding.ids) tokens.push_back(tokenizer.token(id));
  for (const int32_t word : encoding.word_ids) words.push_back(word < 0 ? Json() : Json(word));
  return Json{{"ids", encoding.ids},
              {"tokens", tokens},
              {"type_ids", encoding.type_ids},
              {"offsets", encoding.offsets},
              {"word_ids", words},
              {"special_tokens_mask", encoding.special_mask},
              {"text", tokenizer.decode(encoding.ids)}};
}

}  // namespace

int run_tokenize(const Json& args) {
  for (const std::string& adapter : list_arg(args, "adapter")) adapter_directory(adapter);
  const std::string folder = adapter_folder(text_arg(args, "target"));
  const Tokenizer tokenizer =
      Tokenizer::load(folder.empty() ? find_model(text_arg(args, "target"))
                                     : base_of_adapter(read_adapter_card(folder), folder));
  const Input input = input_of(args);
  ResultStream results(args);
  for (int64_t i = 0; i < input.size(); ++i) results.add(tokens_json(tokenizer, input.at(i)));
  results.finish();
  return 0;
}

}  // namespace attune
