#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/model.h"
#include "text/piece_table.h"

namespace attune {

/// The pieces of a model with their ids, both ways. Read-only once made.
class VocabularyTable {
 public:
  /// `where` leads the errors: Corrupt when two pieces share an id, a piece comes twice or an id is
  /// negative or absurdly large.
  VocabularyTable(Vocabulary vocabulary, const std::string& where);

  /// -1 when absent.
  int32_t find(std::string_view piece) const { return ids_.find(piece); }
  const PieceTable& ids() const { return ids_; }
  /// Null when no piece has this id.
  const std::string* token(int32_t id) const {
    return id >= 0 && id < bound() && used_[size_t(id)] ? &tokens_[size_t(id)] : nullptr;
  }
  int64_t bound() const { return int64_t(tokens_.size()); }
  size_t size() const { return size_; }

 private:
  PieceTable ids_;
  std::vector<std::string> tokens_;  // by id
  std::vector<bool> used_;
  size_t size_;
};

}  // namespace attune
