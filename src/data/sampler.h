#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace attune {

/// Number of rows (tokens) an example takes in a batch.
using LengthOf = std::function<int64_t(int64_t example)>;

/// One of several sources of examples, drawn from in proportion to its weight.
struct MixtureSource {
  std::vector<int64_t> examples;
  double weight = 1;
  std::string name = {};  // in messages; empty: its number
};

struct SamplerOptions {
  int64_t batch_size = 0;  // examples a batch; 0: use batch_tokens
  int64_t batch_tokens =
      0;  // rows a batch may have; an example longer than that makes a batch of its own
  int64_t window = 1024;  // examples packed together; with batch_size, rounded up to whole batches
  std::vector<MixtureSource> mixture = {};  // empty: every example comes once an epoch
};

/// The order of training, as a pure function of seed and position.
/// Epoch e runs through a permutation keyed by (seed, e), in windows. With batch_tokens, each
/// window is packed by first-fit decreasing and its batches are shuffled; with batch_size, batches
/// are consecutive. Without a mixture every example comes exactly once an epoch.
/// With a mixture an epoch has as many draws as there are examples, of which each source gets its
/// share by weight (whole numbers, largest remainders first). A source gives its examples in
/// permutations keyed by (seed, source, pass) and goes on in the next epoch where it stopped, so
/// that none of its examples comes again before all of them have come.
/// Memory: one permutation and one window.
class Sampler {
 public:
  /// The batch that next() gives next.
  struct Position {
    int64_t epoch = 0, window = 0, batch = 0;
    bool operator==(const Position&) const = default;
  };

  /// `length` is called only with batch_tokens, once for each example of a window when the window
  /// is entered. Errors: BadInput unless there are examples and exactly one of batch_size and
  /// batch_tokens is positive; when a source has no example, or less than one draw an epoch.
  Sampler(int64_t examples, uint64_t seed, LengthOf length, SamplerOptions options);

  /// Examples of the next batch; epochs follow one another without end.
  std::vector<int64_t> next();
  Position position() const { return position_; }
  /// Goes to a position that position() gave for the same data and options; the same batches
  /// follow. Errors: BadInput for a position that does not exist.
  void seek(Position position);
  /// Examples given out in total up to the position; divided by their number: epochs.
  double consumed() const;
  /// Calls `visit` with the examples given out so far; an example may come more than once.
  void visit_given(const std::function<void(int64_t example)>& visit) const;
  int64_t examples() const { return examples_; }

 private:
  void check_mixture() const;
  std::vector<int64_t> order_of(int64_t epoch) const;
  void draw_source(size_t source, int64_t epoch, std::vector<int64_t>& draws) const;
  void enter();  // makes order_ and batches_ those of position_
  void pack(const std::vector<int64_t>& members);
  int64_t windows() const { return (examples_ + options_.window - 1) / options_.window; }

  int64_t examples_;
  uint64_t seed_;
  LengthOf length_;
  SamplerOptions options_;
  std::vector<int64_t> quotas_;  // draws an epoch, by source
  Position position_;
  int64_t order_epoch_ = -1;
  std::vector<int64_t> order_;                 // of the epoch
  std::vector<std::vector<int64_t>> batches_;  // of the window
};

}  // namespace attune
