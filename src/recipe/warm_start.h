#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/adaptation.h"
#include "train/adapter_files.h"

namespace attune {

/// The run, or adapter directory, whose values another run starts from (`init_from`).
class WarmStart {
 public:
  /// Errors: NotFound when it is no run, or one without a result yet; Unsupported for an adapter of
  /// another tool.
  explicit WarmStart(const std::string& name);

  /// Initial values of the new run are drawn from the seed of the old one, so that what its methods
  /// make from the seed, and do not store, is the same.
  uint64_t seed() const { return card_.seed; }
  bool new_head() const { return card_.new_head; }
  /// The old run's labels when it had the same task and they contain all of `labels`: then the head
  /// is taken over too. Otherwise empty.
  std::vector<std::string> labels_for(const std::string& task,
                                      const std::vector<std::string>& labels) const;
  /// Errors: BadInput unless the model (its tensors' fingerprint, the user's name for it, its
  /// folder) is the one the old run was trained on.
  void check_base(const std::string& fingerprint, const std::string& model,
                  const std::string& directory) const;
  /// Copies the old run's values into the methods of "default". Without `with_head` the last
  /// projection stays as it is. Options that differ and leave all shapes alike are reported to the
  /// log. Errors: BadInput when methods, tensors or shapes differ, naming both sides and the
  /// options that differ; Corrupt.
  void fill(Adaptation& adaptation, bool with_head) const;
  /// Keeps the values in RUN/init, so that resuming does not need the old run: links where the file
  /// system can, else copies. Errors: Io.
  void keep_in(const std::string& run) const;
  const std::string& folder() const { return folder_; }

 private:
  void check_methods(const Json& here) const;
  void check_tensors(const std::vector<std::pair<std::string, Tensor>>& tensors,
                     const std::map<std::string, Tensor>& saved, bool with_head,
                     const std::vector<std::string>& different) const;
  [[noreturn]] void does_not_fit(const std::string& what,
                                 const std::vector<std::string>& different) const;
  std::string name_, folder_;
  AdapterCard card_;
};

/// RUN/init of a run that was started from another; "" when there is none.
std::string kept_start(const std::string& run);

}  // namespace attune
