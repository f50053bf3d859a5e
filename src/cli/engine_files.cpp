// init, inspect, merge, export.
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "core/storage.h"
#include "exchange/peft.h"
#include "io/checkpoint.h"
#include "nn/transformer.h"
#include "recipe/hf_files.h"
#include "recipe/verify.h"

namespace attune {

int run_init(const Json& args) {
  std::string path = text_arg(args, "config");
  const std::string output = output_directory(args);
  if (directory_exists(path)) path += "/config.json";
  LoadOptions options;
  options.numerics = {kernels::DType::F32};
  options.seed = static_cast<uint64_t>(int_arg(args, "seed", 1));
  const Json config = read_json(path);
  const std::unique_ptr<Model> model = init_model(config, path, options);
  FreshDirectory fresh(output);
  write_model(*model, "", fresh.path(), Json::object());
  copy_text_files(std::filesystem::path(path).parent_path().string(), fresh.path());
  fresh.replace();
  answer(args, Json{{"output", output}, {"seed", options.seed}},
         format("{}: a random {} model, seed {}", output, config.value("model_type", "?"),
                options.seed));
  return 0;
}

namespace {

/// The dtype of a slot's weight in its file, "BF16"; of one that no file holds, that of the model.
std::string dtype_of_slot(const Checkpoint& file, const WeightSlot& slot) {
  if (file.has(slot.weight_name)) return file.info(slot.weight_name).dtype;
  return slot.master == at::kDouble ? "F64" : "F32";
}

Json site_json(const Model& model, const Checkpoint& file, const Site& site) {
  Json json{{"site", site.name}, {"kind", kind_name(site.kind)}};
  if (site.kind == SiteKind::Weight) {
    const WeightSlot& slot = model.slot(site);
    json["shape"] = slot.shape();
    json["tensor"] = slot.weight_name;
    json["dtype"] = dtype_of_slot(file, slot);
    if (slot.bias.defined()) json["bias"] = slot.bias_name;
    if (slot.codes != nullptr) json["storage"] = storage_name(slot);
    if (slot.fresh) json["new"] = true;
  } else {
    json["width"] = site.out;
  }
  const SitePlan* plan = model.plan().at(site.id);
  if (plan == nullptr) return json;
  Json edits = Json::array();
  for (const SitePlan::Entry& entry : plan->edits)
    edits.push_back(format("{} ({})", verb_name(*entry.edit), entry.owner));
  if (plan->weight.defined()) edits.push_back("weight trained");
  if (plan->bias.defined()) edits.push_back("bias trained");
  json["edits"] = edits;
  return json;
}

/// Of all tensors of a checkpoint.
int64_t stored_bytes(const Checkpoint& file) {
  uint64_t bytes = 0;
  for (const std::string& name : file.names()) bytes += file.info(name).end - file.info(name).begin;
  return static_cast<int64_t>(bytes);
}

std::string site_line(const Json& site) {
  std::string line =
      format("{:<24} {:<9}", site["site"].get<std::string>(), site["kind"].get<std::string>());
  if (site.contains("tensor"))
    line += format(" {:<14} {:<4} {}",
                   format("[{}]", fmt::join(site["shape"].get<std::vector<int64_t>>(), ", ")),
                   site["dtype"].get<std::string>(), site["tensor"].get<std::string>());
  if (site.contains("new")) line += " (new)";
  if (site.contains("edits"))
    for (const Json& edit : site["edits"]) line += "  <- " + edit.get<std::string>();
  return line;
}

}  // namespace

int run_inspect(const Json& args) {
  Json shaped = args;
  if (!shaped.contains("precision")) shaped["precision"] = "fp32";
  const std::unique_ptr<Target> target = target_of(shaped, false);
  const Model& model = target->model();
  const std::string glob = text_arg(args, "glob", "*");
  Json sites = Json::array();
  std::vector<std::string> lines;
  const Checkpoint file(target->base_directory);
  int64_t parameters = 0;
  for (size_t i = 0; i < model.slots(); ++i) {
    const WeightSlot& slot = target->model().slot_at(i);
    parameters += slot.numel();
  }
  for (const Site& site : select_sites(model.sites(), glob)) {
    sites.push_back(site_json(model, file, site));
    lines.push_back(site_line(sites.back()));
  }
  const Cost cost = target->adaptation->cost();
  const Json object{{"model_type", model.config().value("model_type", "?")},
                    {"parameters", parameters},
                    {"bytes", stored_bytes(file)},
                    {"trained", cost.trainable + cost.head},
                    {"sites", sites},
                    {"methods", target->card.methods},
                    {"task", target->card.task}};
  std::string text =
      format("{} model, {} parameters, {} in its files", model.config().value("model_type", "?"),
             with_thousands(parameters), human_bytes(static_cast<double>(stored_bytes(file))));
  if (cost.trainable + cost.head > 0)
    text += format(", {} of them in the adapter", with_thousands(cost.trainable + cost.head));
  answer(args, object, text + "\n" + join(lines, "\n"));
  return 0;
}

namespace {

/// Target in fp32: what is written does not depend on the machine.
std::unique_ptr<Target> target_to_write(const Json& args) {
  Json shaped = args;
  shaped["precision"] = "fp32";
  return target_of(shaped, false);
}

bool like_transformers(Target& target) {
  const Transformer& model = dynamic_cast<const Transformer&>(target.model());
  return !model.spec().head.ours;
}

TargetRequest plain_request(const std::string& name, const std::vector<std::string>& adapters) {
  TargetRequest request;
  request.name = name;
  request.adapters = adapters;
  request.precision = "fp32";
  request.need_task = false;
  return request;
}

}  // namespace

int run_merge(const Json& args) {
  const std::string output = output_directory(args);
  const std::unique_ptr<Target> target = target_to_write(args);
  double error = 0;
  write_merged(target->model(), *target->adaptation, target->task.get(), target->base_directory,
               output, [&](const std::string& folder) {
                 error = verify_export(*target, plain_request(folder, {}));
               });
  std::string text =
      format("merged checkpoint in {} (read back: outputs within {:.1g})", output, error);
  if (!like_transformers(*target))
    text += format(
        "\nnote: its head pools by {}; transformers' sequence class pools by its pooler, so there "
        "the body "
        "loads and the head needs that pooling",
        target->loaded.report.pool);
  answer(args, Json{{"output", output}, {"largest_difference", error}}, text);
  return 0;
}

namespace {

bool newer_names(const Json& args) {
  const std::string names = text_arg(args, "hf_names", "classic");
  if (names != "classic" && names != "v5")
    fail(ErrorCode::BadInput, "--hf-names {}: expected classic or v5", names);
  return names == "v5";
}

/// Where a directory inside `fresh` is once `output` has taken its place.
std::string moved(const std::string& directory, const std::string& fresh,
                  const std::string& output) {
  return output + directory.substr(fresh.size());
}

}  // namespace

int run_export(const Json& args) {
  const std::string to = needed_arg(args, "to", "--to peft|hf");
  if (to == "hf") return run_merge(args);
  if (to != "peft")
    fail(ErrorCode::Unsupported, "export --to {}: this build writes peft and hf", to);
  const bool newer = newer_names(args);
  const std::string output = output_directory(args);
  const std::unique_ptr<Target> target = target_to_write(args);
  const std::string set =
      target->adaptation->sets().empty() ? "" : target->adaptation->sets().front();
  if (set.empty())
    fail(ErrorCode::BadInput, "{} holds no adapter to export", text_arg(args, "target"));
  if (target->adaptation->sets().size() > 1)
    fail(ErrorCode::BadInput,
         "export --to peft: {} adapters are given, and one is written; give one, or fold them all "
         "into the model with --to hf",
         target->adaptation->sets().size());
  FreshDirectory fresh(output);
  const PeftExport result =
      export_peft(*target->adaptation, target->model(), set, target->base_directory,
                  target->card.task, like_transformers(*target), fresh.path(), newer);
  TargetRequest written = plain_request(target->base_directory, result.directories);
  written.storage = target->card.storage;
  const double error = verify_export(*target, written);
  fresh.replace();
  Json directories = Json::array();
  for (const std::string& directory : result.directories)
    directories.push_back(moved(directory, fresh.path(), output));
  std::string text = format("PEFT adapter in {} (read back: outputs within {:.1g})",
                            join(directories.get<std::vector<std::string>>(), ", "), error);
  if (written.storage.kind != "full")
    text += format(
        "\nnote: it was trained on weights kept as {} codes; on the checkpoint's own weights its "
        "outputs differ a little",
        written.storage.kind);
  for (const std::string& note : result.notes) text += "\nnote: " + note;
  answer(args,
         Json{{"output", output},
              {"directories", directories},
              {"largest_difference", error},
              {"notes", result.notes}},
         text);
  return 0;
}

}  // namespace attune
