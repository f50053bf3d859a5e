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
    : directory_(without_end_slash(std::move(directory))), path_(directory_ + ".tmp") {
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

/// Places of the elements whose bits differ from those of `from` (undefined: from zero), int64
/// [count]; undefined when they are more than a third.
template <class Bits>
Tensor places_of(const Tensor& values, const Tensor& from) {
  const int64_t count = values.numel();
  const Bits* bits = static_cast<const Bits*>(values.data_ptr());
  const Bits* others = from.defined() ? static_cast<const Bits*>(from.data_ptr()) : nullptr;
  const auto differs = [&](int64_t i) { return bits[i] != (others == nullptr ? 0 : others[i]); };
  int64_t found = 0;
  for (int64_t i = 0; i < count && found <= count / 3; ++i) found += differs(i) ? 1 : 0;
  if (found > count / 3) return Tensor();
  Tensor places = at::empty({found}, at::kLong);
  int64_t* next = pointer<int64_t>(places);
  for (int64_t i = 0; i < count; ++i)
    if (differs(i)) *next++ = i;
  return places;
}

/// The base's tensor that one named ".../SITE/weight" or bias began from, of this type and shape;
/// undefined where there is none of the checkpoint.
Tensor base_of(const Model& model, const std::string& name, at::ScalarType type) {
  const std::vector<std::string> parts = split(name, '/');
  const Site* site = parts.size() < 3 ? nullptr : model.find(parts[parts.size() - 2]);
  if (site == nullptr || site->kind != SiteKind::Weight || site->copy_of >= 0) return Tensor();
  const WeightSlot& slot = model.slot(*site);
  if (slot.fresh || slot.codes != nullptr) return Tensor();
  const Tensor base = parts.back() == "weight" ? slot.dense()
                      : parts.back() == "bias" ? slot.bias
                                               : Tensor();
  return base.defined() ? base.detach().to(type).contiguous() : base;
}

/// Large tensors that are mostly zeros, or mostly as in the base, as places and values.
NamedTensors packed(const NamedTensors& tensors, const Model& model) {
  NamedTensors result;
  for (const std::pair<std::string, Tensor>& entry : tensors) {
    const Tensor value = entry.second.detach().contiguous();
    const bool wide = value.scalar_type() == at::kDouble;
    const bool large = value.numel() >= kLeastSparse && value.numel() <= INT32_MAX &&
                       (wide || value.scalar_type() == at::kFloat);
    const auto places_from = [&](const Tensor& from) {
      return wide ? places_of<int64_t>(value, from) : places_of<int32_t>(value, from);
    };
    Tensor places = large ? places_from(Tensor()) : Tensor();
    const bool of_zeros = places.defined();
    if (large && !of_zeros) {
      const Tensor base = base_of(model, entry.first, value.scalar_type());
      if (base.defined() && base.sizes() == value.sizes()) places = places_from(base);
      // It may stand in its file, of which the model computes with the trained copy alone; that
      // copy may go on reading there.
      const std::optional<FilePlace> place =
          base.defined() ? place_in_file(base.data_ptr(), static_cast<size_t>(base.nbytes()))
                         : std::nullopt;
      if (place) forget_pages(base.data_ptr(), static_cast<size_t>(base.nbytes()));
    }
    if (!places.defined()) {
      result.push_back(entry);
      continue;
    }
    result.emplace_back(entry.first + (of_zeros ? "#places" : "#changed"), places.to(at::kInt));
    result.emplace_back(entry.first + "#values", value.reshape({-1}).index_select(0, places));
    if (of_zeros) result.emplace_back(entry.first + "#shape", int64_tensor(value.sizes().vec()));
  }
  return result;
}

struct Places {
  Tensor places, values;
};

/// NAME#places or NAME#changed, and NAME#values.
Places places_in(const SafetensorsFile& file, const std::string& name, const char* part) {
  if (!file.has(name + "#values"))
    fail(ErrorCode::Corrupt, "{}: tensor {}#values is missing beside {}{}", file.path(), name, name,
         part);
  return {file.tensor(name + part).to(at::kLong), file.tensor(name + "#values")};
}

bool inside(const Places& given, int64_t count) {
  return given.places.numel() == given.values.numel() &&
         (given.places.numel() == 0 ||
          (given.places.min().item<int64_t>() >= 0 && given.places.max().item<int64_t>() < count));
}

/// A tensor of which the file has what differs from the base's.
Tensor changed(const SafetensorsFile& file, const std::string& name, const Model& model) {
  const Places given = places_in(file, name, "#changed");
  const Tensor base = base_of(model, name, given.values.scalar_type());
  if (!base.defined() || !inside(given, base.numel()))
    fail(ErrorCode::Corrupt, "{}: {}#changed does not fit {}#values or the base's tensor",
         file.path(), name, name);
  return base.reshape({-1}).index_copy(0, given.places, given.values).reshape(base.sizes());
}

Tensor unpacked(const SafetensorsFile& file, const std::string& name) {
  const std::string path = file.path();
  const Places given = places_in(file, name, "#places");
  if (!file.has(name + "#shape"))
    fail(ErrorCode::Corrupt, "{}: tensor {}#shape is missing beside {}#places", path, name, name);
  const Tensor shape = file.tensor(name + "#shape").to(at::kLong).contiguous();
  int64_t count = 1;
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < shape.numel(); ++i) {
    sizes.push_back(pointer<const int64_t>(shape)[i]);
    const bool fits = sizes.back() >= 0 && (sizes.back() == 0 || count <= INT32_MAX / sizes.back());
    if (!fits) fail(ErrorCode::Corrupt, "{}: {}#shape holds no shape", path, name);
    count *= sizes.back();
  }
  if (!inside(given, count))
    fail(ErrorCode::Corrupt, "{}: {}#places does not fit {}#values or {}#shape", path, name, name,
         name);
  return at::zeros({count}, given.values.options())
      .index_copy_(0, given.places, given.values)
      .reshape(sizes);
}

}  // namespace

NamedTensors read_adapter_tensors(const std::string& directory, const Model& base) {
  const SafetensorsFile file(directory + "/attune.safetensors");
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors()) {
    const size_t mark = info.name.rfind('#');
    const std::string part = mark == std::string::npos ? "" : info.name.substr(mark);
    if (part == "#places")
      tensors.emplace_back(info.name.substr(0, mark), unpacked(file, info.name.substr(0, mark)));
    else if (part == "#changed")
      tensors.emplace_back(info.name.substr(0, mark),
                           changed(file, info.name.substr(0, mark), base));
    else if (part != "#values" && part != "#shape")
      tensors.emplace_back(info.name, file.tensor(info.name));
  }
  return tensors;
}

void save_adapter(const Adaptation& adaptation, const std::string& set, const AdapterCard& card,
                  const std::string& directory,
                  const std::function<void(const std::string&)>& beside) {
  FreshDirectory fresh(directory);
  save_safetensors(fresh.path() + "/attune.safetensors",
                   packed(adaptation.tensors(set), adaptation.model()));
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
  adaptation.restore(set, card.methods, read_adapter_tensors(directory, adaptation.model()),
                     directory + "/attune.safetensors");
}

}  // namespace attune
