#include "recipe/warm_start.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "exchange/peft.h"
#include "io/safetensors.h"
#include "recipe/target.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFiles[] = {"attune.json", "attune.safetensors"};

std::string method_names(const Json& methods) {
  std::vector<std::string> names;
  for (const Json& method : methods) names.push_back(method.begin().key());
  return join(names, " + ");
}

/// "0.lora/enc.0.self.q/down" -> "enc.0.self.q".
std::string site_of(const std::string& tensor) {
  const std::vector<std::string> parts = split(tensor, '/');
  return parts.size() > 1 ? parts[1] : "";
}

}  // namespace

WarmStart::WarmStart(const std::string& name) : name_(name), folder_(adapter_folder(name)) {
  if (folder_.empty() && file_exists(name + "/recipe.yaml"))
    fail(
        ErrorCode::NotFound,
        "init_from: the run {} has not finished: it has no adapter yet; `attune resume {}` goes on "
        "with it",
        name, name);
  if (folder_.empty() && is_peft(name))
    fail(ErrorCode::Unsupported,
         "init_from: {} is an adapter of PEFT, and a run of Attune is expected; fold it into its "
         "model (attune merge {} -o DIR) and take that as `model`",
         name, name);
  if (folder_.empty())
    fail(ErrorCode::NotFound,
         "init_from: {} is not a run: neither adapter/attune.json nor attune.json is in it", name);
  card_ = read_adapter_card(folder_);
}

std::vector<std::string> WarmStart::labels_for(const std::string& task,
                                               const std::vector<std::string>& labels) const {
  if (task != card_.task || !card_.task_state.contains("labels")) return {};
  const std::vector<std::string> known = card_.task_state["labels"].get<std::vector<std::string>>();
  for (const std::string& label : labels)
    if (std::find(known.begin(), known.end(), label) == known.end()) return {};
  return known;
}

/// Other methods hold other tensors; other options of the same methods may give the same values
/// another meaning, which is the user's to judge.
void WarmStart::check_methods(const Json& here) const {
  if (method_names(here) != method_names(card_.methods))
    fail(
        ErrorCode::BadInput,
        "init_from: {} was trained with the methods {}, this recipe has {}; take the same methods, "
        "or start from its weights: attune merge {} -o DIR, and DIR as `model`",
        name_, method_names(card_.methods), method_names(here), name_);
  for (size_t i = 0; i < here.size(); ++i) {
    const Json& now = here[i].begin().value();
    const Json& then = card_.methods[i].begin().value();
    for (const auto& [option, value] : now.items())
      if (then.contains(option) && then[option] != value)
        log_warning(
            "init_from: methods[{}].{}.{} was {} in {} and is {} here: its values are taken as "
            "they "
            "are",
            i, here[i].begin().key(), option, then[option].dump(), name_, value.dump());
  }
}

void WarmStart::fill(Adaptation& adaptation, const std::string& base_fingerprint,
                     bool with_head) const {
  if (card_.fingerprint != base_fingerprint)
    fail(ErrorCode::BadInput,
         "init_from: {} was trained on {} (tensors' SHA-256 {}...), but this model's tensors have "
         "{}...; give the model it was trained on",
         name_, card_.base, card_.fingerprint.substr(0, 16), base_fingerprint.substr(0, 16));
  check_methods(adaptation.manifest("default"));
  const SafetensorsFile file(folder_ + "/attune.safetensors");
  at::NoGradGuard no_grad;
  for (const std::pair<std::string, Tensor>& entry : adaptation.tensors("default")) {
    const std::string site = site_of(entry.first);
    if (site == "head.proj" && !with_head) continue;
    if (!file.has(entry.first)) {
      if (starts_with(site, "head.")) continue;  // another way of pooling
      fail(ErrorCode::BadInput,
           "init_from: {} has no tensor {}; the options of its methods select other sites than "
           "this recipe's",
           name_, entry.first);
    }
    const Tensor value = file.tensor(entry.first);
    if (value.sizes() != entry.second.sizes())
      fail(ErrorCode::BadInput,
           "init_from: the tensor {} of {} has shape [{}], this recipe makes it [{}]; give the "
           "methods the options they had there",
           entry.first, name_, fmt::join(value.sizes().vec(), ", "),
           fmt::join(entry.second.sizes().vec(), ", "));
    entry.second.detach().copy_(value);
    mark_changed(entry.second);
  }
}

void WarmStart::keep_in(const std::string& run) const {
  const std::string folder = run + "/init";
  if (fs::exists(folder) && fs::equivalent(folder, folder_)) return;
  for (const char* name : kFiles) {
    std::error_code error;
    fs::create_directories(folder, error);
    // Adapters are replaced by new files, never written into, so a link keeps the values.
    if (!error) fs::create_hard_link(folder_ + "/" + name, folder + "/" + name, error);
    if (error) fs::copy_file(folder_ + "/" + name, folder + "/" + name, error);
    if (error)
      fail(ErrorCode::Io, "keeping {}/{} in {}: {}", folder_, name, folder, error.message());
  }
  sync_directory(folder);
}

std::string kept_start(const std::string& run) {
  const std::string folder = run + "/init";
  return file_exists(folder + "/attune.json") ? folder : "";
}

}  // namespace attune
