#include "tasks/text_task.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"
#include "metrics/classification.h"
#include "metrics/regression.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {

std::string TextTask::column_of(const Record& record, const std::string& role,
                                const std::vector<std::string>& defaults) const {
  const std::map<std::string, std::string>::const_iterator given = context_.columns.find(role);
  if (given != context_.columns.end()) return given->second;
  // A default name is a role too: {sentence1: question1} says where the first text is.
  for (const std::string& name : defaults) {
    const std::map<std::string, std::string>::const_iterator mapped = context_.columns.find(name);
    if (mapped != context_.columns.end()) return mapped->second;
  }
  for (const std::string& name : defaults)
    if (has_column(record, name)) return name;
  return defaults.front();
}

std::string TextTask::label_column(const Record& record) const {
  return column_of(record, "label", {"label", "labels", "score"});
}

void TextTask::prepare(const Dataset& train, const TaskContext& context) {
  context_ = context;
  labels_ = context.label_order.empty() ? LabelSet() : LabelSet(context.label_order);
  for (int64_t i = 0; i < train.size(); ++i) {
    const Record record = train.at(i);
    learn(record);
    check_row(record);
  }
  learned();
}

void TextTask::restore(const Json& state, const TaskContext& context) {
  context_ = context;
  if (state.contains("labels")) {
    labels_ = LabelSet(state["labels"].get<std::vector<std::string>>());
    labels_.finish(0);
  }
  if (context_.columns.empty() && state.contains("columns"))
    context_.columns = state["columns"].get<std::map<std::string, std::string>>();
  if (context_.max_length == 0) context_.max_length = state.value("max_length", int64_t{0});
}

Json TextTask::state() const {
  Json columns = Json::object();
  for (const std::pair<const std::string, std::string>& entry : context_.columns)
    columns[entry.first] = entry.second;
  return Json{
      {"labels", labels_.names()}, {"columns", columns}, {"max_length", context_.max_length}};
}

std::string TextTask::stratum(const Record& record) const {
  const std::string name = label_column(record);
  if (!has_column(record, name)) return "";
  const Json& value = column(record, name);
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void TextTask::check_length(const Record& record, Example& example, int64_t dropped) const {
  example.dropped = dropped;
  if (dropped > 0 && context_.error_when_too_long)
    fail(ErrorCode::BadInput,
         "{}: the text has {} tokens, {} more than data.max_length {}; shorten it, raise "
         "max_length, or set "
         "data.too_long: truncate",
         record.where(), static_cast<int64_t>(example.ids.size()) + dropped, dropped,
         context_.max_length);
}

TextTask::Texts TextTask::texts_of(const Record& record) const {
  const std::string second = column_of(record, "text_pair", {"text_pair", "sentence2"});
  Texts texts;
  texts.first = text_of(record, column_of(record, "text", {"text", "sentence1", "sentence"}));
  texts.pair = needs_pair_ || context_.columns.count("text_pair") > 0 || has_column(record, second);
  if (texts.pair) texts.second = text_of(record, second);
  return texts;
}

Example TextTask::encode(const Record& record, bool with_labels) const {
  EncodeOptions options;
  options.max_length = context_.max_length;
  options.offsets = false;
  const Texts texts = texts_of(record);
  Encoding encoding = texts.pair
                          ? context_.tokenizer->encode_pair(texts.first, texts.second, options)
                          : context_.tokenizer->encode(texts.first, options);
  Example example;
  example.ids = std::move(encoding.ids);
  example.types = std::move(encoding.type_ids);
  check_length(record, example, encoding.dropped);
  if (with_labels) label(record, example);
  return example;
}

Batch pack(const std::vector<Example>& examples) {
  std::vector<int64_t> lengths, ids;
  std::vector<int32_t> tokens, types;
  for (const Example& example : examples) {
    lengths.push_back(static_cast<int64_t>(example.ids.size()));
    ids.push_back(example.id);
    tokens.insert(tokens.end(), example.ids.begin(), example.ids.end());
    types.insert(types.end(), example.types.begin(), example.types.end());
  }
  Batch batch;
  Stream& stream = batch.streams["enc"];
  stream.rows = RowIndex::from_lengths(lengths);
  stream.ids = int32_tensor(tokens);
  stream.types = int32_tensor(types);
  batch.fields["example"] = int64_tensor(ids);
  return batch;
}

Batch TextTask::collate(const std::vector<Example>& examples) const {
  Batch batch = pack(examples);
  std::vector<int64_t> labels;
  std::vector<float> targets;
  for (const Example& example : examples) {
    labels.insert(labels.end(), example.labels.begin(), example.labels.end());
    targets.insert(targets.end(), example.targets.begin(), example.targets.end());
  }
  if (!labels.empty()) batch.fields["labels"] = int64_tensor(labels);
  if (!targets.empty())
    batch.fields["targets"] =
        float_tensor(targets).reshape({static_cast<int64_t>(examples.size()), -1});
  return batch;
}

std::vector<double> probabilities_of(const Tensor& logits, int64_t row) {
  const Tensor values = logits.select(0, row).to(at::kDouble).contiguous();
  const double* x = static_cast<const double*>(values.data_ptr());
  const int64_t count = values.numel();
  const double top = *std::max_element(x, x + count);
  std::vector<double> result;
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    result.push_back(std::exp(x[i] - top));
    sum += result.back();
  }
  for (double& value : result) value /= sum;
  return result;
}

