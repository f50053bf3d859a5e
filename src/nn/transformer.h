#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/forward.h"
#include "core/model.h"
#include "nn/head.h"
#include "nn/spec.h"
#include "nn/stack.h"

namespace attune {

/// A transformer built from its specification: one stack, or an encoder and a decoder, and a head.
class Transformer final : public Model {
 public:
  /// Makes the sites; their tensors are filled by the loader.
  Transformer(ModelSpec spec, Numerics numerics, Json config);
  /// A model of one stack takes the batch's only stream, whatever its name. An encoder-decoder
  /// reads "enc" and "dec"; without "dec" a head that is no language model gets the encoder's
  /// tokens shifted right, as in transformers. Errors: BadInput when a stream is missing or does
  /// not fit.
  Output forward(const Batch& batch, const Want& want) override;
  const ModelSpec& spec() const { return spec_; }
  bool untie(int storage) override;
  void retie() override;
  int tied_storage(const Site& site) const override;
  bool can_have_bias(const Site& site) const override;
  /// Tokens of the longest text that a table of positions has room for, behind the rows that the
  /// attached edits put in front; 0: no such table.
  int64_t longest_text() const;
  /// The output has a tensor of its own though the checkpoint's is tied.
  bool untied() const { return tied_storage_ >= 0; }

 private:
  Stream stream_of(const Batch& batch, size_t stack) const;

  ModelSpec spec_;
  std::vector<Stack> stacks_;
  std::unique_ptr<HeadLayers> head_;
  int tied_storage_ = -1;  // what the output shares when it is tied again
};

/// Tokens of every sequence one place later, `start` first and the last left out; negative ones
/// (labels that are skipped) become `padding`. int32 or int64 ids; int32 result.
Tensor shifted_right(const Tensor& ids, const RowIndex& rows, int64_t start, int64_t padding);

/// A batch of made-up inputs for every stack, of these lengths (images have their own), drawn from
/// the seed: to compare a model with another or with itself.
Batch made_up_batch(const ModelSpec& spec, const std::vector<int64_t>& lengths, uint64_t seed);

}  // namespace attune
