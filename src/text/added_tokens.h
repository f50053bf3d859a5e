#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// A token that is found in the text itself, before the model sees it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

/// Finds added tokens, leftmost and longest first.
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin, end;  // bytes of the text
    int32_t id;
  };
  /// `text` is what to look for (the content, or its normalised form).
  void add(const AddedToken& token, std::string text);
  void finish();
  bool empty() const { return entries_.empty(); }
  /// Matches in order, with the white space that lstrip and rstrip take in.
  std::vector<Match> find(std::string_view text) const;

 private:
  struct Entry {
    std::string text;
    AddedToken token;
  };
  const Entry* longest_at(std::string_view text, size_t at) const;
  size_t candidate(std::string_view text, size_t at) const;
  std::vector<Entry> entries_;         // by first byte, then longest first
  std::array<uint32_t, 257> start_{};  // entries_ of first byte b: [start_[b], start_[b + 1])
  int only_first_ = -1;                // the first byte, when all share it
};

}  // namespace attune
