#include "train/adapter_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "io/safetensors.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace fs = std::filesystem;

void replace_directory(const std::string& fresh, const std::string& directory) {
  sync_directory(fresh);
  if (!directory_exists(directory)) {
    fs::rename(fresh, directory);
  } else if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, directory.c_str(), RENAME_EXCHANGE) ==
             0) {
    fs::remove_all(fresh);
  } else {
    const std::string old = directory + ".old";
    fs::remove_all(old);
    fs::rename(directory, old);
    fs::rename(fresh, directory);
    fs::remove_all(old);
  }
  const std::string parent = fs::path(directory).parent_path().string();
  sync_directory(parent.empty() ? "." : parent);
}

FreshDirectory::FreshDirectory(std::string directory)
    : directory_(std::move(directory)), path_(directory_ + ".tmp") {
  std::error_code error;
  for (fs::path parent = fs::path(path_).parent_path();
       !parent.empty() && !fs::exists(parent, error); parent = parent.parent_path())
    parents_.push_back(parent.string());
  fs::remove_all(path_, error);
  fs::create_directories(path_, error);
  if (error)
    fail(ErrorCode::Io, "making the folder {}: {}; check the path, its permissions and the disk",
         path_, error.message());
}

FreshDirectory::~FreshDirectory() {
  if (replaced_) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  for (const std::string& parent : parents_) fs::remove(parent, ignored);  // only when empty
}

void FreshDirectory::replace() {
  replace_directory(path_, directory_);
  replaced_ = true;
}

namespace {

constexpr int64_t kLeastSparse = 1 << 16;  // elements

/// Elements whose bits are not all 0.
template <class Bits>
int64_t count_set(const Tensor& values) {
  const Bits* first = static_cast<const Bits*>(values.data_ptr());
  return values.numel() - std::count(first, first + values.numel(), Bits{0});
}

/// Places of those elements, int64 [count]; undefined when they are more than a third.
Tensor places_of(const Tensor& values) {
  const bool wide = values.scalar_type() == at::kDouble;
  const Tensor flat = values.contiguous().reshape({-1});
  const int64_t set = wide ? count_set<int64_t>(flat) : count_set<int32_t>(flat);
  if (set > values.numel() / 3) return Tensor();
  return flat.view(wide ? at::kLong : at::kInt).ne(0).nonzero().reshape({-1});
}

/// Tensors that are mostly zeros, as places and values.
NamedTensors packed(const NamedTensors& tensors) {
  NamedTensors result;
  for (const std::pair<std::string, Tensor>& entry : tensors) {
    const Tensor& value = entry.second;
    const bool large = value.numel() >= kLeastSparse && value.numel() <= INT32_MAX &&
                       (value.scalar_type() == at::kFloat || value.scalar_type() == at::kDouble);
    const Tensor places = large ? places_of(value) : Tensor();
    if (!places.defined()) {
      result.push_back(entry);
      continue;
    }
    result.emplace_back(entry.first + "#places", places.to(at::kInt));
    result.emplace_back(entry.first + "#values",
                        value.contiguous().reshape({-1}).index_select(0, places));
    result.emplace_back(entry.first + "#shape", int64_tensor(value.sizes().vec()));
  }
  return result;
}

Tensor unpacked(const SafetensorsFile& file, const std::string& name) {
  const std::string path = file.path();
  for (const char* part : {"#values", "#shape"})
    if (!file.has(name + part))
      fail(ErrorCode::Corrupt, "{}: tensor {}{} is missing beside {}#places", path, name, part,
           name);
  const Tensor places = file.tensor(name + "#places").to(at::kLong),
               values = file.tensor(name + "#values"),
               shape = file.tensor(name + "#shape").to(at::kLong).contiguous();
  int64_t count = 1;
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < shape.numel(); ++i) {
    sizes.push_back(pointer<const int64_t>(shape)[i]);
    const bool fits = sizes.back() >= 0 && (sizes.back() == 0 || count <= INT32_MAX / sizes.back());
    if (!fits) fail(ErrorCode::Corrupt, "{}: {}#shape holds no shape", path, name);
    count *= sizes.back();
  }
  const bool inside = places.numel() == 0 ||
                      (places.min().item<int64_t>() >= 0 && places.max().item<int64_t>() < count);
  if (places.numel() != values.numel() || !inside)
    fail(ErrorCode::Corrupt, "{}: {}#places does not fit {}#values or {}#shape", path, name, name,
         name);
  return at::zeros({count}, values.options()).index_copy_(0, places, values).reshape(sizes);
}

}  // namespace

