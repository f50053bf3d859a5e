#include "nn/transformer.h"

#include "base/error.h"
#include "kernels/ops/rowwise.h"
#include "nn/head.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Transformer::Transformer(ModelSpec spec, Numerics numerics, Json config) : spec_(std::move(spec)) {
  numerics_ = numerics;
  config_ = std::move(config);
  add_embeddings();
  for (int layer = 0; layer < spec_.stack.layers; ++layer)
    blocks_.emplace_back(spec_.stack, add_block(layer));
  if (spec_.stack.final_norm)
    final_norm_ = weight_site(spec_.stack.name + ".final.norm", WeightKind::Norm,
                              spec_.stack.hidden, spec_.stack.hidden, spec_.stack.norm_bias);
  final_ = flow_site("final", SiteKind::Rows, spec_.stack.hidden);
  add_head();
}

int Transformer::weight_site(const std::string& name, WeightKind kind, int64_t in, int64_t out,
                             bool bias, int layer, int tied_to) {
  Site site;
  site.name = name;
  site.weight = kind;
  site.layer = layer;
  site.in = in;
  site.out = out;
  site.bias = bias;
  return add_site(site, tied_to);
}

int Transformer::flow_site(const std::string& name, SiteKind kind, int64_t width, int layer,
                           int64_t heads) {
  Site site;
  site.name = name;
  site.kind = kind;
  site.layer = layer;
  site.in = site.out = width;
  site.heads = heads;
  return add_site(site);
}

