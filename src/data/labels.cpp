#include "data/labels.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"

namespace attune {
namespace {

bool whole_number(std::string_view text, int64_t& value) {
  const std::from_chars_result result =
      std::from_chars(text.data(), text.data() + text.size(), value);
  // "007" is a code, not the number 7.
  return result.ec == std::errc() && result.ptr == text.data() + text.size() &&
         std::to_string(value) == text;
}

/// Whether one whole number is less than another, of any length, as JSON writes them.
bool smaller(const std::string& a, const std::string& b) {
  const bool negative = a.front() == '-';
  if (negative != (b.front() == '-')) return negative;
  if (a.size() != b.size()) return (a.size() < b.size()) != negative;
  return negative ? b < a : a < b;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 20;
  const std::vector<std::string> shown(
      names.begin(), names.begin() + static_cast<int64_t>(std::min(names.size(), kShown)));
  return join(shown, ", ") +
         (names.size() > kShown ? format(" and {} more", names.size() - kShown) : std::string());
}

}  // namespace

LabelSet::LabelSet(std::vector<std::string> order)
    : ordered_(!order.empty()), names_(std::move(order)) {
  rebuild();
  if (ids_.size() != names_.size())
    fail(ErrorCode::BadInput, "the given order of labels names one twice: {}", listed(names_));
  counts_.assign(names_.size(), 0);
}

void LabelSet::rebuild() {
  ids_.clear();
  int64_t number = 0;
  for (size_t i = 0; i < names_.size(); ++i) {
    ids_.emplace(names_[i], static_cast<int64_t>(i));
    some_whole_ = some_whole_ || whole_number(names_[i], number);
  }
}

LabelSet::Value LabelSet::read(const Record& record, const std::string& column, const Json& value) {
  int64_t number = 0;
  if (value.is_number_integer()) return {value.dump(), true, true};
  if (value.is_boolean()) return {value.get<bool>() ? "true" : "false", false, true};
  if (!value.is_string())
    fail(ErrorCode::BadInput,
         "{}: column \"{}\": expected a label (text or a whole number), found {}", record.where(),
         column, describe(value));
  const std::string& text = value.get_ref<const std::string&>();
  if (trim(text).empty())
    fail(ErrorCode::BadInput, "{}: column \"{}\": the label is empty", record.where(), column);
  const bool whole = whole_number(text, number);
  // In a file of mere text "3" is as much a number as it can be; in JSON, "3" in quotes is text by
  // intent.
  return {text, whole, whole && !record.typed};
}

std::vector<LabelSet::Value> LabelSet::values_of(const Record& record, const std::string& name) {
  const Json& found = column(record, name);
  std::vector<Value> values;
  if (!found.is_array()) return {read(record, name, found)};
  for (const Json& item : found) values.push_back(read(record, name, item));
  return values;
}

void LabelSet::check_kind(const Value& value, const Record& record, const std::string& name) {
  std::string& mine = value.number ? number_at_ : text_at_;
  if (mine.empty()) mine = format("{} ({})", record.where(), value.text);
  if (number_at_.empty() || text_at_.empty()) return;
  fail(ErrorCode::BadInput,
       "column \"{}\" is a number at {} and text at {}; expected one kind: correct the rows, or "
       "list "
       "the labels in the recipe",
       name, number_at_, text_at_);
}

void LabelSet::add(const Record& record, const std::string& name) {
  for (const Value& value : values_of(record, name)) {
    if (!ordered_) check_kind(value, record, name);
    int64_t id = find(value.text);
    if (id < 0 && ordered_)
      fail(ErrorCode::BadInput, "label \"{}\" at {} is none of the given labels; known: {}",
           value.text, record.where(), listed(names_));
    if (id < 0) {
      id = size();
      names_.push_back(value.text);
      counts_.push_back(0);
      ids_.emplace(value.text, id);
      whole_ = whole_ && value.whole;
    }
    ++counts_[static_cast<size_t>(id)];
  }
}

void LabelSet::finish(int64_t at_least) {
  if (size() < at_least)
    fail(ErrorCode::BadInput,
         "the training data has {} different label{}{}{}; expected at least {}: is this the right "
         "column?",
         size(), size() == 1 ? "" : "s", size() == 0 ? "" : ": ", listed(names_), at_least);
  if (ordered_ || !whole_) return;
  std::vector<size_t> order(names_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const std::vector<std::string> names = names_;
  const std::vector<int64_t> counts = counts_;
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return smaller(names[a], names[b]); });
  for (size_t i = 0; i < order.size(); ++i) {
    names_[i] = names[order[i]];
    counts_[i] = counts[order[i]];
  }
  rebuild();
}

int64_t LabelSet::find(std::string_view label) const {
  const std::map<std::string, int64_t, std::less<>>::const_iterator found = ids_.find(label);
  if (found != ids_.end()) return found->second;
  int64_t number = 0;
  const bool id = ordered_ && !some_whole_ && whole_number(label, number);
  return id && number >= 0 && number < size() ? number : -1;
}

void LabelSet::fail_unknown(std::string_view label, std::string_view where) const {
  fail(ErrorCode::BadInput, "label \"{}\" at {} does not occur in the training data; known: {}",
       label, where, listed(names_));
}

int64_t LabelSet::id(const Record& record, const std::string& name) const {
  const Value value = read(record, name, column(record, name));
  const int64_t found = find(value.text);
  if (found < 0) fail_unknown(value.text, record.where());
  return found;
}

std::vector<int64_t> LabelSet::ids(const Record& record, const std::string& name) const {
  std::vector<int64_t> result;
  for (const Value& value : values_of(record, name)) {
    result.push_back(find(value.text));
    if (result.back() < 0) fail_unknown(value.text, record.where());
  }
  return result;
}

int64_t LabelSet::id_of(std::string_view label, std::string_view where) const {
  const std::map<std::string, int64_t, std::less<>>::const_iterator found = ids_.find(label);
  if (found == ids_.end()) fail_unknown(label, where);
  return found->second;
}

}  // namespace attune
