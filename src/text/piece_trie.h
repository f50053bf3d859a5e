#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attune {

/// A read-only prefix tree over bytes. Nodes lie level by level, so that the children of a node are
/// neighbours, ordered by their byte.
class PieceTrie {
 public:
  static constexpr uint32_t kRoot = 0, kNone = 0xFFFFFFFFu;

  PieceTrie() : PieceTrie(std::vector<std::pair<std::string_view, int32_t>>()) {}
  /// Empty texts are left out; of equal texts the last one counts.
  explicit PieceTrie(std::vector<std::pair<std::string_view, int32_t>> pieces);

  /// kNone when no piece goes on with `byte`.
  uint32_t child(uint32_t node, uint8_t byte) const {
    if (node == kRoot) return root_[byte];
    uint32_t low = nodes_[node].first, high = nodes_[node + 1].first;
    while (high - low > 6) {
      const uint32_t middle = (low + high) / 2;
      (bytes_[middle] <= byte ? low : high) = middle;
    }
    for (; low < high; ++low) {
      if (bytes_[low] == byte) return low;
    }
    return kNone;
  }
  /// The id of the piece that ends here; -1 when none does.
  int32_t id(uint32_t node) const { return nodes_[node].id; }

 private:
  struct Node {
    uint32_t first;  // children: [first, first of the next node)
    int32_t id;
  };
  std::vector<Node> nodes_;     // and one behind the last
  std::vector<uint8_t> bytes_;  // that led to a node
  std::vector<uint32_t> root_;
};

}  // namespace attune
