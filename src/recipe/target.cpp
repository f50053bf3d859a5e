#include "recipe/target.h"

#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "exchange/peft.h"
#include "nn/transformer.h"
#include "recipe/model_path.h"
#include "recipe/session.h"

namespace attune {

std::string adapter_folder(const std::string& name) {
  for (const std::string& folder : {name + "/adapter", name})
    if (file_exists(folder + "/attune.json")) return folder;
  return "";
}

namespace {

struct Strength {
  std::string directory;
  double factor = 1;
};

/// "DIR:0.5" -> DIR and 0.5.
Strength strength_of(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || directory_exists(text)) return {text, 1};
  char* end = nullptr;
  const double factor = std::strtod(text.c_str() + colon + 1, &end);
  if (*end != '\0' || end == text.c_str() + colon + 1)
    fail(ErrorCode::BadInput, "--adapter {}: after the colon a number is expected, as in DIR:0.5", text);
  return {text.substr(0, colon), factor};
}

std::vector<std::string> labels_of_config(const Json& config) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < label_count(config); ++i) {
    const std::string key = std::to_string(i);
    names.push_back(config.contains("id2label") && config["id2label"].contains(key)
                        ? config["id2label"][key].get<std::string>()
                        : "LABEL_" + key);
  }
  return names;
}

/// The task that reads a checkpoint's own head.
std::string task_of_config(const Json& config) {
  const HeadRequest head = head_of_config(config);
  if (head.kind == HeadKind::Token) return "tag";
  if (head.kind != HeadKind::Sequence) return "";
  const std::string problem = config.contains("problem_type") && config["problem_type"].is_string()
                                  ? config["problem_type"].get<std::string>()
                                  : "";
  if (problem == "regression" || head.labels == 1) return "regress";
  return problem == "multi_label_classification" ? "classify_multi" : "classify";
}

void make_task(Target& target, const TargetRequest& request) {
  const Json& config = target.model().config();
  std::string name = !target.card.task.empty() ? target.card.task : request.task;
  if (name.empty()) name = task_of_config(config);
  if (name.empty()) {
    if (request.need_task)
      fail(ErrorCode::BadInput, "{} has no head that a task could read; give a RUN, or a checkpoint with a classification "
           "or tagging head (`attune tasks` lists the tasks)", request.name);
    return;
  }
  target.task = tasks().at(name).make(Options());
  TaskContext context;
  context.columns = request.columns;
  context.tokenizer = target.tokenizer.get();
  context.max_length = config.value("max_position_embeddings", int64_t{0});
  if (!target.card.task.empty()) context.max_length = target.card.task_state.value("max_length", context.max_length);
  Json state = target.card.task.empty() ? Json{{"labels", labels_of_config(config)}} : target.card.task_state;
  if (!context.columns.empty()) state.erase("columns");
  target.task->restore(state, context);
}

/// The base checkpoint of an adapter: as it was named, else beside the run.
std::string base_directory_of(const AdapterCard& card, const std::string& folder) {
  try {
    return find_model(card.base);
  } catch (const Error& error) {
    fail(ErrorCode::NotFound, "the adapter {} belongs to the model \"{}\", which is not there: {}", folder, card.base,
         error.what());
  }
}

}  // namespace

std::unique_ptr<Target> open_target(const TargetRequest& request) {
  std::unique_ptr<Target> target = std::make_unique<Target>();
  target->methods = methods();
  std::string folder = adapter_folder(request.name);
  if (!folder.empty()) {
    target->run = request.name;
  } else if (!request.adapters.empty()) {
    folder = adapter_folder(strength_of(request.adapters[0]).directory);
  }
  if (folder.empty() && file_exists(request.name + "/recipe.yaml"))
    fail(ErrorCode::NotFound, "{} is a run that has not finished: it has no adapter yet; `attune resume {}` goes on with it",
         request.name, request.name);
  LoadOptions options;
  options.numerics = numerics_of(request.precision);
  if (!folder.empty()) {
    target->card = read_adapter_card(folder);
    options.seed = target->card.seed;
    const std::unique_ptr<Task> task = tasks().at(target->card.task).make(Options());
    task->restore(target->card.task_state, {});
    options.own_head = true;
    options.head = task->head();
    options.head.pool = target->card.pool.empty() ? "auto" : target->card.pool;
  }
  std::string directory = request.name;
  if (!target->run.empty()) directory = base_directory_of(target->card, folder);
  const bool ours = !adapter_folder(request.name).empty();  // PEFT's files may stand beside ours: ours are read
  std::string peft = !ours && is_peft(request.name) ? request.name : "";
  if (!peft.empty()) {
    directory = find_model(read_peft_card(peft).base_model);
  } else if (target->run.empty()) {
    directory = find_model(request.name);
    if (!request.adapters.empty() && is_peft(strength_of(request.adapters[0]).directory))
      peft = strength_of(request.adapters[0]).directory;
  }
  if (!peft.empty() && !options.own_head) {
    // The adapter's own classifier decides the head when the base checkpoint has none.
    const PeftCard card = read_peft_card(peft);
    const bool bare = head_of_config(read_json(directory + "/config.json")).kind == HeadKind::None;
    options.own_head = bare && card.head.labels > 0;
    if (options.own_head) options.head = card.head;
  }
  target->base_directory = directory;
  target->loaded = load_model(directory, options);
  if (file_exists(directory + "/tokenizer.json") || file_exists(directory + "/vocab.txt"))
    target->tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(directory));
  target->adaptation = std::make_unique<Adaptation>(target->model(), target->methods, options.seed);
  if (!target->run.empty()) {
    target->loaded.fingerprint = checkpoint_fingerprint(directory);
    load_adapter(*target->adaptation, "default", folder, target->loaded.fingerprint);
  }
  if (!ours && is_peft(request.name)) load_peft(*target->adaptation, target->model(), "default", request.name);
  for (size_t i = 0; i < request.adapters.size(); ++i) {
    const Strength strength = strength_of(request.adapters[i]);
    const std::string set = format("adapter{}", i + 1);
    const std::string ours = adapter_folder(strength.directory);
    if (!ours.empty()) {
      if (target->loaded.fingerprint.empty()) target->loaded.fingerprint = checkpoint_fingerprint(directory);
      load_adapter(*target->adaptation, set, ours, target->loaded.fingerprint);
    } else {
      load_peft(*target->adaptation, target->model(), set, strength.directory);
    }
    if (strength.factor != 1) target->adaptation->scale(set, strength.factor);
  }
  if (target->tokenizer != nullptr) make_task(*target, request);
  return target;
}

}  // namespace attune
