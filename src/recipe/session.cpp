#include "recipe/session.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "data/split.h"
#include "exchange/peft.h"
#include "kernels/gemm.h"
#include "nn/transformer.h"
#include "policies/registry.h"
#include "recipe/model_path.h"
#include "recipe/open_data.h"
#include "recipe/rates.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Numerics numerics_of(const std::string& precision) {
  if (precision == "auto")
    return {kernels::has_native_bf16() ? kernels::DType::BF16 : kernels::DType::F32};
  if (precision == "fp32") return {kernels::DType::F32};
  if (precision == "fp64") return {kernels::DType::F64};
  if (precision != "bf16")
    fail(ErrorCode::BadInput, "precision \"{}\" is unknown; choose auto, fp32, bf16 or fp64",
         precision);
  if (!kernels::has_native_bf16())
    fail(ErrorCode::Unsupported,
         "precision bf16: this CPU has no AVX-512 BF16 or AMX; choose fp32 (auto does)");
  return {kernels::DType::BF16};
}

Session::Session(Recipe recipe)
    : recipe_(std::move(recipe)), task_registry_(tasks()), method_registry_(methods()) {
  model_directory_ = find_model(recipe_.model);
  for (const NamedOptions& method : recipe_.methods)
    Options(method_registry_.at(method.name).options,
            Node::from_json(method.options, {method.path, 0, 0}), method.name);
  task_ = task_registry_.at(recipe_.task).make(Options());
  if (task_->reads_text())
    tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::load(model_directory_));
  open_data();
  make_task();
  if (start_) start_->check_base(fingerprint(), recipe_.model, model_directory_);
  make_model();
  attach();
  make_room();
  if (start_) start_->fill(*adaptation_, start_head_);
}

void Session::open_data() {
  train_ = DataView::all(open_files(recipe_.train, recipe_));
  if (!recipe_.eval.empty()) eval_ = DataView::all(open_files(recipe_.eval, recipe_));
  for (const DataFile& file : recipe_.eval_on)
    eval_on_.push_back({file.name, DataView::all(open_files({file}, recipe_))});
}

void Session::make_task() {
  TaskContext context;
  context.columns = recipe_.columns;
  context.tokenizer = tokenizer_.get();
  context.directory = model_directory_;
  context.error_when_too_long = recipe_.too_long == "error";
  if (recipe_.too_long == "stride")
    fail(ErrorCode::Unsupported,
         "data.too_long: stride belongs to question answering, which is not built yet; "
         "choose truncate or error");
  const Json config = read_json(model_directory_ + "/config.json");
  const int64_t positions = config.value("max_position_embeddings", int64_t{0});
  context.max_length =
      recipe_.max_length > 0 ? recipe_.max_length : task_->default_length(positions);
  if (positions > 0 && context.max_length > positions)
    fail(ErrorCode::BadInput, "data.max_length: {} is more than the {} positions of {}",
         context.max_length, positions, recipe_.model);
  max_length_ = context.max_length;
  task_->prepare(train_.data, context);
  if (!recipe_.init_from.empty()) take_labels(context);
  if (start_head_)
    new_head_ = start_->new_head();
  else
    meet_head(config, context);
  view_windows();
  if (recipe_.eval_share > 0) {
    std::vector<std::string> strata;
    for (int64_t i = 0; i < train_.size(); ++i) strata.push_back(task_->stratum(train_.at(i)));
    const Split parts = split(strata, recipe_.eval_share, recipe_.seed);
    eval_ = train_;
    const auto take = [](DataView& view, const std::vector<int64_t>& chosen) {
      std::vector<int64_t> rows;
      for (const int64_t i : chosen) rows.push_back(view.rows[static_cast<size_t>(i)]);
      view.rows = std::move(rows);
    };
    take(eval_, parts.eval);
    take(train_, parts.train);
  }
}

/// Where the task's examples are not rows, the views are of those.
void Session::view_windows() {
  train_ = DataView::of(*task_, train_.data);
  if (eval_.size() > 0) eval_ = DataView::of(*task_, eval_.data);
  for (NamedView& set : eval_on_) set.view = DataView::of(*task_, set.view.data);
}

