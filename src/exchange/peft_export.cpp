// A set of tuners -> directories of PEFT: what each tuner becomes, which of them share a directory,
// and where whole modules and biases go.
#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "core/attachment.h"
#include "exchange/module_names.h"
#include "exchange/peft.h"
#include "exchange/peft_type.h"
#include "exchange/peft_write.h"
#include "tensor/torch.h"

namespace attune {

namespace {

using Module = ModuleNames::Module;

/// Without a task (a PEFT adapter written again), the class that the base's config.json names.
std::string task_of(const std::string& task, const Model& model) {
  const Json& config = model.config();
  if (!task.empty() || model.find("head.proj") == nullptr || !config.contains("architectures"))
    return task;
  const Json& names = config.at("architectures");
  const std::string name =
      names.is_array() && !names.empty() && names[0].is_string() ? names[0].get<std::string>() : "";
  if (ends_with(name, "ForSequenceClassification")) return "classify";
  if (ends_with(name, "ForImageClassification")) return "image";
  if (ends_with(name, "ForTokenClassification")) return "tag";
  if (ends_with(name, "ForCausalLM") || ends_with(name, "ForConditionalGeneration")) return "lm";
  return ends_with(name, "ForQuestionAnswering") ? "qa" : "";
}

/// PEFT's task_type; "" for one that has none there.
std::string task_type_of(const std::string& task, const Model& model) {
  if (task == "tag") return "TOKEN_CLS";
  if (task == "qa") return "QUESTION_ANS";
  if (task == "image") return "";
  if (task == "lm" || task == "sft" || task == "seq2seq") {
    const bool both =
        model.find("enc.0.self.q") != nullptr && model.find("dec.0.cross.q") != nullptr;
    return both ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";
  }
  return model.find("vis.0.self.q") != nullptr ? "" : "SEQ_CLS";
}

/// What the set does to one module's own tensors.
struct Change {
  Tensor weight, bias;  // thawed values
  bool saved = false;   // written whole
};

class Exporter {
 public:
  Exporter(const Adaptation& adaptation, const Model& model, std::string set,
           const std::string& base_model, const std::string& task, bool with_head, bool newer)
      : adaptation_(adaptation),
        model_(model),
        set_(std::move(set)),
        names_(model),
        types_(peft_types()),
        context_{names_, base_model, "FEATURE_EXTRACTION", true, newer} {
    if (!with_head || task.empty()) return;
    context_.bare = false;
    context_.task_type = task_type_of(task, model);
  }

  PeftExport write(const std::string& directory) {
    // Factors that are made from other tensors are those of the last forward: made again.
    if (model_.plan().prepare) model_.plan().prepare(Pass{});
    const at::NoGradGuard no_grad;
    collect();
    choose_saved();
    take_out_whole_modules();
    if (pieces_.empty()) collect_norms();
    if (pieces_.empty())
      fail(ErrorCode::Unsupported,
           "exporting \"{}\" to PEFT: it holds no update of the model's body that a type of PEFT "
           "has a form for; export the whole model instead (`attune export --to hf`)",
           set_);
    std::vector<PeftDirectory> directories = arrange();
    save(directories, directory);
    return std::move(result_);
  }

 private:
  void collect();
  void collect_edits(const PeftView& view);
  void collect_norms();
  void choose_saved();
  bool writes_whole(const Module& module, const Change* change) const;
  void take_out_whole_modules();
  PeftWhole folded(const Module& module) const;
  std::vector<PeftDirectory> arrange();
  void choose_bias(std::vector<PeftDirectory>& directories);
  void save(std::vector<PeftDirectory>& directories, const std::string& directory);
  const PeftType& type_named(const std::string& name) const;

  bool left_out(const Module& module) const { return context_.bare && !module.in_base; }
  /// In the model's order.
  std::vector<std::pair<const Module*, Change*>> changes() {
    std::vector<std::pair<const Module*, Change*>> result;
    for (const Module& module : names_.all())
      if (const std::map<const Module*, Change>::iterator it = changes_.find(&module);
          it != changes_.end())
        result.emplace_back(&module, &it->second);
    return result;
  }

