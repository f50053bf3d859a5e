#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/records.h"

namespace attune {

/// The labels of a task and their ids. First add() every training row, then finish(), then ask for
/// ids.
///
/// Order of ids: the given one (a checkpoint's id2label, or the recipe's list) when there is one;
/// numeric when all labels are whole numbers; otherwise by first appearance. A label column holds
/// text or whole numbers (true and false count as text); a list of them is several labels. With a
/// given order none of whose names is a whole number, those are taken as ids.
class LabelSet {
 public:
  LabelSet() = default;
  explicit LabelSet(std::vector<std::string> order);

  /// Errors: BadInput for a label that is neither text nor a whole number, for a column that is
  /// numeric in one row and text in another (names both), and for a label outside the given order.
  void add(const Record& record, const std::string& column);
  /// Errors: BadInput when fewer than `at_least` labels were found (and no order was given).
  void finish(int64_t at_least = 2);

  /// Id of the row's one label. Errors: BadInput, `label "x" at eval.jsonl:3 does not occur in the
  /// training data`.
  int64_t id(const Record& record, const std::string& column) const;
  /// Ids of the row's list of labels (one id for a single value).
  std::vector<int64_t> ids(const Record& record, const std::string& column) const;
  /// Id of a name. Errors: BadInput; `where` names the place.
  int64_t id_of(std::string_view label, std::string_view where) const;

  int64_t size() const { return static_cast<int64_t>(names_.size()); }
  const std::vector<std::string>& names() const { return names_; }
  /// Rows (or list items) seen per label during add(), by id.
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  struct Value {
    std::string text;
    bool whole = false;   // reads as a whole number
    bool number = false;  // is one: by its JSON type, or by its look where a file holds mere text
  };
  static Value read(const Record& record, const std::string& column, const Json& value);
  static std::vector<Value> values_of(const Record& record, const std::string& column);
  void check_kind(const Value& value, const Record& record, const std::string& column);
  int64_t find(std::string_view label) const;  // -1: none
  [[noreturn]] void fail_unknown(std::string_view label, std::string_view where) const;
  void rebuild();

  bool ordered_ = false;
  bool whole_ = true;                // all labels read as whole numbers
  bool some_whole_ = false;          // one of the names does
  std::string number_at_, text_at_;  // first row of each kind
  std::vector<std::string> names_;
  std::vector<int64_t> counts_;
  std::map<std::string, int64_t, std::less<>> ids_;
};

}  // namespace attune
