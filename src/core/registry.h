#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/options.h"
#include "base/text.h"

namespace attune {

struct Site;

/// One registered thing: what help, docs, checks and the conformance suites need to know.
template <class T>
struct Entry {
  std::string name, summary, reference;
  std::vector<Option> options;
  std::function<std::unique_ptr<T>(const Options&)> make;
  std::string tiny;                             // YAML options for the conformance suites
  bool identity_at_start = true;                // methods: unchanged output before training
  std::map<std::string, std::string> excludes;  // methods: partner -> reason; rare
  std::function<int64_t(const std::vector<Site>&, const Options&)>
      count;  // the paper's parameter formula
  std::vector<std::string> examples;
  double learning_rate = 0;   // methods: the peak rate of `lr: auto`, on rows 384 wide
  bool rate_by_width = true;  // methods: wider models take a smaller one (matrices, not vectors)
};

/// Things of one kind by name. Filled once from a .def file, never by static registration.
template <class T>
class Registry {
 public:
  /// Errors: Internal on a duplicate.
  void add(Entry<T> entry) {
    if (find(entry.name) != nullptr)
      fail(ErrorCode::Internal, "\"{}\" is registered twice", entry.name);
    entries_.push_back(std::move(entry));
    std::sort(entries_.begin(), entries_.end(),
              [](const Entry<T>& a, const Entry<T>& b) { return a.name < b.name; });
  }
  const Entry<T>* find(std::string_view name) const {
    for (const Entry<T>& entry : entries_)
      if (entry.name == name) return &entry;
    return nullptr;
  }
  /// Errors: BadInput, naming the nearest.
  const Entry<T>& at(std::string_view name) const {
    const Entry<T>* entry = find(name);
    if (entry == nullptr)
      fail(ErrorCode::BadInput, "unknown name \"{}\";{}", name, suggestion(name, names()));
    return *entry;
  }
  const std::vector<Entry<T>>& all() const { return entries_; }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const Entry<T>& entry : entries_) result.push_back(entry.name);
    return result;
  }

 private:
  std::vector<Entry<T>> entries_;
};

}  // namespace attune
