#include "text/vocabulary_table.h"

#include "base/error.h"

namespace attune {

VocabularyTable::VocabularyTable(Vocabulary vocabulary, const std::string& where)
    : ids_(vocabulary.size()), size_(vocabulary.size()) {
  const int64_t limit = int64_t(vocabulary.size()) * 10 + 1'000'000;
  for (std::pair<std::string, int32_t>& entry : vocabulary) {
    auto& [piece, id] = entry;
    if (id < 0 || id >= limit) {
      fail(ErrorCode::Corrupt, "{}: piece \"{}\" has id {}; expected 0 to {}", where, piece, id,
           limit - 1);
    }
    if (size_t(id) >= tokens_.size()) {
      tokens_.resize(size_t(id) + 1);
      used_.resize(size_t(id) + 1);
    }
    if (used_[size_t(id)]) {
      fail(ErrorCode::Corrupt, "{}: \"{}\" and \"{}\" share id {}; ids must differ", where,
           tokens_[size_t(id)], piece, id);
    }
    if (!ids_.add(piece, id)) {
      fail(ErrorCode::Corrupt, "{}: piece \"{}\" is listed twice", where, piece);
    }
    used_[size_t(id)] = true;
    tokens_[size_t(id)] = std::move(piece);
  }
}

}  // namespace attune
