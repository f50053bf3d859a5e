#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace attune {

/// One Philox4x32-10 block: four 32-bit words from a 128-bit counter and a 64-bit key.
/// Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// Mixes words into one well-spread 64-bit key (splitmix64 steps); order matters.
uint64_t mix(uint64_t a, uint64_t b);
/// Key of a name (FNV-1a, then mixed).
uint64_t name_key(std::string_view name);

/// A named random stream: a pure function of its key and an index, so order and threads never
/// matter. All randomness of the engine goes through streams made from (seed, purpose, ...).
class Stream64 {
 public:
  explicit Stream64(uint64_t key) : key_(key) {}
  Stream64(uint64_t seed, std::string_view purpose) : key_(mix(seed, name_key(purpose))) {}
  Stream64 with(uint64_t part) const { return Stream64(mix(key_, part)); }
  Stream64 with(std::string_view part) const { return Stream64(mix(key_, name_key(part))); }
  uint64_t key() const { return key_; }

  /// 64 bits at `index`.
  uint64_t bits(uint64_t index) const;
  /// Uniform in [0, 1) with 53 bits.
  double uniform(uint64_t index) const;
  /// Standard normal (Box-Muller on the two words of one block).
  double normal(uint64_t index) const;
  /// Uniform integer in [0, bound).
  uint64_t below(uint64_t index, uint64_t bound) const;
  /// A permutation of 0 .. count-1 (Fisher-Yates).
  std::vector<int64_t> permutation(int64_t count) const;

 private:
  uint64_t key_;
};

}  // namespace attune
