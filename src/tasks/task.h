#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/batch.h"
#include "core/head_request.h"
#include "core/model.h"
#include "data/records.h"
#include "text/tokenizer.h"

namespace attune {

/// One row as the model takes it.
struct Example {
  int64_t id = 0;  // row number in its file set: keys dropout
  std::vector<int32_t> ids, types;
  std::vector<int64_t> labels;       // one a sequence, or one a row (-100: no loss)
  std::vector<float> targets;        // regression (1), or one 0/1 a label
  std::vector<int64_t> word_labels;  // tag: the tag of each word, those cut off included
  std::vector<int64_t>
      first_rows;       // tag: the row of each word's first sub-token, -1 when it was cut off
  int64_t dropped = 0;  // tokens cut off by max_length
  std::vector<int32_t> target;   // encoder-decoders: the decoder's tokens, its start token first
  std::vector<int32_t> prompt;   // what decoding starts from; empty: nothing is decoded
  std::string reference;         // the text that decoding should give
  int64_t words = 0, bytes = 0;  // lm: of the text whose tokens carry loss
  Tensor values;                 // images: rows of patches
  /// Rows in a batch.
  int64_t rows() const {
    return static_cast<int64_t>(ids.size() + target.size()) +
           (values.defined() ? values.size(0) : 0);
  }
};

/// Examples that are not rows of the data: windows over the tokens of long texts.
class Windows {
 public:
  virtual ~Windows() = default;
  virtual int64_t size() const = 0;
  /// The row in which a window starts.
  virtual int64_t row(int64_t window) const = 0;
  virtual Example example(int64_t window) const = 0;
};

/// What a task may rely on when it reads rows.
struct TaskContext {
  std::map<std::string, std::string>
      columns;             // role -> column; roles not listed use the default column names
  int64_t max_length = 0;  // tokens, specials included; 0: no limit
  bool error_when_too_long = false;
  const Tokenizer* tokenizer = nullptr;
  std::string directory;  // of the checkpoint; "": not known
  std::vector<std::string>
      label_order;  // from the checkpoint's id2label, or a run's own labels; may be empty
};

/// Collects predictions of an evaluation and scores them at the end.
class Tally {
 public:
  virtual ~Tally() = default;
  /// Runs the model over a batch and takes what counts; without another way, from the logits of
  /// all rows.
  virtual void measure(Model& model, const Batch& batch, const std::vector<Example>& examples);
  /// logits: one row a sequence, or one a row of the batch (`rows`).
  virtual void add(const Tensor& logits, const RowIndex& rows,
                   const std::vector<Example>& examples);
  virtual Json metrics() const = 0;
};

/// A task: fields, labels, head, metric. Stateless but for what prepare() or restore() learned from
/// the data.
class Task {
 public:
  virtual ~Task() = default;
  /// Sets the context and learns labels from the training rows. Errors: BadInput naming file and
  /// line.
  virtual void prepare(const Dataset& train, const TaskContext& context) = 0;
  /// Sets the context with what state() recorded, without data.
  virtual void restore(const Json& state, const TaskContext& context) = 0;
  /// What a run must remember: {"labels": [...], ...}.
  virtual Json state() const = 0;
  virtual HeadRequest head() const = 0;
  /// Errors: BadInput naming file and line.  with_labels false: prediction.
  virtual Example encode(const Record& record, bool with_labels) const = 0;
  /// A batch of examples, packed: stream "enc", fields "example", "labels" or "targets".
  virtual Batch collate(const std::vector<Example>& examples) const = 0;
  virtual std::unique_ptr<Tally> tally() const = 0;
  /// One JSON object an example; without another way, from the logits of all rows.
  virtual std::vector<Json> predict(Model& model, const Batch& batch,
                                    const std::vector<Example>& examples) const;
  virtual std::vector<Json> predictions(const Tensor& logits, const RowIndex& rows,
                                        const std::vector<Example>& examples) const;
  virtual std::string objective() const = 0;    // default objective's name
  virtual std::string main_metric() const = 0;  // of `best: auto`
  virtual const std::vector<std::string>& labels() const = 0;
  virtual std::vector<int64_t> label_counts()
      const = 0;  // rows per label in training; empty when not counted
  /// The label of a row, for stratified splits ("" when there is none).
  virtual std::string stratum(const Record& record) const = 0;
  virtual bool regression() const { return false; }
  /// What the data's examples are when they are not its rows; null: rows. Shared by the views of
  /// one data set. Errors: BadInput naming file and line.
  virtual std::shared_ptr<const Windows> windows(const Dataset&) const { return nullptr; }
  /// Tokens an input may have when the recipe does not say; `positions`: of the model, 0: any.
  virtual int64_t default_length(int64_t positions) const { return positions; }
  /// Errors: Unsupported when the task cannot work on this model, saying which it needs.
  virtual void check(const Model&) const {}
  /// Whether the task needs a tokenizer.
  virtual bool reads_text() const { return true; }
};

}  // namespace attune
