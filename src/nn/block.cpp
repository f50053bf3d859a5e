#include "nn/block.h"

#include <cmath>

#include "base/text.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/rowwise.h"
#include "nn/positions.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

bool StackPass::fresh(Seen& seen) const {
  const Tensor& offsets = pass_.rows().offsets;
  const Tensor& positions = pass_.given_positions();
  if (seen.offsets.defined() && seen.offsets.is_same(offsets) && seen.positions.is_same(positions))
    return false;
  seen = {offsets, positions};
  return true;
}

const RotaryTable& StackPass::rotary() {
  if (fresh(rotary_of_))
    rotary_ = rotary_table(spec_.rotary, pass_.positions(), pass_.rows(), pass_.master());
  return rotary_;
}

const Tensor& StackPass::gaps() {
  if (fresh(gaps_of_)) {
    const Tensor positions = pass_.positions();
    gaps_ = consecutive(positions, pass_.rows()) ? Tensor() : positions;
  }
  return gaps_;
}

AttentionPart Block::attention_sites(const std::string& at, const SiteMaker& sites, bool cross) {
  const StackSpec& s = spec_;
  const int64_t q_width = s.heads * s.head_size, kv_width = s.kv_heads * s.head_size;
  const WeightKind projection = WeightKind::Projection;
  AttentionPart a;
  a.part = sites.flow(at, SiteKind::Part, s.hidden, layer_);
  a.in = sites.flow(at + ".in", SiteKind::Rows, s.hidden, layer_);
  if (cross) a.memory = sites.flow(at + ".memory", SiteKind::Rows, s.hidden, layer_);
  a.q = sites.weight(at + ".q", projection, s.hidden, q_width, s.qkv_bias, layer_);
  a.k = sites.weight(at + ".k", projection, s.hidden, kv_width, s.qkv_bias, layer_);
  a.v = sites.weight(at + ".v", projection, s.hidden, kv_width, s.qkv_bias, layer_);
  a.kv = sites.flow(at + ".kv", SiteKind::KeyValue, kv_width, layer_, s.kv_heads);
  a.scores = sites.flow(at + ".scores", SiteKind::Scores, 0, layer_, s.heads);
  a.probs = sites.flow(at + ".probs", SiteKind::Scores, 0, layer_, s.heads);
  a.heads = sites.flow(at + ".heads", SiteKind::Heads, q_width, layer_, s.heads);
  a.o = sites.weight(at + ".o", projection, q_width, s.hidden, s.out_bias, layer_);
  a.out = sites.flow(at + ".out", SiteKind::Rows, s.hidden, layer_);
  a.norm = sites.weight(at + ".norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias, layer_);
  return a;
}

Block::Block(const StackSpec& spec, int layer, const SiteMaker& sites)
    : spec_(spec), layer_(layer) {
  const StackSpec& s = spec_;
  const std::string at = format("{}.{}.", s.name, layer);
  const WeightKind projection = WeightKind::Projection;
  BlockSites& b = sites_;
  b.resid_in = sites.flow(at + "resid.in", SiteKind::Rows, s.hidden, layer);
  b.self = attention_sites(at + "self", sites, false);
  if (s.cross) {
    b.resid_cross = sites.flow(at + "resid.cross", SiteKind::Rows, s.hidden, layer);
    b.cross = attention_sites(at + "cross", sites, true);
  }
  b.resid_mid = sites.flow(at + "resid.mid", SiteKind::Rows, s.hidden, layer);
  b.ffn = sites.flow(at + "ffn", SiteKind::Part, s.hidden, layer);
  b.ffn_in = sites.flow(at + "ffn.in", SiteKind::Rows, s.hidden, layer);
  b.up = sites.weight(at + "ffn.up", projection, s.hidden, s.intermediate, s.ffn_bias, layer);
  if (s.gated)
    b.gate = sites.weight(at + "ffn.gate", projection, s.hidden, s.intermediate, s.ffn_bias, layer);
  b.hidden = sites.flow(at + "ffn.hidden", SiteKind::Rows, s.intermediate, layer);
  b.down = sites.weight(at + "ffn.down", projection, s.intermediate, s.hidden, s.ffn_bias, layer);
  b.ffn_out = sites.flow(at + "ffn.out", SiteKind::Rows, s.hidden, layer);
  b.ffn_norm =
      sites.weight(at + "ffn.norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias, layer);
  b.resid_out = sites.flow(at + "resid.out", SiteKind::Rows, s.hidden, layer);
  const AttentionPart &self = b.self, &cross = b.cross;
  asking_ = {self.q, self.kv, self.scores, self.probs, self.heads};
  behind_ = {self.part,    self.o,      self.out,    self.norm,  b.resid_cross,
             cross.part,   cross.in,    cross.norm,  cross.q,    cross.kv,
             cross.scores, cross.probs, cross.heads, cross.o,    cross.out,
             b.resid_mid,  b.ffn,       b.ffn_in,    b.up,       b.gate,
             b.hidden,     b.down,      b.ffn_out,   b.ffn_norm, b.resid_out};
}

Tensor Block::rows_read(const Forward& pass, const StackPass& shared) const {
  if (!shared.read || layer_ + 1 != spec_.layers || pass.batch().cache != nullptr) return Tensor();
  for (const int site : behind_)
    if (!pass.by_row(site)) return Tensor();
  return shared.read(pass);
}

bool Block::asks_alone(const Forward& pass, const StackPass& shared, const Tensor& read) const {
  if (!read.defined() || shared.bias.defined()) return false;
  for (const int site : asking_)
    if (!pass.by_row(site)) return false;
  if (!spec_.causal) return spec_.window == 0;
  // The last queries stand beside the last keys.
  const int64_t* rows = pointer<const int64_t>(read);
  int64_t next = 0;
  for (int64_t b = 0; b < pass.rows().sequences(); ++b) {
    const int64_t first = next, end = pass.rows().end(b);
    while (next < read.numel() && rows[next] < end) ++next;
    if (next == first || rows[next - 1] + 1 != end || rows[first] != end - (next - first))
      return false;
  }
  return true;
}

AttentionArgs Block::arguments(Forward& pass, int probs) const {
  AttentionArgs args;
  args.heads = spec_.heads;
  args.kv_heads = spec_.kv_heads;
  args.head_size = spec_.head_size;
  args.scale = spec_.score_scale != 0 ? spec_.score_scale
                                      : 1.0 / std::sqrt(static_cast<double>(spec_.head_size));
  args.drop = pass.drop(probs, spec_.attention_dropout);
  return args;
}

Tensor Block::meet_input(Forward& pass, const Tensor& in, const Tensor& read) const {
  const AttentionPart& a = sites_.self;
  if (pass.keys_touched(a.kv) || pass.touched(a.scores) || pass.touched(a.probs)) return Tensor();
  const RowIndex memory = pass.rows();
  if (read.numel() != memory.sequences() || spec_.rotary.dims > 0 || spec_.window > 0 ||
      spec_.heads != spec_.kv_heads)
    return Tensor();
  const std::optional<Affine> keys = pass.folded_projection(a.k),
                              values = pass.folded_projection(a.v);
  if (!keys || !values) return Tensor();
  pass.narrow(read);
  const Tensor q = pass.project(a.q, in.index_select(0, read));
  return pass.attend_input(a.heads, q, in, *keys, *values, memory, arguments(pass, a.probs));
}

Tensor Block::self_attention(Forward& pass, StackPass& shared, const Tensor& in,
                             const Tensor& read) const {
  const AttentionPart& a = sites_.self;
  const bool alone = asks_alone(pass, shared, read);
  if (alone) {
    const Tensor heads = meet_input(pass, in, read);
    if (heads.defined()) return pass.at(a.out, pass.project(a.o, heads));
  }
  std::vector<int> projections{a.k, a.v};
  if (!alone) projections.insert(projections.begin(), a.q);
  std::vector<Tensor> projected = pass.project(projections, in);
  KeyValues kv{projected.end()[-2], projected.end()[-1], pass.rows()};
  RotaryTable table;
  if (spec_.rotary.dims > 0) {
    table = shared.rotary();
    kv.k = rotate(kv.k, table, spec_.kv_heads, spec_.head_size);
  }
  if (alone) {
    pass.narrow(read);
    projected.insert(projected.begin(), pass.project(a.q, in.index_select(0, read)));
    if (spec_.rotary.dims > 0) table = table.of(read);
  }
  Tensor q = projected.front();
  if (spec_.rotary.dims > 0) q = rotate(q, table, spec_.heads, spec_.head_size);
  if (Cache* cache = pass.batch().cache; cache != nullptr && spec_.causal) {
    Cache::Layer& layer = cache->self[static_cast<size_t>(layer_)];
    layer.append(kv.k, kv.v, kv.rows);
    kv = {layer.k, layer.v, layer.rows};
  }
  AttentionArgs args = arguments(pass, a.probs);
  args.causal = spec_.causal;
  args.window = spec_.window;
  args.bias = shared.bias;
  if (args.bias.defined()) args.positions = shared.gaps();
  Tensor heads = pass.attend({a.kv, a.scores, a.probs, a.heads}, q, kv.k, kv.v, kv.rows, args);
  if (read.defined() && !alone) {
    pass.narrow(read);
    heads = heads.index_select(0, read);
  }
  return pass.at(a.out, pass.project(a.o, heads));
}

/// Keys and values of the rows that cross attention reads: made in the first pass of a decoding.
KeyValues Block::memory_keys(Forward& pass, const StackPass& shared) const {
  const AttentionPart& a = sites_.cross;
  Cache* cache = pass.batch().cache;
  if (cache != nullptr && cache->started) {
    const Cache::Layer& layer = cache->cross[static_cast<size_t>(layer_)];
    return {layer.k, layer.v, layer.rows};
  }
  const RowIndex none;
  pass.enter(shared.memory_stream, none);
  const Tensor memory = pass.at(a.memory, shared.memory);
  const std::vector<Tensor> projected = pass.project({a.k, a.v}, memory);
  const KeyValues kv{projected[0], projected[1], pass.rows()};
  pass.enter(spec_.name, none);
  if (cache != nullptr) cache->cross[static_cast<size_t>(layer_)] = {kv.k, kv.v, kv.rows};
  return kv;
}

Tensor Block::cross_attention(Forward& pass, StackPass& shared, const Tensor& in) const {
  const AttentionPart& a = sites_.cross;
  const Tensor q = pass.project(a.q, in);
  const KeyValues kv = memory_keys(pass, shared);
  const Tensor heads = pass.attend({a.kv, a.scores, a.probs, a.heads}, q, kv.k, kv.v, kv.rows,
                                   arguments(pass, a.probs));
  return pass.at(a.out, pass.project(a.o, heads));
}

Tensor Block::feed_forward(Forward& pass, const Tensor& in) const {
  Tensor hidden;
  if (spec_.gated) {
    const std::vector<Tensor> both = pass.project({sites_.gate, sites_.up}, in);
    hidden = gated_activation(spec_.activation, both[0], both[1]);
  } else {
    hidden = activation(spec_.activation, pass.project(sites_.up, in));
  }
  hidden = dropout(hidden, pass.drop(sites_.hidden, spec_.inner_dropout));
  hidden = pass.at(sites_.hidden, hidden);
  return pass.at(sites_.ffn_out, pass.project(sites_.down, hidden));
}

Block::Rows Block::join(Forward& pass, const Tensor& part, const Tensor& x, int out, int norm,
                        int resid, int next, int in) const {
  const DropSite drop = pass.drop(out, spec_.hidden_dropout);
  if (!spec_.pre_norm) {
    const Tensor sum = pass.at(resid, pass.norm(norm, spec_.norm, spec_.norm_eps, part, x, drop).y);
    return {sum, next < 0 ? Tensor() : pass.at(in, sum)};
  }
  if (next >= 0 && !pass.touched(resid)) {
    // Nobody looks at the sum: it and its norm are one pass over the rows.
    const NormResult fused =
        pass.norm(next, spec_.norm, spec_.norm_eps, part, x, drop, /*keep_sum=*/true);
    return {fused.sum, pass.at(in, fused.y)};
  }
  const Tensor sum = pass.at(resid, x + dropout(part, drop));
  if (next < 0) return {sum, Tensor()};
  return {sum, pass.at(in, pass.norm(next, spec_.norm, spec_.norm_eps, sum).y)};
}

Tensor Block::forward(Forward& pass, StackPass& shared, Tensor x) const {
  const BlockSites& b = sites_;
  Rows rows{pass.at(b.resid_in, x), Tensor()};
  rows.in = pass.at(b.self.in, spec_.pre_norm
                                   ? pass.norm(b.self.norm, spec_.norm, spec_.norm_eps, rows.x).y
                                   : rows.x);
  const Tensor read = rows_read(pass, shared);
  Tensor part = pass.part(b.self.part, rows.in,
                          [&](const Tensor& in) { return self_attention(pass, shared, in, read); });
  if (read.defined()) rows.x = rows.x.index_select(0, read);
  if (spec_.cross) {
    rows =
        join(pass, part, rows.x, b.self.out, b.self.norm, b.resid_cross, b.cross.norm, b.cross.in);
    part = pass.part(b.cross.part, rows.in,
                     [&](const Tensor& in) { return cross_attention(pass, shared, in); });
    rows = join(pass, part, rows.x, b.cross.out, b.cross.norm, b.resid_mid, b.ffn_norm, b.ffn_in);
  } else {
    rows = join(pass, part, rows.x, b.self.out, b.self.norm, b.resid_mid, b.ffn_norm, b.ffn_in);
  }
  part = pass.part(b.ffn, rows.in, [&](const Tensor& in) { return feed_forward(pass, in); });
  return join(pass, part, rows.x, b.ffn_out, b.ffn_norm, b.resid_out, -1, -1).x;
}

}  // namespace attune
