#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// A SentencePiece model file (a serialised ModelProto), as far as tokenizing needs it.
struct SentencePieceModel {
  enum Type { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };
  enum Kind { Unigram = 1, Bpe = 2, Word = 3, Char = 4 };
  struct Entry {
    std::string piece;
    float score = 0;
    int type = Normal;
  };
  std::vector<Entry> pieces;
  int kind = Unigram;
  int32_t unknown_id = 0;
  std::string char_map;  // normalizer_spec.precompiled_charsmap
};

/// Reads the protocol buffer; unknown fields are left out. `file` leads the errors: Corrupt, with
/// the byte, for a field that is cut off, too long or of another wire type than its number has, for
/// a piece that is not UTF-8 or whose score is no number, and when pieces, trainer_spec,
/// normalizer_spec or the unknown piece are missing. Reference: sentencepiece_model.proto of the
/// SentencePiece project; Protocol Buffers encoding.
SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& file);

}  // namespace attune
