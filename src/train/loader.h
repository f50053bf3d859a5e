#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "data/records.h"
#include "data/sampler.h"
#include "tasks/task.h"

namespace attune {

/// Examples held ready at once where each is large (images): 600 KB for 224 x 224 pixels.
constexpr int64_t kLargeExamples = 64;

/// Some examples of a data set: rows, or windows over the texts of its rows.
struct DataView {
  Dataset data;
  std::vector<int64_t> rows;                    // positions in `data`, or among `windows`
  std::shared_ptr<const Windows> windows = {};  // shared by the views of one data set; may be null
  int64_t size() const { return static_cast<int64_t>(rows.size()); }
  /// The row of an example: its own, or the one in which its window starts.
  int64_t row(int64_t i) const {
    const int64_t place = rows[static_cast<size_t>(i)];
    return windows ? windows->row(place) : place;
  }
  Record at(int64_t i) const { return data.at(row(i)); }
  Example encode(const Task& task, int64_t i, bool with_labels) const;
  /// "data/train.jsonl:17" of example `id` (what Example::id holds: its place in `rows`' terms).
  std::string where(int64_t id) const { return data.where(windows ? windows->row(id) : id); }
  static DataView all(Dataset data);
  /// All examples that the data is to a prepared task.
  static DataView of(const Task& task, Dataset data);
};

/// Training batches in the sampler's order. Rows are read and tokenised a window at a time, never
/// the whole file, by a thread that is a few batches ahead of the caller; what it fails with is
/// thrown by the next() that would have returned the batch.
class Loader {
 public:
  Loader(const Task& task, DataView view, uint64_t seed, SamplerOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  struct Item {
    Batch batch;
    std::vector<Example> examples;
    int64_t tokens = 0;
  };
  Item next();
  /// Of the batch that next() gives next.
  Sampler::Position position() const { return position_; }
  /// Goes to a position of the sampler; `cut_rows` is what cut_rows() was there.
  /// Errors: BadInput for a position that does not exist.
  void seek(Sampler::Position position, int64_t cut_rows);
  int64_t examples() const { return view_.size(); }
  /// Rows given out so far of which max_length cut something off; each counts once.
  int64_t cut_rows() const { return cut_rows_; }
  /// "data/train.jsonl:17" of an example, for messages.
  std::string where(int64_t example) const {
    return view_.where(view_.rows[static_cast<size_t>(example)]);
  }

 private:
  /// A batch, and how things stand once it is given out.
  struct Ahead {
    Item item;
    Sampler::Position position;
    int64_t cut_rows = 0;
    std::exception_ptr error = {};
  };
  static constexpr size_t kAhead = 4;  // batches

  Example encode(int64_t example) const;
  Ahead make();
  void start();
  void stop();
  void work();

  const Task& task_;
  DataView view_;
  Sampler::Position position_;
  int64_t cut_rows_ = 0;
  // The thread's own while it runs:
  std::unordered_map<int64_t, Example> window_;  // encoded, not yet given out
  int64_t cut_ahead_ = 0;
  std::vector<bool> seen_;  // rows given out before
  Sampler sampler_;         // its callback uses the members above
  // Between both:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Ahead> ready_;
  bool stopping_ = false;
  std::thread worker_;
};

/// Runs `body` over the examples of a view in order of chunks; inside a chunk, batches are packed
/// by length. body gets the batch, its examples and their positions in the view.
using InferenceBody = std::function<void(const Batch& batch, const std::vector<Example>& examples,
                                         const std::vector<int64_t>& positions)>;
void for_each_batch(const Task& task, int64_t count, const std::function<Example(int64_t)>& example,
                    int64_t batch_tokens, const InferenceBody& body);

}  // namespace attune
