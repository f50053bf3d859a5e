#include "recipe/warm_start.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "exchange/peft.h"
#include "recipe/target.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFiles[] = {"attune.json", "attune.safetensors"};

/// Without the head that every run adds by itself.
std::vector<std::string> method_names(const Json& methods) {
  std::vector<std::string> names;
  for (const Json& method : methods) {
    const bool by_itself =
        method.begin().key() == "head" && method.begin().value().value("fresh_only", false);
    if (!by_itself) names.push_back(method.begin().key());
  }
  return names;
}

/// What `all` has and `some` has not, each as often as that.
std::string beyond(const std::vector<std::string>& all, std::vector<std::string> some) {
  std::vector<std::string> result;
  for (const std::string& name : all) {
    const std::vector<std::string>::iterator found = std::find(some.begin(), some.end(), name);
    if (found == some.end())
      result.push_back(name);
    else
      some.erase(found);
  }
  return join(result, ", ");
}

/// "methods[0].lora.alpha is 8 there and 16 here", for every option that differs.
std::vector<std::string> differences(const Json& then, const Json& now) {
  std::vector<std::string> result;
  for (size_t i = 0; i < now.size(); ++i) {
    const Json& old_options = then[i].begin().value();
    const Json& options = now[i].begin().value();
    std::set<std::string> keys;
    for (const Json* side : {&old_options, &options})
      for (const auto& [key, value] : side->items()) keys.insert(key);
    for (const std::string& key : keys) {
      const Json before = old_options.value(key, Json()), after = options.value(key, Json());
      if (before != after)
        result.push_back(format("methods[{}].{}.{} is {} there and {} here", i,
                                now[i].begin().key(), key, before.dump(), after.dump()));
    }
  }
  return result;
}

/// config.json's "model_type" of a checkpoint folder; "" when it is not there any more.
std::string type_of(const std::string& directory) {
  if (directory.empty() || !file_exists(directory + "/config.json")) return "";
  return read_json(directory + "/config.json").value("model_type", "");
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
  if (folder_.empty() && !fs::exists(name))
    fail(ErrorCode::NotFound,
         "init_from: there is no folder {}; give the directory of a run, or null to start anew",
         name);
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

void WarmStart::check_base(const std::string& fingerprint, const std::string& model,
                           const std::string& directory) const {
  if (card_.fingerprint == fingerprint) return;
  const std::string then = type_of(card_.directory), now = type_of(directory);
  const std::string types = then.empty() || then == now
                                ? ""
                                : format(", and that was a {} model, this is a {} one", then, now);
  fail(ErrorCode::BadInput,
       "init_from: {} was trained on {}, whose tensors are not those of {} (SHA-256 {}... and "
       "{}...){}; give as `model` the one it was trained on",
       name_, card_.base, model, card_.fingerprint.substr(0, 16), fingerprint.substr(0, 16), types);
}

/// Other methods hold other tensors.
void WarmStart::check_methods(const Json& here) const {
  const std::vector<std::string> then = method_names(card_.methods), now = method_names(here);
  if (then == now) return;
  const std::string only_there = beyond(then, now), only_here = beyond(now, then);
  std::string what;
  if (!only_there.empty()) what = format("only there: {}", only_there);
  if (!only_here.empty()) what += format("{}only here: {}", what.empty() ? "" : "; ", only_here);
  if (what.empty()) what = "the same in another order";
  fail(ErrorCode::BadInput,
       "init_from: {} was trained with the methods {}, this recipe has {} ({}); take the same "
       "methods in the same order, or start from its weights: attune merge {} -o DIR, and DIR as "
       "`model`",
       name_, join(then, " + "), join(now, " + "), what, name_);
}

void WarmStart::does_not_fit(const std::string& what,
                             const std::vector<std::string>& different) const {
  fail(ErrorCode::BadInput,
       "init_from: the values of {} do not fit this recipe's methods: {}. {}; give the methods the "
       "options they had there",
       name_, what,
       different.empty() ? "Their options are the same, so the model or its head differs"
                         : "Options that differ: " + join(different, ", "));
}

/// Where both have the tensor, its shape must be the same; a head may be made in another way.
void WarmStart::check_tensors(const std::vector<std::pair<std::string, Tensor>>& tensors,
                              const std::map<std::string, Tensor>& saved, bool with_head,
                              const std::vector<std::string>& different) const {
  std::set<std::string> known;
  for (const std::pair<std::string, Tensor>& entry : tensors) {
    known.insert(entry.first);
    const std::string site = site_of(entry.first);
    if (site == "head.proj" && !with_head) continue;
    const std::map<std::string, Tensor>::const_iterator found = saved.find(entry.first);
    if (found == saved.end()) {
      if (starts_with(site, "head.")) continue;  // another way of pooling
      does_not_fit(format("there is no tensor {} there", entry.first), different);
    }
    const std::vector<int64_t> there = found->second.sizes().vec();
    if (there != entry.second.sizes().vec())
      does_not_fit(format("the tensor {} has shape [{}] there and [{}] here", entry.first,
                          fmt::join(there, ", "), fmt::join(entry.second.sizes().vec(), ", ")),
                   different);
  }
  for (const std::pair<const std::string, Tensor>& entry : saved)
    if (known.count(entry.first) == 0 && !starts_with(site_of(entry.first), "head."))
      does_not_fit(format("the tensor {} is only there", entry.first), different);
}

void WarmStart::fill(Adaptation& adaptation, bool with_head) const {
  const Json here = adaptation.manifest("default");
  check_methods(here);
  const std::vector<std::string> different = differences(card_.methods, here);
  std::map<std::string, Tensor> saved;
  for (std::pair<std::string, Tensor>& entry : read_adapter_tensors(folder_, adaptation.model()))
    saved.insert(std::move(entry));
  const std::vector<std::pair<std::string, Tensor>> tensors = adaptation.tensors("default");
  check_tensors(tensors, saved, with_head, different);
  for (const std::string& difference : different)
    log_warning("init_from: {}; the values of {} are taken as they are", difference, name_);
  at::NoGradGuard no_grad;
  for (const std::pair<std::string, Tensor>& entry : tensors) {
    const std::map<std::string, Tensor>::const_iterator found = saved.find(entry.first);
    if (found == saved.end() || (site_of(entry.first) == "head.proj" && !with_head)) continue;
    entry.second.detach().copy_(found->second);
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
