#include "io/checkpoint.h"

#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "tensor/torch.h"

namespace attune {

namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

[[noreturn]] void fail_without_weights(const std::string& directory) {
  if (!directory_exists(directory))
    fail(ErrorCode::NotFound, "loading {}: there is no such folder", directory);
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (file_exists(directory + "/" + name))
      fail(ErrorCode::Unsupported,
           "loading {}: the weights are there as {} only, a pickle, which is not read; convert "
           "them with transformers: "
           "AutoModel.from_pretrained(\"{}\").save_pretrained(\"{}-safetensors\")",
           directory, name, directory, directory);
  const bool adapter = file_exists(directory + "/adapter_model.safetensors");
  fail(ErrorCode::NotFound, "loading {}: no weights; looked for {}, {} and pytorch_model.bin{}",
       directory, kSingle, kIndex,
       adapter
           ? "; this folder holds an adapter: pass the base model here and this one with --adapter"
           : "");
}

/// The map from tensor to file of an index, checked.
std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const Json index = read_json(path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    fail(ErrorCode::Corrupt,
         "{}: weight_map is missing; expected an object from tensor names to file names", path);
  std::map<std::string, std::string> result;
  for (const auto& entry : index["weight_map"].items()) {
    if (!entry.value().is_string())
      fail(ErrorCode::Corrupt, "{}: weight_map.{}: expected a file name, found {}", path,
           entry.key(), entry.value().dump().substr(0, 60));
    const std::string file = entry.value().get<std::string>();
    // The index is untrusted: it must not reach outside the model's folder.
    if (file.empty() || file == ".." || file.find('/') != std::string::npos ||
        file.find('\0') != std::string::npos)
      fail(ErrorCode::Corrupt, "{}: weight_map.{}: \"{}\" is not the name of a file in this folder",
           path, entry.key(), file);
    result[entry.key()] = file;
  }
  return result;
}

void warn_unlisted(const SafetensorsFile& file,
                   const std::map<std::string, std::string>& weight_map, const std::string& shard) {
  std::vector<std::string> unlisted;
  for (const TensorInfo& tensor : file.tensors()) {
    const auto found = weight_map.find(tensor.name);
    if (found == weight_map.end() || found->second != shard) unlisted.push_back(tensor.name);
  }
  if (!unlisted.empty())
    log_warning("{}: {} tensor(s) that the index does not list here are ignored: {}{}", file.path(),
                unlisted.size(),
                join({unlisted.begin(),
                      unlisted.begin() + std::min<std::ptrdiff_t>(5, std::ssize(unlisted))},
                     ", "),
                unlisted.size() > 5 ? ", ..." : "");
}

}  // namespace

Checkpoint::Checkpoint(const std::string& directory) : directory_(directory) {
  if (file_exists(directory + "/" + kSingle))
    open_single(directory + "/" + kSingle);
  else if (file_exists(directory + "/" + kIndex))
    open_index(directory + "/" + kIndex);
  else
    fail_without_weights(directory);
  for (const auto& entry : owners_) names_.push_back(entry.first);
}

void Checkpoint::open_single(const std::string& path) {
  files_.push_back(std::make_unique<SafetensorsFile>(path));
  for (const TensorInfo& tensor : files_[0]->tensors()) owners_[tensor.name] = files_[0].get();
}

void Checkpoint::open_index(const std::string& path) {
  const std::map<std::string, std::string> weight_map = read_weight_map(path);
  std::map<std::string, const SafetensorsFile*> shards;
  for (const auto& [name, shard] : weight_map) {
    if (shards.count(shard) == 0) {
      const std::string file = directory_ + "/" + shard;
      if (!file_exists(file))
        fail(ErrorCode::NotFound,
             "loading {}: {} lists {}, which is not there; fetch the missing file", directory_,
             kIndex, shard);
      files_.push_back(std::make_unique<SafetensorsFile>(file));
      shards[shard] = files_.back().get();
      warn_unlisted(*files_.back(), weight_map, shard);
    }
    if (!shards[shard]->has(name))
      fail(ErrorCode::Corrupt,
           "loading {}: {} puts tensor {} into {}, which does not hold it; the files do not belong "
           "together",
           directory_, kIndex, name, shard);
    owners_[name] = shards[shard];
  }
}

std::vector<std::string> Checkpoint::files() const {
  std::vector<std::string> result;
  for (const std::unique_ptr<SafetensorsFile>& file : files_) result.push_back(file->path());
  return result;
}

bool Checkpoint::has(std::string_view name) const {
  return owners_.find(name) != owners_.end();
}

const SafetensorsFile& Checkpoint::file_of(std::string_view name) const {
  const auto found = owners_.find(name);
  if (found == owners_.end())
    fail(ErrorCode::NotFound, "{}: there is no tensor \"{}\";{}", directory_, name,
         suggestion(name, names_));
  return *found->second;
}

const TensorInfo& Checkpoint::info(std::string_view name) const {
  return file_of(name).info(name);
}
at::Tensor Checkpoint::tensor(std::string_view name) const {
  return file_of(name).tensor(name);
}

const std::string& Checkpoint::sha256() const {
  if (!sha256_.empty()) return sha256_;
  Sha256 digest;
  for (const auto& [name, file] : owners_) {
    const TensorInfo& tensor = file->info(name);
    // Name and shape are closed by bytes that cannot occur in them, so that no two checkpoints read
    // the same.
    digest.add(name);
    digest.add(std::string_view("\0", 1));
    digest.add(format("{} {}\n", tensor.dtype, fmt::join(tensor.shape, ",")));
    file->read(tensor, [&](std::string_view piece) { digest.add(piece); });
  }
  sha256_ = digest.hex();
  return sha256_;
}

namespace {

/// Cuts the tensors into runs of at most `shard_bytes`.
std::vector<NamedTensors> plan_shards(const NamedTensors& tensors, uint64_t shard_bytes) {
  std::vector<NamedTensors> shards(1);
  uint64_t used = 0;
  for (const auto& entry : tensors) {
    const uint64_t bytes = entry.second.nbytes();
    if (used + bytes > shard_bytes && !shards.back().empty()) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(entry);
    used += bytes;
  }
  return shards;
}

void remove_stale(const std::string& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error) fail(ErrorCode::Io, "removing the earlier {}: {}", path, error.message());
}

}  // namespace

void save_checkpoint(const std::string& directory, const NamedTensors& tensors,
                     uint64_t shard_bytes) {
  check_savable(tensors, directory);
  const std::vector<NamedTensors> shards = plan_shards(tensors, shard_bytes);
  if (shards.size() == 1) {
    save_safetensors(directory + "/" + kSingle, tensors);
    remove_stale(directory + "/" + kIndex);
    return;
  }
  std::map<std::string, std::string> weight_map;
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    save_safetensors(directory + "/" + name, shards[i]);
    for (const auto& [tensor, value] : shards[i]) {
      weight_map[tensor] = name;
      total += value.nbytes();
    }
  }
  Json index;
  index["metadata"] = {{"total_size", total}};
  index["weight_map"] = weight_map;
  write_file_atomic(directory + "/" + kIndex, index.dump(2) + "\n");
  remove_stale(directory + "/" + kSingle);
}

}  // namespace attune
