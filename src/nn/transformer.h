#pragma once
#include <vector>

#include "core/forward.h"
#include "core/model.h"
#include "nn/block.h"
#include "nn/spec.h"

namespace attune {

/// A transformer built from its specification: embeddings, a stack of blocks, a head.
class Transformer final : public Model {
 public:
  /// Makes the sites; their tensors are filled by the loader.
  Transformer(ModelSpec spec, Numerics numerics, Json config);
  Output forward(const Batch& batch, const Want& want) override;
  const ModelSpec& spec() const { return spec_; }

 private:
  int weight_site(const std::string& name, WeightKind kind, int64_t in, int64_t out, bool bias,
                  int layer = -1, int tied_to = -1);
  int flow_site(const std::string& name, SiteKind kind, int64_t width, int layer = -1,
                int64_t heads = 1);
  void add_embeddings();
  BlockSites add_block(int layer);
  void add_head();
  Tensor embed(Forward& pass, const Stream& stream) const;
  Tensor embed_fused(Forward& pass, const Stream& stream) const;
  Tensor embed_apart(Forward& pass, const Stream& stream) const;
  Tensor position_index(Forward& pass, const Stream& stream) const;
  /// The rows that enter the head's last projection, and which of head and sequence rows they are.
  Tensor head_input(Forward& pass, const Tensor& x, const RowIndex& rows) const;

  ModelSpec spec_;
  std::vector<Block> blocks_;
  int tok_ = -1, pos_ = -1, type_ = -1, embed_norm_ = -1, embed_rows_ = -1, embed_out_ = -1,
      final_norm_ = -1, final_ = -1;
  int head_pool_ = -1, head_transform_ = -1, head_norm_ = -1, head_in_ = -1, head_proj_ = -1,
      head_bias_ = -1, logits_ = -1;
};

}  // namespace attune
