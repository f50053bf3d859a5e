#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "data/source.h"

namespace attune {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

/// Frees zlib's state however the reading ends.
class Inflater {
 public:
  Inflater() {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK)
      fail(ErrorCode::OutOfMemory, "reading gzip data: no memory for the decompressor");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  z_stream* operator->() { return &stream_; }
  z_stream* get() { return &stream_; }

 private:
  z_stream stream_{};
};

[[noreturn]] void fail_truncated(const std::string& name, const char* kind, size_t bytes) {
  fail(ErrorCode::Corrupt,
       "{}: the {} data ends early, after {} bytes; the file is truncated, copy it again", name,
       kind, bytes);
}

}  // namespace

void gunzip(std::string_view content, const std::string& name, Spill& out) {
  Inflater inflater;
  std::vector<char> buffer(kPiece);
  size_t given = 0;
  int status = Z_OK;
  while (status != Z_STREAM_END || given < content.size() || inflater->avail_in > 0) {
    if (inflater->avail_in == 0) {
      const size_t piece = std::min(kPiece, content.size() - given);
      inflater->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data() + given));
      inflater->avail_in = static_cast<uInt>(piece);
      given += piece;
    }
    if (status == Z_STREAM_END) {
      // Tape and disk tools pad with zeros; anything else must be a further member.
      if (*inflater->next_in == 0) return;
      inflateReset(inflater.get());
    }
    inflater->next_out = reinterpret_cast<Bytef*>(buffer.data());
    inflater->avail_out = static_cast<uInt>(buffer.size());
    const bool exhausted = inflater->avail_in == 0;
    status = inflate(inflater.get(), Z_NO_FLUSH);
    const size_t produced = buffer.size() - inflater->avail_out;
    if (produced == 0 && exhausted && status != Z_STREAM_END)
      fail_truncated(name, "gzip", content.size());
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      fail(ErrorCode::Corrupt, "{}: damaged gzip data near byte {}: {}", name,
           given - inflater->avail_in, inflater->msg ? inflater->msg : "unexpected data");
    out.add(buffer.data(), produced);
  }
}

void unzstd(std::string_view content, const std::string& name, Spill& out) {
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream(ZSTD_createDStream(),
                                                                        ZSTD_freeDStream);
  if (!stream) fail(ErrorCode::OutOfMemory, "reading zstd data: no memory for the decompressor");
  std::vector<char> buffer(kPiece);
  ZSTD_inBuffer in{content.data(), content.size(), 0};
  size_t status = 1;
  bool full = false;
  // A full output buffer may leave more to come although all input was taken.
  while (in.pos < in.size || full) {
    ZSTD_outBuffer piece{buffer.data(), buffer.size(), 0};
    status = ZSTD_decompressStream(stream.get(), &piece, &in);
    if (ZSTD_isError(status))
      fail(ErrorCode::Corrupt, "{}: damaged zstd data near byte {}: {}", name, in.pos,
           ZSTD_getErrorName(status));
    out.add(buffer.data(), piece.pos);
    full = piece.pos == piece.size && status != 0;
  }
  if (status != 0) fail_truncated(name, "zstd", content.size());
}

}  // namespace attune
