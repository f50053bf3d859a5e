#pragma once
#include <cstdint>
#include <vector>

namespace attune {

/// What becomes of two neighbouring pieces; the lowest rank goes first.
struct MergeRule {
  static constexpr uint32_t kNone = 0xFFFFFFFFu;
  uint32_t rank = kNone;
  int32_t id = -1;
};

/// A hash table from pairs of piece ids to their rules (open addressing).
class MergeTable {
 public:
  explicit MergeTable(size_t expected) {
    size_t slots = 16;
    while (slots < expected * 2 + 2) slots *= 2;
    slots_.resize(slots);
    while ((size_t(1) << (64 - shift_)) < slots) --shift_;
  }

  /// A pair that comes again takes its later rule, as in the reference. No more pairs than
  /// expected.
  void add(int32_t left, int32_t right, MergeRule rule) {
    size_t i = index(key(left, right));
    while (slots_[i].key != kFree && slots_[i].key != key(left, right)) i = next(i);
    slots_[i] = {key(left, right), rule};
  }
  MergeRule find(int32_t left, int32_t right) const {
    const uint64_t wanted = key(left, right);
    for (size_t i = index(wanted);; i = next(i)) {
      if (slots_[i].key == wanted) return slots_[i].rule;
      if (slots_[i].key == kFree) return {};
    }
  }

 private:
  static constexpr uint64_t kFree = ~uint64_t(0);  // ids are not negative
  struct Slot {
    uint64_t key = kFree;
    MergeRule rule;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t(uint32_t(left)) << 32 | uint32_t(right);
  }
  size_t index(uint64_t key) const { return size_t((key * 0x9E3779B97F4A7C15u) >> shift_); }
  size_t next(size_t i) const { return (i + 1) & (slots_.size() - 1); }
  std::vector<Slot> slots_;  // a power of two
  int shift_ = 64;
};

}  // namespace attune