NamedTensors read_adapter_tensors(const std::string& directory) {
  const SafetensorsFile file(directory + "/attune.safetensors");
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors()) {
    const size_t mark = info.name.rfind('#');
    const std::string part = mark == std::string::npos ? "" : info.name.substr(mark);
    if (part == "#places")
      tensors.emplace_back(info.name.substr(0, mark), unpacked(file, info.name.substr(0, mark)));
    else if (part != "#values" && part != "#shape")
      tensors.emplace_back(info.name, file.tensor(info.name));
  }
  return tensors;
}

void save_adapter(const Adaptation& adaptation, const std::string& set, const AdapterCard& card,
                  const std::string& directory,
                  const std::function<void(const std::string&)>& beside) {
  FreshDirectory fresh(directory);
  save_safetensors(fresh.path() + "/attune.safetensors", packed(adaptation.tensors(set)));
  const Json json{
      {"format", "attune-adapter"},
      {"version", 1},
      {"base_model",
       Json{{"name", card.base}, {"directory", card.directory}, {"sha256", card.fingerprint}}},
      {"task", card.task},
      {"task_state", card.task_state},
      {"head", Json{{"pool", card.pool}, {"new", card.new_head}}},
      {"storage", card.storage.to_json()},
      {"seed", card.seed},
      {"methods", adaptation.manifest(set)}};
  write_file_atomic(fresh.path() + "/attune.json", json.dump(2) + "\n");
  if (beside) beside(fresh.path());
  fresh.replace();
}

AdapterCard read_adapter_card(const std::string& directory) {
  const std::string path = directory + "/attune.json";
  const Json json = read_json(path);
  if (json.value("format", "") != "attune-adapter")
    fail(ErrorCode::Corrupt,
         "{}: \"format\" is not \"attune-adapter\"; this is not an adapter of Attune", path);
  if (json.value("version", 0) != 1)
    fail(ErrorCode::Unsupported, "{}: version {} of the adapter format; this build reads version 1",
         path, json.value("version", 0));
  try {
    AdapterCard card;
    card.base = json.at("base_model").at("name").get<std::string>();
    card.directory = json.at("base_model").value("directory", "");
    card.fingerprint = json.at("base_model").at("sha256").get<std::string>();
    card.task = json.at("task").get<std::string>();
    card.task_state = json.at("task_state");
    card.pool = json.at("head").at("pool").get<std::string>();
    card.new_head = json.at("head").value("new", false);
    card.seed = json.at("seed").get<uint64_t>();
    card.methods = json.at("methods");
    if (json.contains("storage")) card.storage = StorageOptions::from_json(json.at("storage"));
    return card;
  } catch (const Json::exception& error) {
    fail(ErrorCode::Corrupt, "{}: a key is missing or of the wrong type: {}", path, error.what());
  }
}

void load_adapter(Adaptation& adaptation, const std::string& set, const std::string& directory,
                  const std::string& base_fingerprint) {
  const AdapterCard card = read_adapter_card(directory);
  if (!card.fingerprint.empty() && !base_fingerprint.empty() &&
      card.fingerprint != base_fingerprint)
    fail(ErrorCode::BadInput,
         "loading the adapter {}: it was trained on {} (tensors' SHA-256 {}...), but this model's "
         "tensors have {}...; "
         "give the model it was trained on",
         directory, card.base, card.fingerprint.substr(0, 16), base_fingerprint.substr(0, 16));
  adaptation.restore(set, card.methods, read_adapter_tensors(directory),
                     directory + "/attune.safetensors");
}

}  // namespace attune
