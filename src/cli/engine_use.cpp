// eval, predict, tokenize.
#include <cstdio>
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

void print_line(const std::string& line) {
  if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size() ||
      std::fputc('\n', stdout) == EOF)
    fail(ErrorCode::Io, "writing to standard output failed");
}

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
  for (const std::string& text : input.texts)
    if (const std::optional<size_t> bad = invalid_utf8(text))
      fail(ErrorCode::BadInput, "--text: not valid UTF-8 at byte {}", *bad);
  const std::string path = text_arg(args, "data");
  if (path.empty() && input.texts.empty())
    fail(ErrorCode::BadInput, "nothing to read: give --data FILE (or -), or --text TEXT");
  if (!path.empty() && !input.texts.empty())
    fail(ErrorCode::BadInput, "give either --data or --text, not both");
  if (!path.empty()) input.data = Dataset::open(path);
  return input;
}

}  // namespace

int run_eval(const Json& args) {
  const std::string data = needed_arg(args, "data", "--data FILE");
  const std::unique_ptr<Target> target = target_of(args, true);
  const DataView view = DataView::all(Dataset::open(data));
  const Json metrics = evaluate(target->model(), *target->task, view, kBatchTokens);
  print_line(flag_arg(args, "json") ? metrics.dump() : metrics.dump(2));
  std::fflush(stdout);
  return 0;
}

int run_predict(const Json& args) {
  const std::unique_ptr<Target> target = target_of(args, true);
  const Input input = input_of(args);
  const std::string output = text_arg(args, "output");
  std::string lines;  // of --output, which is written whole or not at all
  if (!input.texts.empty())
    target->task->restore(
        [&] {
          Json state = target->task->state();
          state["columns"] = Json::object();
          return state;
        }(),
        TaskContext{{{"text", "text"}},
                    target->card.task_state.value("max_length", int64_t{512}),
                    false,
                    target->tokenizer.get(),
                    {}});
  constexpr int64_t kSlice = 8192;  // memory stays flat for any number of rows
  for (int64_t begin = 0; begin < input.size(); begin += kSlice) {
    const int64_t count = std::min(kSlice, input.size() - begin);
    const std::vector<Json> results = predict(
        target->model(), *target->task, count, [&](int64_t i) { return input.at(begin + i); },
        kBatchTokens);
    for (const Json& result : results) {
      if (output.empty()) {
        print_line(result.dump());
      } else {
        lines += result.dump() + "\n";
      }
    }
  }
  if (!output.empty()) write_file_atomic(output, lines);
  std::fflush(stdout);
  return 0;
}

int run_tokenize(const Json& args) {
  const std::string name = text_arg(args, "target");
  std::string directory = name;
  if (!adapter_folder(name).empty())
    directory = find_model(read_adapter_card(adapter_folder(name)).base);
  const Tokenizer tokenizer = Tokenizer::load(find_model(directory));
  const Input input = input_of(args);
  for (int64_t i = 0; i < input.size(); ++i) {
    const Record record = input.at(i);
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
    print_line(Json{{"ids", encoding.ids},
                    {"tokens", tokens},
                    {"type_ids", encoding.type_ids},
                    {"offsets", encoding.offsets},
                    {"word_ids", words},
                    {"special_tokens_mask", encoding.special_mask},
                    {"text", tokenizer.decode(encoding.ids)}}
                   .dump());
  }
  std::fflush(stdout);
  return 0;
}

}  // namespace attune