/// A checkpoint that answers with labels already keeps its head and their order where they take in
/// those of the data; for others a new head is drawn, whatever the shape of the old one.
void Session::meet_head(const Json& config, TaskContext& context) {
  const HeadRequest own = head_of_config(config), wanted = task_->head();
  const auto answers = [](const HeadRequest& head) {
    return head.kind == HeadKind::Sequence || head.kind == HeadKind::Token;
  };
  if (!answers(own) || !answers(wanted)) return;
  const std::vector<std::string> names = label_names(config), labels = task_->labels();
  const std::set<std::string> named(names.begin(), names.end());
  const bool unique = named.size() == names.size();
  const bool by_name =
      unique && std::all_of(labels.begin(), labels.end(),
                            [&](const std::string& label) { return named.count(label) > 0; });
  bool by_index = labels.size() == names.size();
  for (size_t i = 0; by_index && i < labels.size(); ++i) by_index = labels[i] == std::to_string(i);
  new_head_ = own.kind != wanted.kind || !(by_name || by_index || labels.empty());
  // Numbers stay what they are called where the head has no names for them.
  const bool nameless = !by_name && (!unique || named.count("LABEL_0") > 0);
  if (new_head_ || nameless || labels.empty() || names == labels) return;
  context.label_order = names;
  task_->prepare(train_.data, context);
}

/// A run that starts from another keeps its labels, in its order, where they are enough.
void Session::take_labels(TaskContext& context) {
  start_ = std::make_unique<WarmStart>(recipe_.init_from);
  const std::vector<std::string> labels = task_->labels();
  context.label_order = start_->labels_for(recipe_.task, labels);
  start_head_ = labels.empty() || !context.label_order.empty();
  if (!context.label_order.empty() && context.label_order != labels)
    task_->prepare(train_.data, context);
}

void Session::make_model() {
  LoadOptions options;
  options.numerics = numerics_of(recipe_.precision);
  options.numerics.recompute = recipe_.recompute;
  options.own_head = true;
  options.head = task_->head();
  options.head.pool = recipe_.pool;
  options.head.dropout = recipe_.head_dropout;
  options.head.anew = new_head_;
  options.seed = value_seed();
  const std::string known = loaded_.fingerprint;
  loaded_ = load_model(model_directory_, options);
  loaded_.fingerprint = known;
  stored_ = store(*loaded_.model, recipe_.storage);
  task_->check(*loaded_.model);
  if (tokenizer_ == nullptr) return;
  loaded_.model->encode_text = [this](const std::string& text) {
    EncodeOptions plain;
    plain.add_special_tokens = false;
    return tokenizer_->encode(text, plain).ids;
  };
}

void Session::attach() {
  adaptation_ = std::make_unique<Adaptation>(*loaded_.model, method_registry_, value_seed());
  if (recipe_.methods.empty()) adaptation_->add("default", {"full", Json::object()});
  for (const NamedOptions& method : recipe_.methods)
    adaptation_->add("default", {method.name, method.options}, method.path);
  // A head that the checkpoint lacks always trains, whatever the methods say.
  adaptation_->add("default", {"head", Json{{"fresh_only", true}}});
  adaptation_->check_outputs("default");
  make_objective();
  const Registry<TrainingPolicy> policy_registry = policies();
  std::vector<NamedOptions> chosen = settle_rates();
  chosen.insert(chosen.begin(), recipe_.policies.begin(), recipe_.policies.end());
  for (const NamedOptions& policy : chosen) {
    const Entry<TrainingPolicy>& found = policy_registry.at(policy.name);
    policies_.push_back(found.make(
        Options(found.options, Node::from_json(policy.options, {policy.path, 0, 0}), policy.name)));
  }
}

/// Where positions are a table, texts leave room in it for the rows that methods put in front.
void Session::make_room() {
  const Transformer* model = dynamic_cast<const Transformer*>(loaded_.model.get());
  if (model == nullptr || model->spec().first().positions != PositionScheme::Learned) return;
  const int64_t longest = model->longest_text(), positions = model->spec().first().max_positions -
                                                             model->spec().first().position_offset;
  if (!task_->reads_text() || (max_length_ > 0 && max_length_ <= longest)) return;
  if (recipe_.max_length > 0 || longest < 1)
    fail(
        ErrorCode::BadInput,
        "data.max_length: {} tokens and the {} rows that the methods put in front of them are more "
        "than the {} positions of {}; {}",
        max_length_, positions - longest, positions, recipe_.model,
        longest < 1 ? "give the methods fewer rows" : format("give {} at most", longest));
  recipe_.max_length = longest;
  make_task();
}

/// Rates by method become the optimizer's and policies beside the recipe's own, and stand in the
/// recipe.
std::vector<NamedOptions> Session::settle_rates() {
  rate_ = recipe_.lr;
  if (recipe_.lr > 0) return {};
  const std::vector<Site>& sites = loaded_.model->sites();
  int64_t width = 0;
  for (const Site& site : sites)
    if (ends_with(site.name, ".resid.out")) width = std::max(width, site.out);
  const Rates rates = rates_of(recipe_, method_registry_, adaptation_->trainable(), width);
  rate_ = rates.lr;
  recipe_.rates = rates.by_name;
  rates_line_ = rates.line;
  return rates.policies;
}

