#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace attune {

/// Every tensor of a model folder: `model.safetensors`, or the shards that
/// `model.safetensors.index.json` lists. Tensors stay mapped; see SafetensorsFile::tensor.
class Checkpoint {
 public:
  /// Errors: NotFound when the folder, its weights or a shard is missing (says what was looked
  /// for); Unsupported for pytorch_model.bin alone; Corrupt for a damaged file or an index that
  /// does not fit its shards.
  explicit Checkpoint(const std::string& directory);

  const std::string& directory() const { return directory_; }
  /// Sorted.
  const std::vector<std::string>& names() const { return names_; }
  /// Paths of the weight files, the index not among them.
  std::vector<std::string> files() const;
  bool has(std::string_view name) const;
  /// Errors: NotFound, with the nearest names.
  const TensorInfo& info(std::string_view name) const;
  at::Tensor tensor(std::string_view name) const;

  /// SHA-256 over name, dtype, shape and stored bytes of all tensors, sorted by name: equal for
  /// equal content however it is split into files. The first call reads everything; not safe to
  /// call from two threads at once.
  const std::string& sha256() const;

 private:
  void open_single(const std::string& path);
  void open_index(const std::string& path);
  const SafetensorsFile& file_of(std::string_view name) const;

  std::string directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*, std::less<>> owners_;
  std::vector<std::string> names_;
  mutable std::string sha256_;  // empty until asked for
};

/// Writes `model.safetensors`, or, when the tensors take more than `shard_bytes`, shards in the
/// given order with their index (a tensor larger than that gets a shard of its own). Removes a
/// `model.safetensors` or index of an earlier save that would otherwise be read instead. The folder
/// must exist. Errors: as save_safetensors.
void save_checkpoint(const std::string& directory, const NamedTensors& tensors,
                     uint64_t shard_bytes = 5'000'000'000);

}  // namespace attune
