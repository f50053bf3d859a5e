#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// A read-only hash table from strings to ids (open addressing, one shared text buffer, no
/// allocation on look-up). The hash grows byte by byte, so that all prefixes of a word are hashed
/// in one pass.
class PieceTable {
 public:
  static constexpr uint32_t kSeed = 2166136261u;
  static constexpr uint32_t step(uint32_t hash, char byte) {
    return (hash ^ uint8_t(byte)) * 16777619u;
  }
  static uint32_t hash(std::string_view text) {
    uint32_t value = kSeed;
    for (const char byte : text) value = step(value, byte);
    return value;
  }

  explicit PieceTable(size_t expected = 0) {
    size_t slots = 16;
    while (slots < expected * 2 + 2) slots *= 2;
    slots_.resize(slots);
  }

  /// False when the text is there already (nothing changes).
  bool add(std::string_view text, int32_t id);
  /// -1 when absent.
  int32_t find(std::string_view text) const { return find(text, hash(text)); }
  int32_t find(std::string_view text, uint32_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t i = spread(hash) & mask;; i = (i + 1) & mask) {
      const Slot& slot = slots_[i];
      if (slot.id < 0) return -1;
      if (slot.hash == hash && slot.size == text.size() &&
          std::memcmp(text_.data() + slot.offset, text.data(), text.size()) == 0) {
        return slot.id;
      }
    }
  }
  /// Bytes of the longest text.
  size_t longest() const { return longest_; }

 private:
  struct Slot {
    uint32_t hash = 0, offset = 0, size = 0;
    int32_t id = -1;
  };
  static size_t spread(uint32_t hash) { return hash ^ (hash >> 15); }
  std::vector<Slot> slots_;  // a power of two
  std::string text_;
  size_t longest_ = 0, count_ = 0;
};

inline bool PieceTable::add(std::string_view text, int32_t id) {
  if (find(text) >= 0) return false;
  if ((count_ + 1) * 2 > slots_.size()) {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.id < 0) continue;
      size_t i = spread(slot.hash) & (slots_.size() - 1);
      while (slots_[i].id >= 0) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = slot;
    }
  }
  const uint32_t value = hash(text);
  size_t i = spread(value) & (slots_.size() - 1);
  while (slots_[i].id >= 0) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {value, uint32_t(text_.size()), uint32_t(text.size()), id};
  text_.append(text);
  longest_ = longest_ < text.size() ? text.size() : longest_;
  ++count_;
  return true;
}

}  // namespace attune