  const Adaptation& adaptation_;
  const Model& model_;
  std::string set_;
  ModuleNames names_;
  std::vector<PeftType> types_;
  PeftContext context_;
  std::map<const Module*, Change> changes_;
  std::vector<PeftPiece> pieces_;
  PeftExport result_;
};

const PeftType& Exporter::type_named(const std::string& name) const {
  for (const PeftType& type : types_)
    if (type.name == name) return type;
  fail(ErrorCode::Internal, "no PEFT type {}", name);
}

std::vector<PeftView> views_of(const Adaptation& adaptation, const Model& model,
                               const std::string& set) {
  std::vector<PeftView> result;
  const std::vector<TunerSpec> specs = adaptation.specs(set);
  const std::vector<const Recorder*> recorders = adaptation.recorders(set);
  for (size_t i = 0; i < specs.size(); ++i) result.emplace_back(model, *recorders[i], specs[i]);
  return result;
}

void Exporter::collect() {
  for (const PeftView& view : views_of(adaptation_, model_, set_)) {
    for (const Owned& owned : view.recorder().owned()) {
      if (owned.role != Owned::Role::Thawed) continue;
      const Site& site = model_.sites()[static_cast<size_t>(owned.site)];
      if (site.copy_of >= 0)
        cannot_export(view, "types", format("it trains {}, a copy in a mixture", site.name));
      for (const Module& module : names_.all()) {
        // PEFT trains a copy a module: a tensor that several share is written for each.
        if (owned.alone ? &module != &names_.of(site) : module.site.storage != site.storage)
          continue;
        if (module.uses > 1)
          cannot_export(view, "types",
                        format("it trains {}, which serves {} layers: PEFT would train a copy for "
                               "each of them",
                               module.name, module.uses));
        Change& change = changes_[&module];
        (ends_with(owned.name, "/weight") ? change.weight : change.bias) = owned.value.detach();
      }
    }
    if (!view.recorder().edits().empty()) collect_edits(view);
  }
}

void Exporter::collect_edits(const PeftView& view) {
  const PeftType* type = type_of_method(types_, view.method());
  for (const std::pair<int, Edit>& entry : view.recorder().edits()) {
    const Site& site = model_.sites()[static_cast<size_t>(entry.first)];
    const bool updates = std::holds_alternative<LowRank>(entry.second) && type == nullptr &&
                         site.kind == SiteKind::Weight;
    if (type == nullptr && !updates)
      fail(ErrorCode::Unsupported,
           "exporting \"{}\" to PEFT: method {} uses {} at {}, for which no type of PEFT has a "
           "form; keep the adapter in Attune's own format, or merge it and export the model "
           "(`attune export --to hf`)",
           set_, view.recorder().method(), verb_name(entry.second), site.name);
    if (site.copy_of >= 0)
      cannot_export(view, type == nullptr ? "LORA" : type->name,
                    format("it acts at {}, a copy in a mixture", site.name));
    if (site.kind == SiteKind::Weight && names_.of(site).uses > 1)
      cannot_export(view, type == nullptr ? "LORA" : type->name,
                    format("{} is one of {} layers that share the module {}, which PEFT would "
                           "change in all of them",
                           site.name, names_.of(site).uses, names_.of(site).name));
  }
  PeftPiece piece = (type == nullptr ? type_named("LORA") : *type).save(view);
  for (PeftUpdate& update : piece.updates)
    if (left_out(names_.of(update.site))) changes_[&names_.of(update.site)];
  std::erase_if(piece.updates,
                [&](const PeftUpdate& update) { return left_out(names_.of(update.site)); });
  if (!pieces_.empty() && type_named(piece.type).join_pieces(pieces_.back(), piece)) return;
  pieces_.push_back(std::move(piece));
}

/// Norms alone have a type of their own; beside other methods they are whole modules.
void Exporter::collect_norms() {
  for (const PeftView& view : views_of(adaptation_, model_, set_)) {
    if (view.method() != "norms") continue;
    PeftPiece piece = type_named("LN_TUNING").save(view);
    for (const PeftUpdate& update : piece.updates) changes_.erase(&names_.of(update.site));
    if (!piece.updates.empty()) pieces_.push_back(std::move(piece));
    return;
  }
}

/// Whole modules are those whose weight trained, those the checkpoint lacks, and the head that PEFT
/// saves by itself.
bool Exporter::writes_whole(const Module& module, const Change* change) const {
  if (model_.slot(module.site).fresh) return true;
  if (module.in_base) return change != nullptr && change->weight.defined();
  const bool by_itself = context_.task_type == "SEQ_CLS" || context_.task_type == "TOKEN_CLS" ||
                         context_.task_type == "QUESTION_ANS";
  return by_itself || (change != nullptr && (change->weight.defined() || change->bias.defined()));
}

void Exporter::choose_saved() {
  for (const Module& module : names_.all()) {
    const std::map<const Module*, Change>::iterator it = changes_.find(&module);
    const bool changed = it != changes_.end();
    if (left_out(module)) {
      if (changed || model_.slot(module.site).fresh)
        result_.notes.push_back(
            format("{} stays in attune.safetensors: transformers' classes cannot hold this head, "
                   "so the adapter is one of the bare model (FEATURE_EXTRACTION)",
                   module.name));
      if (changed) changes_.erase(it);
      continue;
    }
    if (!writes_whole(module, changed ? &it->second : nullptr)) continue;
    if (module.site.weight == WeightKind::Vector) {
      if (!changed) continue;
      fail(ErrorCode::Unsupported,
           "exporting \"{}\" to PEFT: {} trained, a tensor outside any module; PEFT saves whole "
           "modules only",
           set_, module.name);
    }
    changes_[&module].saved = true;
  }
}

/// PEFT adapts no module that it saves: what the methods do to one is added into its weight.
void Exporter::take_out_whole_modules() {
  for (PeftPiece& piece : pieces_) {
    for (const PeftUpdate& update : piece.updates) {
      const Module& module = names_.of(update.site);
      if (changes_.count(&module) > 0 && changes_[&module].saved)
        result_.notes.push_back(
            format("the update of {} is added into its weight: PEFT saves that module whole",
                   module.name));
    }
    std::erase_if(piece.updates, [&](const PeftUpdate& update) {
      const std::map<const Module*, Change>::iterator it = changes_.find(&names_.of(update.site));
      return it != changes_.end() && it->second.saved;
    });
  }
  std::erase_if(pieces_, [&](const PeftPiece& piece) {
    return piece.updates.empty() && !type_named(piece.type).prompts;
  });
}

PeftWhole Exporter::folded(const Module& module) const {
  const WeightSlot& slot = model_.slot(module.site);
  const Change& change = changes_.at(&module);
  Affine map{change.weight.defined() ? change.weight : slot.dense(),
             change.bias.defined() ? change.bias : slot.bias};
  for (const Recorder* recorder : adaptation_.recorders(set_))
    for (const std::pair<int, Edit>& entry : recorder->edits())
      if (const Site& site = model_.sites()[static_cast<size_t>(entry.first)];
          site.kind == SiteKind::Weight && &names_.of(site) == &module)
        map = fold(map, entry.second, site.weight);
  return {&module, slot.as_stored(map.weight), map.bias};
}

/// The head goes into every directory, because PEFT asks for it there; other whole modules into the
/// first.
std::vector<PeftDirectory> Exporter::arrange() {
  std::vector<PeftDirectory> directories;
  for (PeftPiece& piece : pieces_) {
    PeftDirectory content{std::move(piece), {}, {}, {}};
    content.type = type_named(content.piece.type);
    for (const std::pair<const Module*, Change*>& entry : changes())
      if (entry.second->saved && (directories.empty() || !entry.first->in_base))
        content.saved.push_back(folded(*entry.first));
    if (content.type.finish) content.type.finish(content.piece);
    result_.notes.insert(result_.notes.end(), content.piece.notes.begin(),
                         content.piece.notes.end());
    directories.push_back(std::move(content));
  }
  choose_bias(directories);
  return directories;
}

void Exporter::choose_bias(std::vector<PeftDirectory>& directories) {
  std::set<const Module*> trained, all;
  for (const Module& module : names_.all()) {
    const std::map<const Module*, Change>::const_iterator it = changes_.find(&module);
    const bool saved = it != changes_.end() && it->second.saved;
    if (!module.site.bias || left_out(module) || saved) continue;
    all.insert(&module);
    if (it != changes_.end() && it->second.bias.defined()) trained.insert(&module);
  }
  if (trained.empty()) return;
  size_t most = 0;
  for (PeftDirectory& content : directories) {
    if (content.type.bias_only.empty()) continue;
    std::set<const Module*> updated;
    for (const PeftUpdate& update : content.piece.updates)
      if (const Module& module = names_.of(update.site); all.count(&module) > 0)
        updated.insert(&module);
    most = std::max(most, updated.size());
    if (trained != updated && trained != all) continue;
    content.bias = trained == updated ? content.type.bias_only : "all";
    for (const Module& module : names_.all())
      if (trained.count(&module) > 0)
        content.biases.push_back({&module, Tensor(), changes_.at(&module).bias});
    result_.notes.push_back(format("the trained biases are written as bias: {}", content.bias));
    return;
  }
  fail(ErrorCode::Unsupported,
       "exporting \"{}\" to PEFT: {} biases trained; PEFT knows all of them ({}) or those of the "
       "modules that one adapter changes ({}, 0 for a type without biases), nothing between",
       set_, trained.size(), all.size(), most);
}

void Exporter::save(std::vector<PeftDirectory>& directories, const std::string& directory) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < directories.size(); ++i) {
    const PeftDirectory& content = directories[i];
    const std::string inner =
        directories.size() == 1 ? "" : format("/{}-{}", i + 1, lowered(content.type.name));
    write_peft(context_, content, directory + inner);
    result_.directories.push_back(directory + inner);
    lines.push_back(
        format("{}{}{}, readable by PEFT as {} over {}",
               inner.empty() ? "" : inner.substr(1) + ": ", content.type.name,
               content.type.prompts ? "" : format(" on {} module(s)", content.piece.updates.size()),
               context_.task_type.empty() ? "a model without a task type" : context_.task_type,
               context_.base_model.empty() ? "the base model" : context_.base_model));
  }
  if (directories.size() > 1)
    lines.push_back(
        "PEFT holds one type a directory: load them in this order, each after merging the one "
        "before (merge_and_unload)");
  result_.notes.insert(result_.notes.begin(), lines.begin(), lines.end());
  const bool renamed =
      std::any_of(names_.all().begin(), names_.all().end(),
                  [](const Module& module) { return module.newer != module.name; });
  if (renamed)
    result_.notes.push_back(context_.newer ? "the module names are those of transformers from 2026 "
                                             "on; `--hf-names classic` writes "
                                             "those of older releases"
                                           : "the module names are those of transformers before "
                                             "2026; `--hf-names v5` writes those "
                                             "of newer releases");
  if (context_.task_type == "SEQ_CLS" || context_.task_type == "TOKEN_CLS")
    result_.notes.push_back(
        "the head is in the adapter (modules_to_save); PEFT keeps no label names: give num_labels "
        "and id2label when loading the base model there");
}

}  // namespace

PeftExport export_peft(const Adaptation& adaptation, const Model& model, const std::string& set,
                       const std::string& base_model, const std::string& task,
                       bool head_is_transformers_like, const std::string& directory,
                       bool newer_names) {
  return Exporter(adaptation, model, set, base_model, task_of(task, model),
                  head_is_transformers_like, newer_names)
      .write(directory);
}

}  // namespace attune
