#pragma once
#include <memory>
#include <optional>

#include "core/forward.h"
#include "kernels/ops/word_loss.h"
#include "nn/sites.h"
#include "nn/spec.h"

namespace attune {

/// The layers of a head before its last projection.
class HeadLayers {
 public:
  /// Adds the head's sites; tokens: the token table of the last stack, or -1.
  HeadLayers(const ModelSpec& spec, int tokens, const SiteMaker& sites);
  /// One row a sequence; else one row a row of the input.
  bool pooled() const { return head_.kind == HeadKind::Sequence || head_.kind == HeadKind::None; }
  /// Rows that left the batch are needed: every row of the input has its logits, or a row is taken
  /// by its token.
  bool needs_every_row() const { return !pooled() || head_.token >= 0; }
  /// The present rows that the head reads, int64 in order, where those are not all and still there;
  /// else undefined. Of a pooling head one a sequence; of others, under `labels` (Want::labels),
  /// the rows that carry one: in a causal stack with all behind the first, and a row of every
  /// sequence.
  Tensor rows_read(const Forward& pass, const Stream& input, const Tensor& labels) const;
  /// What enters the last projection, from the final rows x. `input`: what the model was given.
  Tensor features(Forward& pass, const Tensor& x, const Stream& input) const;
  /// The last projection over ready features; null without a head. `capture`: the logits of all
  /// rows are made at once, so that they are among what the pass captured.
  std::unique_ptr<Head> make(const std::shared_ptr<Forward>& pass, const Tensor& features,
                             bool capture) const;
  /// True when something before the last projection is to be computed without a head.
  bool wanted(const Forward& pass) const;

 private:
  Tensor row_of_each(const Forward& pass, const Stream& input) const;
  Tensor labelled_rows(const Forward& pass, const Tensor& labels) const;
  Tensor pooled_rows(Forward& pass, const Tensor& x, const Stream& input) const;

  HeadSpec head_;
  bool causal_;  // the stack below
  kernels::NormKind norm_kind_;
  double norm_eps_;
  int pool_ = -1, transform_ = -1, norm_ = -1, in_ = -1, proj_ = -1, bias_ = -1, logits_ = -1;
};

/// The last projection over ready features [n, hidden] (sequences, or rows for token heads).
class ProjectionHead final : public Head {
 public:
  /// bias: a Vector site added to the projection (tied output), or -1. words: the classes are a
  /// vocabulary, so that losses are made a few rows at a time where no edit needs the logits whole.
  /// given: int64 [n], the row of the input that each is, where others were left out: then losses
  /// alone may be asked for; else undefined.
  ProjectionHead(std::shared_ptr<Forward> pass, int projection, int bias, int logits, bool words,
                 Tensor features, Tensor given);
  /// Makes the logits of all rows now, once.
  void make_all() { all_ = projected(features_); }
  Tensor logits(const Tensor& which) const override;
  Score cross_entropy(const Tensor& labels, const Tensor& weights, double smoothing) const override;
  Tensor row_losses(const Tensor& labels) const override;

 private:
  /// The output matrix when the logits need not be made whole: nobody edits or reads them.
  std::optional<WordProjection> chunked() const;
  Tensor projected(const Tensor& features) const;
  Tensor logits_of_all() const { return all_.defined() ? all_ : projected(features_); }

  std::shared_ptr<Forward> pass_;  // shared with nothing else once forward returned
  int projection_, bias_, logits_;
  bool words_;
  Tensor features_, all_;
  Tensor given_;
};

}  // namespace attune
