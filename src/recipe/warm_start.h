#pragma once
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
  /// The old run's labels when it had the same task and they contain all of `labels`: then the head
  /// is taken over too. Otherwise empty.
  std::vector<std::string> labels_for(const std::string& task,
                                      const std::vector<std::string>& labels) const;
  /// Copies the old run's values into the methods of "default". Without `with_head` the last
  /// projection stays as it is. Errors: BadInput when base, methods or shapes differ, naming both
  /// sides; Corrupt.
  void fill(Adaptation& adaptation, const std::string& base_fingerprint, bool with_head) const;
  /// Keeps the values in RUN/init, so that resuming does not need the old run: links where the file
  /// system can, else copies. Errors: Io.
  void keep_in(const std::string& run) const;
  const std::string& folder() const { return folder_; }

 private:
  void check_methods(const Json& here) const;
  std::string name_, folder_;
  AdapterCard card_;
};

/// RUN/init of a run that was started from another; "" when there is none.
std::string kept_start(const std::string& run);

}  // namespace attune