/// Which metrics a task has shows when it measures something: one row of the set is enough.
void Session::check_best() {
  const std::string name = train_config().best_metric;
  if (name.empty()) return;
  DataView one = eval_;
  for (const NamedView& set : eval_on_)
    if (name.starts_with(set.name + "/")) one = set.view;
  one.rows.resize(1);
  constexpr int64_t kTokens = 4096;
  const Json metrics = evaluate(*loaded_.model, *task_, one, kTokens);
  if (metrics.contains(metric_name(name))) return;
  std::vector<std::string> known;
  for (const auto& [metric, value] : metrics.items())
    if (!value.is_structured() && metric != "examples") known.push_back(metric);
  fail(ErrorCode::BadInput, "train.best: the task {} has no metric \"{}\";{}", recipe_.task,
       metric_name(name), suggestion(metric_name(name), known));
}

void Session::check_rows() {
  check_best();
  if (!recipe_.eval.empty())
    for (int64_t i = 0; i < eval_.size(); ++i) eval_.encode(*task_, i, true);
  for (const NamedView& set : eval_on_)
    for (int64_t i = 0; i < set.view.size(); ++i) set.view.encode(*task_, i, true);
  if (recipe_.too_long == "error")
    for (int64_t i = 0; i < train_.size(); ++i) train_.encode(*task_, i, true);
}

TrainConfig Session::train_config() const {
  TrainConfig config;
  config.epochs = recipe_.epochs;
  config.steps = recipe_.steps;
  config.minutes = recipe_.minutes;
  config.batches.batch_size = recipe_.batch_size;
  config.batches.batch_tokens = recipe_.batch_size > 0 ? 0 : recipe_.batch_tokens;
  if (!task_->reads_text()) config.batches.window = kLargeExamples;
  config.batches.mixture = mixture_of(train_, recipe_.train);
  config.accumulate = recipe_.accumulate;
  config.adamw = {recipe_.beta1, recipe_.beta2, recipe_.eps, recipe_.weight_decay};
  config.lr = rate_;
  config.schedule = recipe_.schedule;
  config.clip = recipe_.clip;
  config.eval_every = recipe_.eval_every;
  config.save_every = recipe_.save_every;
  config.log_every = recipe_.log_every;
  config.keep = recipe_.keep;
  config.best_metric = recipe_.best_metric == "auto" ? task_->main_metric() : recipe_.best_metric;
  const bool of_a_set = config.best_metric.find('/') != std::string::npos;
  if (eval_.size() == 0 && !of_a_set && !config.best_metric.empty())
    fail(ErrorCode::BadInput,
         "train.best needs evaluation data: give data.eval a file or a share such as 10%{}",
         eval_on_.empty() ? ""
                          : format(", or name a metric of eval_on, as in {}/{}",
                                   eval_on_.front().name, config.best_metric));
  config.patience = recipe_.patience;
  config.seed = recipe_.seed;
  return config;
}

const std::string& Session::fingerprint() {
  if (loaded_.fingerprint.empty()) loaded_.fingerprint = checkpoint_fingerprint(model_directory_);
  return loaded_.fingerprint;
}

AdapterCard Session::card() {
  AdapterCard card;
  card.base = recipe_.model;
  card.directory = std::filesystem::absolute(model_directory_).lexically_normal().string();
  card.fingerprint = fingerprint();
  card.task = recipe_.task;
  card.task_state = task_->state();
  card.pool = loaded_.report.pool;
  card.new_head = new_head_;
  card.seed = value_seed();
  card.storage = recipe_.storage;
  return card;
}

/// PEFT's files beside ours, where PEFT can express the methods; ours stay what is read back.
void Session::write_peft_beside(const std::string& folder) {
  const Transformer& model = dynamic_cast<const Transformer&>(*loaded_.model);
  const bool plain_head = !model.spec().head.ours;
  try {
    // A run stands for the checkpoint in it, which alone PEFT can open.
    const std::string& base = directory_exists(recipe_.model) ? model_directory_ : recipe_.model;
    export_peft(*adaptation_, *loaded_.model, "default", base, recipe_.task, plain_head, folder);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::Unsupported) throw;
  }
}

TrainParts Session::parts(const std::string& run) {
  return TrainParts{*loaded_.model,
                    *adaptation_,
                    *task_,
                    *objective_,
                    policies_,
                    train_,
                    eval_,
                    class_weights(),
                    run,
                    [this, run] {
                      save_adapter(
                          *adaptation_, "default", card(), run + "/adapter",
                          [this](const std::string& folder) { write_peft_beside(folder); });
                    },
                    eval_on_,
                    [this] { return sources(); }};
}

}  // namespace attune