Json label_scores(const std::vector<std::string>& names, const std::vector<double>& probabilities) {
  const size_t best = static_cast<size_t>(
      std::max_element(probabilities.begin(), probabilities.end()) - probabilities.begin());
  std::vector<size_t> order(names.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return probabilities[a] > probabilities[b]; });
  Json scores = Json::object();
  for (const size_t i : order) scores[names[i]] = probabilities[i];
  return Json{{"label", names[best]}, {"score", probabilities[best]}, {"scores", scores}};
}

void LabelTally::add(const Tensor& logits, const RowIndex&, const std::vector<Example>& examples) {
  const Tensor best = logits.argmax(1).contiguous();
  const int64_t* values = static_cast<const int64_t*>(best.data_ptr());
  for (size_t i = 0; i < examples.size(); ++i) {
    gold_.push_back(examples[i].labels.at(0));
    predicted_.push_back(values[i]);
  }
}

Json LabelTally::metrics() const {
  const ClassificationReport report =
      classification_report(gold_, predicted_, static_cast<int64_t>(names_.size()));
  Json types = Json::object();
  for (size_t i = 0; i < names_.size(); ++i)
    types[names_[i]] = Json{{"precision", report.precision[i]},
                            {"recall", report.recall[i]},
                            {"f1", report.f1[i]},
                            {"support", report.support[i]}};
  return Json{{"accuracy", report.accuracy},
              {"macro_f1", report.macro_f1},
              {"weighted_f1", report.weighted_f1},
              {"matthews", report.matthews},
              {"examples", gold_.size()},
              {"per_label", types},
              {"confusion", Json{{"labels", names_}, {"counts", report.confusion}}}};
}

void NumberTally::add(const Tensor& logits, const RowIndex&, const std::vector<Example>& examples) {
  const Tensor values = logits.to(at::kDouble).reshape({-1}).contiguous();
  for (size_t i = 0; i < examples.size(); ++i) {
    gold_.push_back(static_cast<double>(examples[i].targets.at(0)));
    predicted_.push_back(static_cast<const double*>(values.data_ptr())[i]);
  }
}

Json NumberTally::metrics() const {
  const RegressionReport report = regression_report(gold_, predicted_);
  Json result = Json::object();
  result["pearson"] = report.pearson ? Json(*report.pearson) : Json();
  result["spearman"] = report.spearman ? Json(*report.spearman) : Json();
  result["mse"] = report.mse;
  result["mae"] = report.mae;
  result["examples"] = gold_.size();
  return result;
}

}  // namespace attune
