#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <vector>

#include "text/model.h"

namespace attune {

/// Remembers how words were cut. Entries are published atomically and stay until destruction, so
/// that any number of threads look up and add without locks; a full neighbourhood takes no more.
class WordCache {
 public:
  static constexpr size_t kLongestWord = 64;  // bytes

  WordCache() : slots_(std::make_unique<std::atomic<Entry*>[]>(kSlots)) {}
  ~WordCache() {
    for (size_t i = 0; i < kSlots; ++i) Delete()(slots_[i].load(std::memory_order_acquire));
  }
  WordCache(const WordCache&) = delete;
  WordCache& operator=(const WordCache&) = delete;

  static uint64_t hash(std::string_view word) {
    uint64_t value = word.size() * kFactor;
    const char* at = word.data();
    size_t left = word.size();
    for (; left >= 8; left -= 8, at += 8) {
      uint64_t part;
      std::memcpy(&part, at, 8);
      value = mix(value ^ part);
    }
    uint64_t part = 0;
    std::memcpy(&part, at, left);
    return mix(value ^ part);
  }

  /// Appends the pieces of `word`, `shift` bytes further; false when it is not known.
  bool find(std::string_view word, uint64_t hash, uint32_t shift, std::vector<Piece>& out) const {
    for (size_t i = 0; i < kNeighbours; ++i) {
      const Entry* const entry = slots_[slot(hash, i)].load(std::memory_order_acquire);
      if (entry == nullptr) return false;
      if (entry->hash != hash || entry->word() != word) continue;
      for (uint32_t k = 0; k < entry->count; ++k) {
        const Small& piece = entry->pieces()[k];
        out.push_back({piece.id, shift + piece.begin, shift + piece.end});
      }
      return true;
    }
    return false;
  }

  /// `pieces` count from the beginning of the word.
  void add(std::string_view word, uint64_t hash, const Piece* pieces, size_t count) {
    std::unique_ptr<Entry, Delete> entry;
    for (size_t i = 0; i < kNeighbours; ++i) {
      std::atomic<Entry*>& place = slots_[slot(hash, i)];
      Entry* found = place.load(std::memory_order_acquire);
      if (found != nullptr && found->hash == hash && found->word() == word) return;
      if (found != nullptr) continue;
      if (!entry) entry.reset(Entry::make(word, hash, pieces, count));
      if (place.compare_exchange_strong(found, entry.get(), std::memory_order_acq_rel)) {
        entry.release();
        return;
      }
    }
  }

 private:
  static constexpr size_t kSlots = 1 << 16, kNeighbours = 8;
  static constexpr uint64_t kFactor = 0x9E3779B97F4A7C15u;
  struct Small {
    int32_t id;
    uint16_t begin, end;
  };
  /// One block of memory: the entry, its pieces, the text.
  struct Entry {
    static Entry* make(std::string_view text, uint64_t hash, const Piece* from, size_t count) {
      void* const memory = ::operator new(sizeof(Entry) + count * sizeof(Small) + text.size());
      Entry* const entry = new (memory) Entry{hash, uint32_t(text.size()), uint32_t(count)};
      for (size_t i = 0; i < count; ++i) {
        new (entry->pieces() + i) Small{from[i].id, uint16_t(from[i].begin), uint16_t(from[i].end)};
      }
      std::memcpy(static_cast<void*>(entry->pieces() + count), text.data(), text.size());
      return entry;
    }
    Small* pieces() { return reinterpret_cast<Small*>(this + 1); }
    const Small* pieces() const { return reinterpret_cast<const Small*>(this + 1); }
    std::string_view word() const {
      return {reinterpret_cast<const char*>(pieces() + count), size};
    }
    uint64_t hash;
    uint32_t size, count;
  };
  struct Delete {
    void operator()(Entry* entry) const { ::operator delete(entry); }
  };

  static uint64_t mix(uint64_t value) {
    value *= kFactor;
    return value ^ (value >> 29);
  }
  static size_t slot(uint64_t hash, size_t i) { return ((hash >> 13) + i) & (kSlots - 1); }

  std::unique_ptr<std::atomic<Entry*>[]> slots_;
};

}  // namespace attune
