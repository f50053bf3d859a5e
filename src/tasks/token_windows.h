#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/records.h"
#include "data/source.h"
#include "tasks/task.h"
#include "text/tokenizer.h"

namespace attune {

/// The tokens of documents, cut into windows of at most `length` tokens for next-token prediction.
/// A window begins with the last token of the one before it in the same document, so every token
/// but a document's first is predicted exactly once; no window spans two documents. A document is
/// the text of a row; of a plain text file all lines together, with their line ends. Special tokens
/// stand where the tokenizer puts them around a text: at a document's two ends. Texts larger than
/// 1 MiB are tokenised in parts that end at line ends.
/// Tokens are kept in memory up to 1 GiB, beyond it in a temporary file that is mapped.
class TokenWindows final : public Windows {
 public:
  using ColumnOf = std::function<std::string(const Record&)>;
  /// `column`: the name of the text's column in a row. Errors: BadInput for length below 2, for
  /// rows without text (file and line), and when no document has two tokens.
  TokenWindows(const Dataset& data, const Tokenizer& tokenizer, int64_t length,
               const ColumnOf& column);
  int64_t size() const override { return static_cast<int64_t>(windows_.size()); }
  int64_t row(int64_t window) const override { return at(window).row; }
  /// ids; labels: of each row the next token, -100 for the last; words and bytes of the text of the
  /// predicted tokens (a word counts where it begins).
  Example example(int64_t window) const override;
  int64_t documents() const { return documents_; }

 private:
  struct Window {
    int64_t begin = 0;  // token
    int32_t count = 0, words = 0;
    int64_t bytes = 0, row = 0;
  };
  class Builder;
  const Window& at(int64_t window) const { return windows_[static_cast<size_t>(window)]; }

  Spill tokens_;
  const int32_t* ids_ = nullptr;
  std::vector<Window> windows_;
  int64_t documents_ = 0;
};

}  // namespace attune
