#include "recipe/target.h"

#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "core/attachment.h"
#include "exchange/peft.h"
#include "nn/transformer.h"
#include "recipe/model_path.h"
#include "recipe/session.h"
#include "tensor/torch.h"

namespace attune {

std::string adapter_folder(const std::string& name) {
  for (const std::string& folder : {name + "/adapter", name})
    if (file_exists(folder + "/attune.json")) return folder;
  return "";
}

std::string base_of_adapter(const AdapterCard& card, const std::string& folder) {
  if (directory_exists(card.directory)) return card.directory;
  try {
    return find_model(card.base);
  } catch (const Error& error) {
    fail(ErrorCode::NotFound,
         "the adapter {} belongs to the model \"{}\", which is not there{}: {}", folder, card.base,
         card.directory.empty() ? "" : format(" (when it was trained: {})", card.directory),
         error.what());
  }
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
    fail(ErrorCode::BadInput, "--adapter {}: after the colon a number is expected, as in DIR:0.5",
         text);
  return {text.substr(0, colon), factor};
}

}  // namespace

std::string adapter_directory(const std::string& text) {
  const std::string directory = strength_of(text).directory;
  if (adapter_folder(directory).empty() && !is_peft(directory))
    fail(ErrorCode::NotFound, "--adapter {}: there is no adapter in {}", text, directory);
  return directory;
}

namespace {

/// The task that reads a checkpoint's own head.
std::string task_of_config(const Model& model) {
  const Json& config = model.config();
  const HeadRequest head = head_of_config(config);
  if (head.kind == HeadKind::Lm) return model.find("enc.embed.tok") != nullptr ? "seq2seq" : "lm";
  if (head.kind == HeadKind::Token) return "tag";
  if (head.kind != HeadKind::Sequence) return "";
  const std::string problem = config.contains("problem_type") && config["problem_type"].is_string()
                                  ? config["problem_type"].get<std::string>()
                                  : "";
  if (problem == "regression" || head.labels == 1) return "regress";
  return problem == "multi_label_classification" ? "classify_multi" : "classify";
}

bool reads_images(const Model& model) {
  const Transformer* transformer = dynamic_cast<const Transformer*>(&model);
  return transformer != nullptr && transformer->spec().first().front == FrontEnd::Patches;
}

void make_task(Target& target, const TargetRequest& request) {
  const Json& config = target.model().config();
  std::string name = !target.card.task.empty() ? target.card.task : request.task;
  if (name.empty()) name = task_of_config(target.model());
  if (name == "classify" && reads_images(target.model())) name = "image";
  if (name.empty()) {
    if (request.need_task)
      fail(ErrorCode::BadInput,
           "{} has no head that a task could read; give a RUN, or a checkpoint with a "
           "classification "
           "or tagging head (`attune tasks` lists the tasks)",
           request.name);
    return;
  }
  target.task = tasks().at(name).make(Options());
  TaskContext context;
  context.columns = request.columns;
  context.tokenizer = target.tokenizer.get();
  context.directory = target.base_directory;
  context.max_length =
      target.task->default_length(config.value("max_position_embeddings", int64_t{0}));
  const Transformer* model = dynamic_cast<const Transformer*>(&target.model());
  if (const int64_t longest = model == nullptr ? 0 : model->longest_text(); longest > 0)
    context.max_length = std::min(context.max_length, longest);
  if (!target.card.task.empty())
    context.max_length = target.card.task_state.value("max_length", context.max_length);
  Json state =
      target.card.task.empty() ? Json{{"labels", label_names(config)}} : target.card.task_state;
  if (!context.columns.empty()) state.erase("columns");
  target.task->restore(state, context);
}

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",  "vocab.txt",
                                           "vocab.json",      "spiece.model",
                                           "tokenizer.model", "sentencepiece.bpe.model"};

bool has_tokenizer(const std::string& directory) {
  for (const char* name : kTokenizerFiles)
    if (file_exists(directory + "/" + name)) return true;
  return false;
}

/// A tokenizer that is not read fails where text is to be read, for all that the target needs one.
void load_tokenizer(Target& target, bool need_task) {
  if (!has_tokenizer(target.base_directory)) return;
  try {
    target.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(target.base_directory));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::Unsupported || need_task || !target.card.task.empty()) throw;
    target.tokenizer_error = error.what();
  }
}

/// Where a target's model, adapter and head come from, before anything large is read.
struct Sources {
  std::string folder;     // of the attune.json that says how the model was built; "" when none does
  std::string directory;  // of the base checkpoint
  std::string peft;  // of the PEFT adapter that `name` is; PEFT's files beside ours do not count
  LoadOptions load;
};

/// The head that an adapter of ours was trained with.
void head_of_card(const AdapterCard& card, LoadOptions& load) {
  load.seed = card.seed;
  const std::unique_ptr<Task> task = tasks().at(card.task).make(Options());
  task->restore(card.task_state, {});
  load.own_head = true;
  load.head = task->head();
  load.head.pool = card.pool.empty() ? "auto" : card.pool;
  load.head.anew = card.new_head;
}

/// PEFT's classifier decides the head when the base checkpoint has none, or another.
void head_of_peft(const std::string& adapter, const std::string& directory, LoadOptions& load) {
  const HeadRequest wanted = read_peft_card(adapter).head;
  const HeadRequest base = head_of_config(read_json(directory + "/config.json"));
  load.own_head = wanted.kind != HeadKind::None && wanted.labels > 0 &&
                  (base.kind != wanted.kind || base.labels != wanted.labels);
  if (load.own_head) load.head = wanted;
}