void Transformer::add_embeddings() {
  const StackSpec& s = spec_.stack;
  const std::string at = s.name + ".embed.";
  tok_ = weight_site(at + "tok", WeightKind::Table, s.vocabulary, s.hidden, false);
  if (s.positions == PositionScheme::Learned)
    pos_ = weight_site(at + "pos", WeightKind::Table, s.max_positions, s.hidden, false);
  if (s.types > 0) type_ = weight_site(at + "type", WeightKind::Table, s.types, s.hidden, false);
  if (s.embed_norm)
    embed_norm_ = weight_site(at + "norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias);
  embed_rows_ = flow_site(at + "rows", SiteKind::Rows, s.hidden);
  embed_out_ = flow_site(at + "out", SiteKind::Rows, s.hidden);
}

BlockSites Transformer::add_block(int layer) {
  const StackSpec& s = spec_.stack;
  const std::string at = fmt::format("{}.{}.", s.name, layer);
  const int64_t q_width = s.heads * s.head_size, kv_width = s.kv_heads * s.head_size;
  BlockSites b;
  b.resid_in = flow_site(at + "resid.in", SiteKind::Rows, s.hidden, layer);
  b.self = flow_site(at + "self", SiteKind::Part, s.hidden, layer);
  b.self_in = flow_site(at + "self.in", SiteKind::Rows, s.hidden, layer);
  b.q = weight_site(at + "self.q", WeightKind::Projection, s.hidden, q_width, s.qkv_bias, layer);
  b.k = weight_site(at + "self.k", WeightKind::Projection, s.hidden, kv_width, s.qkv_bias, layer);
  b.v = weight_site(at + "self.v", WeightKind::Projection, s.hidden, kv_width, s.qkv_bias, layer);
  b.self_kv = flow_site(at + "self.kv", SiteKind::KeyValue, kv_width, layer, s.kv_heads);
  b.self_scores = flow_site(at + "self.scores", SiteKind::Scores, 0, layer, s.heads);
  b.self_probs = flow_site(at + "self.probs", SiteKind::Scores, 0, layer, s.heads);
  b.heads = flow_site(at + "self.heads", SiteKind::Heads, q_width, layer, s.heads);
  b.o = weight_site(at + "self.o", WeightKind::Projection, q_width, s.hidden, s.out_bias, layer);
  b.self_out = flow_site(at + "self.out", SiteKind::Rows, s.hidden, layer);
  b.self_norm =
      weight_site(at + "self.norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias, layer);
  b.resid_mid = flow_site(at + "resid.mid", SiteKind::Rows, s.hidden, layer);
  b.ffn = flow_site(at + "ffn", SiteKind::Part, s.hidden, layer);
  b.ffn_in = flow_site(at + "ffn.in", SiteKind::Rows, s.hidden, layer);
  b.up = weight_site(at + "ffn.up", WeightKind::Projection, s.hidden, s.intermediate, s.ffn_bias,
                     layer);
  if (s.gated)
    b.gate = weight_site(at + "ffn.gate", WeightKind::Projection, s.hidden, s.intermediate,
                         s.ffn_bias, layer);
  b.hidden = flow_site(at + "ffn.hidden", SiteKind::Rows, s.intermediate, layer);
  b.down = weight_site(at + "ffn.down", WeightKind::Projection, s.intermediate, s.hidden,
                       s.ffn_bias, layer);
  b.ffn_out = flow_site(at + "ffn.out", SiteKind::Rows, s.hidden, layer);
  b.ffn_norm =
      weight_site(at + "ffn.norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias, layer);
  b.resid_out = flow_site(at + "resid.out", SiteKind::Rows, s.hidden, layer);
  return b;
}

void Transformer::add_head() {
  const StackSpec& s = spec_.stack;
  const HeadSpec& h = spec_.head;
  if (h.pooler)
    head_pool_ = weight_site("head.pool", WeightKind::Projection, s.hidden, s.hidden, true);
  if (h.kind == HeadKind::MaskedLm) {
    head_transform_ =
        weight_site("head.transform", WeightKind::Projection, s.hidden, s.hidden, true);
    head_norm_ = weight_site("head.norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias);
  }
  head_in_ = flow_site("head.in", SiteKind::Rows, s.hidden);
  if (h.kind == HeadKind::None) return;
  if (h.kind == HeadKind::MaskedLm) {
    head_proj_ =
        weight_site("head.proj", WeightKind::Projection, s.hidden, s.vocabulary, false, -1, tok_);
    head_bias_ = weight_site("head.bias", WeightKind::Vector, s.vocabulary, s.vocabulary, false);
  } else {
    head_proj_ = weight_site("head.proj", WeightKind::Projection, s.hidden, h.labels, true);
  }
  logits_ =
      flow_site("logits", SiteKind::Rows, h.kind == HeadKind::MaskedLm ? s.vocabulary : h.labels);
}

Tensor Transformer::position_index(Forward& pass, const Stream& stream) const {
  const Tensor positions = pass.positions();
  const int64_t offset = stream.positions.defined() ? 0 : spec_.stack.position_offset;
  return offset == 0 ? positions : positions + offset;
}

Tensor Transformer::embed_fused(Forward& pass, const Stream& stream) const {
  std::vector<Tensor> tables{pass.table(tok_)}, indices{stream.ids};
  if (pos_ >= 0) {
    tables.push_back(pass.table(pos_));
    indices.push_back(position_index(pass, stream));
  }
  if (type_ >= 0) {
    tables.push_back(pass.table(type_));
    indices.push_back(stream.types.defined() ? stream.types
                                             : at::zeros({stream.rows.rows()}, at::kInt));
  }
  return embedding(tables, indices, pass.master(), spec_.stack.padding);
}

/// Table by table, where an edit asks for it: rows may be added before positions and types join.
Tensor Transformer::embed_apart(Forward& pass, const Stream& stream) const {
  Tensor x = pass.gather(tok_, stream.ids, spec_.stack.padding);
  x = pass.at(embed_rows_, x);
  if (pos_ >= 0) x = x + pass.gather(pos_, position_index(pass, stream));
  if (type_ < 0) return x;
  Tensor types = at::zeros({pass.rows().rows()}, at::kInt);
  if (stream.types.defined()) types = pass.of_rows(stream.types);
  return x + pass.gather(type_, types);
}

Tensor Transformer::embed(Forward& pass, const Stream& stream) const {
  const StackSpec& s = spec_.stack;
  if (s.positions == PositionScheme::Learned &&
      stream.rows.longest + s.position_offset > s.max_positions)
    fail(ErrorCode::BadInput,
         "a text of {} tokens is longer than the {} positions of this model; set data.max_length, "
         "or truncate",
         stream.rows.longest, s.max_positions - s.position_offset);
  if (stream.positions.defined()) pass.set_positions(stream.positions);
  const bool fused = !pass.touched(embed_rows_) && !pass.table_edited(tok_) &&
                     (pos_ < 0 || !pass.table_edited(pos_)) &&
                     (type_ < 0 || !pass.table_edited(type_));
  // The sum and its norm are made in the master type: one rounding instead of three.
  Tensor x = fused ? embed_fused(pass, stream) : embed_apart(pass, stream);
  if (embed_norm_ >= 0) x = pass.norm(embed_norm_, s.norm, s.norm_eps, x).y;
  x = dropout(x, pass.drop(embed_out_, s.hidden_dropout));
  return pass.at(embed_out_, cast(x, pass.scalar()));
}

Tensor Transformer::head_input(Forward& pass, const Tensor& x, const RowIndex& rows) const {
  const HeadSpec& h = spec_.head;
  if (h.kind == HeadKind::MaskedLm) {
    const Tensor y = activation(h.transform_activation, pass.project(head_transform_, x));
    return pass.at(head_in_, pass.norm(head_norm_, spec_.stack.norm, spec_.stack.norm_eps, y).y);
  }
  if (h.kind == HeadKind::Token || h.kind == HeadKind::Span)
    return pass.at(head_in_, dropout(cast(x, pass.master()), pass.drop(head_in_, h.dropout)));
  Tensor pooled = pool(h.pool, x, rows);
  pass.enter_pooled();
  if (h.pooler) pooled = activation(h.pooler_activation, pass.project(head_pool_, pooled));
  return pass.at(head_in_, dropout(pooled, pass.drop(head_in_, h.dropout)));
}

Output Transformer::forward(const Batch& batch, const Want& want) {
  const std::map<std::string, Stream>::const_iterator stream = batch.streams.find(spec_.stack.name);
  if (stream == batch.streams.end())
    fail(ErrorCode::Internal, "the batch has no stream \"{}\"", spec_.stack.name);
  const std::shared_ptr<Forward> pass =
      std::make_shared<Forward>(*this, batch, want);  // shared with the head
  pass->enter(spec_.stack.name, stream->second.rows);
  Tensor x = embed(*pass, stream->second);
  for (const Block& block : blocks_) x = block.forward(*pass, x);
  const bool sequence_head =
      spec_.head.kind == HeadKind::Sequence || spec_.head.kind == HeadKind::None;
  if (!sequence_head || !pass->pools_prompt()) x = pass->finish(x, !sequence_head);
  if (final_norm_ >= 0) x = pass->norm(final_norm_, spec_.stack.norm, spec_.stack.norm_eps, x).y;
  x = pass->at(final_, x);
  const RowIndex rows = pass->rows();
  Output output;
  output.rows[spec_.stack.name] = rows;
  if (want.head && spec_.head.kind != HeadKind::None) {
    const Tensor features = head_input(*pass, x, rows);
    output.head = std::make_unique<ProjectionHead>(pass, head_proj_, head_bias_, logits_, features);
  } else if (pass->touched(head_in_) && (spec_.head.pooler || !sequence_head)) {
    head_input(*pass, x, rows);
  }
  output.captured = pass->take_captured();
  return output;
}

}  // namespace attune
