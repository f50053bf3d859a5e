#pragma once
#include <cstdint>
#include <string>

namespace attune {

/// What a task asks of a head.
enum class HeadKind : uint8_t { None, Sequence, Token, Span, MaskedLm };
struct HeadRequest {
  HeadKind kind = HeadKind::None;
  int64_t labels = 0;
  std::string pool = "auto";  // auto | first | pooler | mean | max
  double dropout = -1;        // before the last projection; -1: the checkpoint's own
};

}  // namespace attune
