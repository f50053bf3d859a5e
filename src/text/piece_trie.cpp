#include "text/piece_trie.h"

#include <algorithm>

namespace attune {

PieceTrie::PieceTrie(std::vector<std::pair<std::string_view, int32_t>> pieces) : root_(256, kNone) {
  using Entry = std::pair<std::string_view, int32_t>;
  std::erase_if(pieces, [](const Entry& entry) { return entry.first.empty(); });
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Entry& a, const Entry& b) { return a.first < b.first; });
  struct Span {
    size_t begin, end, depth;
  };
  std::vector<Span> spans{{0, pieces.size(), 0}};  // pieces below each node
  nodes_.push_back({0, -1});
  bytes_.push_back(0);
  for (size_t node = 0; node < spans.size(); ++node) {
    auto [at, end, depth] = spans[node];
    // Texts that end here come first in the order.
    for (; at < end && pieces[at].first.size() == depth; ++at) nodes_[node].id = pieces[at].second;
    nodes_[node].first = uint32_t(nodes_.size());
    while (at < end) {
      const char byte = pieces[at].first[depth];
      const size_t begin = at;
      while (at < end && pieces[at].first[depth] == byte) ++at;
      if (node == kRoot) root_[uint8_t(byte)] = uint32_t(nodes_.size());
      nodes_.push_back({0, -1});
      bytes_.push_back(uint8_t(byte));
      spans.push_back({begin, at, depth + 1});
    }
  }
  nodes_.push_back({uint32_t(nodes_.size()), -1});
}

}  // namespace attune
