#include "text/load_json.h"

#include <algorithm>

#include "base/error.h"

namespace attune {
namespace {

using nlohmann::json;

/// Watches the parser pass "model" > "vocab" and takes its entries.
class VocabularyFilter {
 public:
  VocabularyFilter(Vocabulary& out, const std::string& file) : out_(out), file_(file) {}

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key) {
      if (depth == 1) in_model_ = parsed == "model";
      if (depth == 2) in_vocabulary_ = in_model_ && parsed == "vocab";
      if (depth == 3 && in_vocabulary_) piece_ = parsed.get<std::string>();
      return true;
    }
    if (event != json::parse_event_t::value || depth != 3 || !in_vocabulary_) return true;
    if (!parsed.is_number_integer() || parsed.get<int64_t>() < 0 ||
        parsed.get<int64_t>() > INT32_MAX) {
      fail(ErrorCode::Corrupt,
           "{}: model.vocab: piece \"{}\" has id {}; expected an integer, 0 or more", file_, piece_,
           parsed.dump());
    }
    out_.emplace_back(std::move(piece_), parsed.get<int32_t>());
    return false;  // not kept in the tree
  }

 private:
  Vocabulary& out_;
  const std::string& file_;
  std::string piece_;
  bool in_model_ = false, in_vocabulary_ = false;
};

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& file) {
  TokenizerJson out;
  try {
    out.root = json::parse(text.begin(), text.end(), VocabularyFilter(out.vocabulary, file));
  } catch (const json::parse_error& error) {
    const size_t at = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const std::string_view before = text.substr(0, at);
    const size_t line = size_t(std::count(before.begin(), before.end(), '\n')) + 1;
    const size_t newline = before.rfind('\n');
    const size_t column = at - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
    fail(ErrorCode::Corrupt,
         "{}:{}:{}: the file is not complete JSON ({} bytes, error at byte {}); copy or download "
         "it again",
         file, line, column, text.size(), at);
  }
  return out;
}

}  // namespace attune
