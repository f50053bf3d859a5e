#pragma once
#include <string>
#include <vector>

#include "data/records.h"

namespace attune {

/// Readings of one column of a record. Each throws BadInput that starts with file and line:
/// `data/train.jsonl:17: no column "label"; the record has: text, lable; did you mean "lable"?`.
/// Names may be paths into objects ("answers.text"), unless a column has exactly that name.

const Json& column(const Record& record, const std::string& name);
/// True when the column is there and not null.
bool has_column(const Record& record, const std::string& name);
/// Text; with `numbers`, a number is taken as it is written.
std::string text_of(const Record& record, const std::string& name, bool numbers = false);
/// A finite number, or text that is one (all values of a CSV are text).
double number_of(const Record& record, const std::string& name);
/// A list of texts.
std::vector<std::string> strings_of(const Record& record, const std::string& name);
/// A list of whole numbers.
std::vector<int64_t> integers_of(const Record& record, const std::string& name);

/// "text", "a number (3)", "a list", "null", ...: what was found, for messages.
std::string describe(const Json& value);

}  // namespace attune
