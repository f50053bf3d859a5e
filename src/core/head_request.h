#pragma once
#include <cstdint>
#include <string>

namespace attune {

/// What a task asks of a head.
/// Lm: the next token, over the rows of the last stack (causal models, decoders).
enum class HeadKind : uint8_t { None, Sequence, Token, Span, MaskedLm, Lm };
struct HeadRequest {
  HeadKind kind = HeadKind::None;
  int64_t labels = 0;
  // auto | first | last | pooler | mean | max | eos; own: as the checkpoint's class does
  std::string pool = "auto";
  double dropout = -1;  // before the last projection; -1: the checkpoint's own
  // Draw the last projection, though the checkpoint may have one of that shape: it is for other
  // labels.
  bool anew = false;
};

}  // namespace attune
