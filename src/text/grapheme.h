#pragma once
#include <cstddef>
#include <string_view>

namespace attune::unicode {

/// End of the extended grapheme cluster that begins at `begin` (below the size of the text).
/// Reference: Unicode Standard Annex #29, version 17. Differs: rule GB9c (Indic conjuncts) is left
/// out, since clusters matter here only up to 5 bytes and conjuncts have more.
size_t grapheme_end(std::u32string_view text, size_t begin);

}  // namespace attune::unicode
