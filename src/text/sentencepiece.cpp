#include "text/sentencepiece.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/text.h"

namespace attune {
namespace {

/// Reads fields one after another and knows where in the file it is.
class FieldReader {
 public:
  FieldReader(std::string_view bytes, size_t offset, const std::string& file)
      : bytes_(bytes), offset_(offset), file_(file) {}

  /// Moves on to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    begin_ = at_;
    const uint64_t key = varint();
    number_ = key >> 3;
    wire_ = int(key & 7);
    switch (wire_) {
      case 0:
        value_ = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        take(varint());
        break;
      case 5:
        take(4);
        break;
      default:
        damaged(format("wire type {} does not exist", wire_));
    }
    return true;
  }
  uint64_t number() const { return number_; }

  std::string_view text() const {
    expect(2);
    return data_;
  }
  FieldReader message() const {
    expect(2);
    return {data_, offset_ + size_t(data_.data() - bytes_.data()), file_};
  }
  /// int32 and enums.
  int32_t integer() const {
    expect(0);
    return int32_t(uint32_t(value_));
  }
  float real() const {
    expect(5);
    float out;
    std::memcpy(&out, data_.data(), 4);
    if (!std::isfinite(out)) damaged("a score is not a number");
    return out;
  }
  [[noreturn]] void damaged(std::string_view what) const {
    fail(ErrorCode::Corrupt,
         "{}: damaged SentencePiece model: {} (field at byte {}); copy or download it again", file_,
         what, offset_ + begin_);
  }

 private:
  void expect(int wire) const {
    if (wire_ != wire) {
      damaged(format("field {} has wire type {}, expected {}", number_, wire_, wire));
    }
  }
  uint64_t varint() {
    uint64_t out = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == bytes_.size()) damaged("a number is cut off");
      const uint8_t byte = uint8_t(bytes_[at_++]);
      if (shift < 64) out |= uint64_t(byte & 0x7F) << shift;
      if (byte < 0x80) return out;
    }
    damaged("a number has more than 10 bytes");
  }
  void take(uint64_t size) {
    if (size > bytes_.size() - at_) {
      damaged(format("{} bytes are announced, {} are left", size, bytes_.size() - at_));
    }
    data_ = bytes_.substr(at_, size_t(size));
    at_ += size_t(size);
  }

  std::string_view bytes_, data_;
  size_t offset_, at_ = 0, begin_ = 0;
  const std::string& file_;
  uint64_t number_ = 0, value_ = 0;
  int wire_ = 0;
};

SentencePieceModel::Entry read_piece(FieldReader fields) {
  SentencePieceModel::Entry out;
  while (fields.next()) {
    if (fields.number() == 1) out.piece = fields.text();
    if (fields.number() == 2) out.score = fields.real();
    if (fields.number() == 3) out.type = fields.integer();
  }
  if (invalid_utf8(out.piece)) fields.damaged("a piece is not valid UTF-8");
  return out;
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& file) {
  SentencePieceModel out;
  FieldReader fields(bytes, 0, file);
  bool trainer = false, normalizer = false;
  while (fields.next()) {
    if (fields.number() == 1) out.pieces.push_back(read_piece(fields.message()));
    if (fields.number() == 2) {
      trainer = true;
      for (FieldReader inner = fields.message(); inner.next();) {
        if (inner.number() == 3) out.kind = inner.integer();
        if (inner.number() == 40) out.unknown_id = inner.integer();
      }
    }
    if (fields.number() == 3) {
      normalizer = true;
      for (FieldReader inner = fields.message(); inner.next();) {
        if (inner.number() == 2) out.char_map = inner.text();
      }
    }
  }
  if (out.pieces.empty() || !trainer || !normalizer) {
    fields.damaged(format("the file ends without {}", out.pieces.empty() ? "pieces"
                                                      : !trainer         ? "trainer_spec"
                                                                         : "normalizer_spec"));
  }
  if (out.unknown_id < 0 || size_t(out.unknown_id) >= out.pieces.size()) {
    fields.damaged(format("the unknown piece has number {}, but there are {} pieces",
                          out.unknown_id, out.pieces.size()));
  }
  return out;
}

}  // namespace attune
