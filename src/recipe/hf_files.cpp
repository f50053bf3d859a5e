#include "recipe/hf_files.h"

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "nn/transformer.h"
#include "recipe/model_path.h"

namespace attune {

namespace fs = std::filesystem;

namespace {

/// "LlamaForCausalLM", "T5ForConditionalGeneration".
std::string language_class(const ModelSpec& spec) {
  std::string name = spec.head.body_class;
  for (const char* ending : {"Model", "Encoder"})
    if (ends_with(name, ending)) name.resize(name.size() - std::string(ending).size());
  return name + (spec.stacks.size() > 1 ? "ForConditionalGeneration" : "ForCausalLM");
}

}  // namespace

Json head_config(const Model& model, const Task* task) {
  Json config = Json::object();
  const Transformer* transformer = dynamic_cast<const Transformer*>(&model);
  if (task == nullptr || transformer == nullptr || transformer->spec().head.kind == HeadKind::None)
    return config;
  const HeadSpec& head = transformer->spec().head;
  // Transformers' sequence class pools by its pooler only; another way is kept as a plain body with
  // our own head.
  const bool ours = head.ours;
  if (head.kind == HeadKind::Lm) {
    config["architectures"] = {language_class(transformer->spec())};
    return config;
  }
  if (head.kind == HeadKind::Token) config["architectures"] = {head.token_class};
  if (head.kind == HeadKind::Sequence)
    config["architectures"] = {ours ? head.body_class : head.sequence_class};
  Json id2label = Json::object(), label2id = Json::object();
  for (size_t i = 0; i < task->labels().size(); ++i) {
    id2label[std::to_string(i)] = task->labels()[i];
    label2id[task->labels()[i]] = i;
  }
  if (task->labels().empty()) {
    id2label["0"] = "LABEL_0";
    label2id["LABEL_0"] = 0;
  }
  config["id2label"] = id2label;
  config["label2id"] = label2id;
  if (head.kind == HeadKind::Sequence)
    config["problem_type"] = task->regression() ? "regression"
                             : task->objective() == "binary_cross_entropy"
                                 ? "multi_label_classification"
                                 : "single_label_classification";
  if (ours) config["attune_pool"] = head.pool_name;
  return config;
}

void write_merged(Model& model, Adaptation& adaptation, const Task* task, const std::string& base,
                  const std::string& directory,
                  const std::function<void(const std::string&)>& check) {
  for (const std::string& set : adaptation.sets()) adaptation.merge(set);
  FreshDirectory fresh(directory);
  write_model(model, base, fresh.path(), head_config(model, task));
  for (const char* folder : {"1_Pooling", "2_Normalize"})
    if (directory_exists(base + "/" + folder))
      fs::copy(base + "/" + folder, fresh.path() + "/" + folder, fs::copy_options::recursive);
  for (const char* name :
       {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"})
    if (file_exists(base + "/" + name))
      write_file_atomic(fresh.path() + "/" + name, read_file(base + "/" + name));
  adaptation.unmerge();
  if (check) check(fresh.path());
  fresh.replace();
}

void write_run_model(Session& session, const std::string& run) try {
  write_merged(session.model(), session.adaptation(), &session.task(),
               find_model(session.recipe().model), run + "/model");
} catch (const Error& error) {
  if (error.code() != ErrorCode::Unsupported) throw;
  log_warning(
      "there is no {}/model, since a plain checkpoint cannot hold these methods ({}). "
      "{}/adapter has all that was trained",
      run, error.what(), run);
}

}  // namespace attune
