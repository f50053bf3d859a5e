#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// One tensor of a safetensors file, as its header describes it.
struct TensorInfo {
  std::string name;
  std::string dtype;            // "F32", "BF16", ...
  std::vector<int64_t> shape;   // [] for a scalar
  uint64_t begin = 0, end = 0;  // bytes, from the start of the data buffer; end is exclusive
};

/// A checked header. Layout of a file: 8 bytes little-endian length N of the header; N bytes of
/// JSON that begin with
/// `{` and may end in spaces; the data buffer, packed without holes, to the end of the file.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;              // in the header's order
  std::map<std::string, std::string> metadata;  // "__metadata__"
  uint64_t data_begin = 0;                      // offset of the data buffer in the file
};

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

/// Parses and checks the header of a whole file; nothing is allocated by a count the file merely
/// claims. Errors: Corrupt (length, JSON, duplicate keys, unknown dtype, shape against size,
/// overflow, offsets out of range, overlaps, holes, bytes before or after). `where` names the file
/// in them. Reference: the safetensors format description, github.com/huggingface/safetensors.
SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& where);

/// Bits of one element of a stored dtype; 0 when there is no such dtype.
int safetensors_bits(std::string_view dtype);
/// Place of a dtype in the format's own list, which rises with alignment: the reference writer
/// stores tensors by descending rank, then by name. -1 when there is no such dtype.
int safetensors_rank(std::string_view dtype);

}  // namespace attune
