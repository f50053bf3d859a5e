#include "base/error.h"
#include "text/model.h"
#include "text/vocabulary_table.h"

namespace attune {
namespace {

class WordLevel : public Model {
 public:
  WordLevel(const std::string& unknown, Vocabulary vocabulary, const std::string& where)
      : words_(std::move(vocabulary), where), unknown_(words_.find(unknown)) {
    if (unknown_ >= 0) unknown_token_ = unknown;
  }
  void tokenize(std::string_view word, std::vector<Piece>& out) const override {
    int32_t id = words_.find(word);
    if (id < 0) id = unknown_;
    if (id < 0) {
      fail(ErrorCode::BadInput,
           "tokenizing \"{}\": it is not in the vocabulary, which has no unknown token; give "
           "unk_token one of its words",
           word);
    }
    out.push_back({id, 0, uint32_t(word.size())});
  }
  std::optional<int32_t> id(std::string_view piece) const override {
    const int32_t found = words_.find(piece);
    return found < 0 ? std::nullopt : std::optional<int32_t>(found);
  }
  const std::string* token(int32_t id) const override { return words_.token(id); }
  int64_t id_bound() const override { return words_.bound(); }
  const std::string& unknown_token() const override { return unknown_token_; }
  bool stands_for_text(int32_t id) const override { return id == unknown_; }

 private:
  VocabularyTable words_;
  int32_t unknown_;
  std::string unknown_token_;
};

}  // namespace

std::unique_ptr<Model> make_word_level(const std::string& unknown, Vocabulary vocabulary,
                                       const std::string& where) {
  return std::make_unique<WordLevel>(unknown, std::move(vocabulary), where);
}

}  // namespace attune