Sources find_sources(const TargetRequest& request, Target& target) {
  Sources sources;
  sources.load.numerics = numerics_of(request.precision);
  const std::string first =
      request.adapters.empty() ? "" : strength_of(request.adapters[0]).directory;
  sources.folder = adapter_folder(request.name);
  if (!sources.folder.empty()) {
    target.run = request.name;
  } else if (!first.empty()) {
    sources.folder = adapter_folder(first);
  }
  if (sources.folder.empty() && file_exists(request.name + "/recipe.yaml"))
    fail(ErrorCode::NotFound,
         "{} is a run that has not finished: it has no adapter yet; `attune resume {}` goes on "
         "with it",
         request.name, request.name);
  if (!sources.folder.empty()) {
    target.card = read_adapter_card(sources.folder);
    head_of_card(target.card, sources.load);
  }
  if (target.run.empty() && is_peft(request.name)) sources.peft = request.name;
  if (!target.run.empty()) {
    sources.directory = base_of_adapter(target.card, sources.folder);
  } else {
    sources.directory =
        find_model(sources.peft.empty() ? request.name : read_peft_card(sources.peft).base_model);
  }
  const std::string classifier = sources.peft.empty() ? first : sources.peft;
  if (!sources.load.own_head && !classifier.empty() && is_peft(classifier))
    head_of_peft(classifier, sources.directory, sources.load);
  return sources;
}

/// Loads an adapter of ours or of PEFT into a set.
void attach_adapter(Target& target, const std::string& set, const std::string& directory) {
  const std::string ours = adapter_folder(directory);
  if (ours.empty()) {
    load_peft(*target.adaptation, target.model(), set, directory);
    return;
  }
  if (target.loaded.fingerprint.empty())
    target.loaded.fingerprint = checkpoint_fingerprint(target.base_directory);
  load_adapter(*target.adaptation, set, ours, target.loaded.fingerprint);
}

/// One adapter of several that act together.
struct Acting {
  std::string set, directory;
};

/// Labels are numbered by the card that the task is made from.
void check_labels(const Target& target, const std::string& first, const std::string& other) {
  const std::string ours = adapter_folder(other);
  if (ours.empty() || !target.card.task_state.is_object()) return;
  const Json here = target.card.task_state.value("labels", Json::array());
  const Json there = read_adapter_card(ours).task_state.value("labels", Json::array());
  if (here.empty() || there.empty() || here == there) return;
  fail(ErrorCode::BadInput,
       "the adapters {} and {} do not number the same labels alike: {} and {}; give one of them at "
       "a time, or train both with the same labels in the same order (init_from takes them over)",
       first, other, here.dump(), there.dump());
}

/// Changes of base tensors add up; of a tensor that the checkpoint lacks there can be one value.
void check_heads(const Target& target, const std::vector<Acting>& adapters) {
  std::map<std::string, std::pair<Tensor, std::string>> heads;  // by name: value, whose
  for (const Acting& adapter : adapters) {
    for (const Recorder* recorder : target.adaptation->recorders(adapter.set)) {
      for (const Owned& owned : recorder->owned()) {
        if (owned.role != Owned::Role::Thawed) continue;
        const Site& site = target.loaded.model->sites()[static_cast<size_t>(owned.site)];
        if (!target.loaded.model->slot(site).fresh) continue;
        const auto& [value, whose] =
            heads.try_emplace(owned.name, owned.value, adapter.directory).first->second;
        if (!at::equal(value.detach(), owned.value.detach()))
          fail(ErrorCode::BadInput,
               "the adapters {} and {} each have a head of their own ({}), and only one can act; "
               "give one of them at a time",
               whose, adapter.directory, owned.name);
      }
    }
  }
}

}  // namespace

void Target::check_text(const std::string& where) const {
  if (!tokenizer_error.empty())
    fail(ErrorCode::Unsupported, "{}: reading text: {}; or give input_ids", where, tokenizer_error);
}

std::unique_ptr<Target> open_target(const TargetRequest& request) {
  std::unique_ptr<Target> target = std::make_unique<Target>();
  target->methods = methods();
  const Sources sources = find_sources(request, *target);
  target->base_directory = sources.directory;
  target->loaded = load_model(sources.directory, sources.load);
  store(target->model(), sources.folder.empty() ? request.storage : target->card.storage);
  load_tokenizer(*target, request.need_task);
  target->adaptation =
      std::make_unique<Adaptation>(target->model(), target->methods, sources.load.seed);
  std::vector<Acting> acting;
  if (!target->run.empty() || !sources.peft.empty()) acting.push_back({"default", request.name});
  std::vector<double> factors(acting.size(), 1);
  for (size_t i = 0; i < request.adapters.size(); ++i) {
    const Strength strength = strength_of(request.adapters[i]);
    acting.push_back({format("adapter{}", i + 1), strength.directory});
    factors.push_back(strength.factor);
  }
  for (size_t i = 0; i < acting.size(); ++i) {
    if (i > 0) check_labels(*target, acting[0].directory, acting[i].directory);
    attach_adapter(*target, acting[i].set, acting[i].directory);
    if (factors[i] != 1) target->adaptation->scale(acting[i].set, factors[i]);
  }
  check_heads(*target, acting);
  const bool readable = target->tokenizer != nullptr || reads_images(target->model());
  if (!readable && request.need_task)
    fail(ErrorCode::NotFound,
         "{} has no tokenizer, so its task cannot read text; looked for {}; put the tokenizer's "
         "files into {}",
         request.name, join({std::begin(kTokenizerFiles), std::end(kTokenizerFiles)}, ", "),
         sources.directory);
  if (readable) make_task(*target, request);
  return target;
}

}  // namespace attune
