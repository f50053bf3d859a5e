#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/safetensors_header.h"

namespace attune {

class MappedFile;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// A safetensors file, mapped into memory and checked whole by the constructor.
class SafetensorsFile {
 public:
  /// Errors: NotFound, Io, Corrupt (see parse_safetensors_header).
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  bool has(std::string_view name) const;
  /// Errors: NotFound, with the nearest names.
  const TensorInfo& info(std::string_view name) const;
  /// A view onto the mapping, of the stored dtype; it keeps the mapping alive, and writing to it
  /// never reaches the file. Copied instead: 8-bit floating point (decoded to float), U16, U32 and
  /// U64 (widened to int64), and data whose address is not a multiple of its element size. Errors:
  /// NotFound; Unsupported for 4- and 6-bit dtypes and for U64 values from 2^63; Corrupt for a BOOL
  /// byte that is neither 0 nor 1.
  at::Tensor tensor(std::string_view name) const;
  /// The stored bytes of a tensor of this file.
  std::string_view bytes(const TensorInfo& tensor) const;
  /// The same, read piece by piece: nothing of the file stays in memory. Throws Io.
  void read(const TensorInfo& tensor, const std::function<void(std::string_view)>& see) const;

 private:
  std::string path_;
  std::shared_ptr<MappedFile> file_;  // shared with the tensors handed out
  SafetensorsHeader header_;
  std::unordered_map<std::string, size_t> places_;  // name to index in header_.tensors
};

/// Writes tensors of any layout as packed copies, in the reference writer's order (descending
/// dtype, then name), with format=pt added to the metadata and the header padded to 8 bytes. Never
/// leaves a half-written file. Errors: Io; Internal when check_savable refuses the tensors.
void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const std::map<std::string, std::string>& metadata = {});

/// What the format cannot hold is our caller's mistake. Errors: Internal for a name given twice or
/// not UTF-8, an undefined tensor, a dtype without a name in the format, and two tensors that share
/// memory (tied weights: drop or copy one).
void check_savable(const NamedTensors& tensors, const std::string& path);

}  // namespace attune
