#include "nn/block.h"

#include <cmath>

#include "kernels/ops/attention.h"
#include "kernels/ops/rowwise.h"
#include "tensor/torch.h"

namespace attune {

Tensor Block::normed(Forward& pass, int norm_site, const Tensor& x) const {
  return pass.norm(norm_site, spec_.norm, spec_.norm_eps, x).y;
}

Tensor Block::attend(Forward& pass, const Tensor& x) const {
  const Tensor q = pass.project(sites_.q, x);
  const Tensor k = pass.project(sites_.k, x);
  const Tensor v = pass.project(sites_.v, x);
  AttentionArgs args;
  args.heads = spec_.heads;
  args.kv_heads = spec_.kv_heads;
  args.head_size = spec_.head_size;
  args.scale = spec_.score_scale != 0 ? spec_.score_scale
                                      : 1.0 / std::sqrt(static_cast<double>(spec_.head_size));
  args.causal = spec_.causal;
  args.window = spec_.window;
  args.drop = pass.drop(sites_.self_probs, spec_.attention_dropout);
  const Tensor heads =
      pass.attend({sites_.self_kv, sites_.self_scores, sites_.self_probs, sites_.heads}, q, k, v,
                  pass.rows(), args);
  return pass.at(sites_.self_out, pass.project(sites_.o, heads));
}

Tensor Block::feed_forward(Forward& pass, const Tensor& x) const {
  const Tensor up = pass.project(sites_.up, x);
  Tensor hidden = spec_.gated ? gated_activation(spec_.activation, pass.project(sites_.gate, x), up)
                              : activation(spec_.activation, up);
  hidden = pass.at(sites_.hidden, hidden);
  return pass.at(sites_.ffn_out, pass.project(sites_.down, hidden));
}

Tensor Block::join(Forward& pass, const Tensor& part, const Tensor& x, int part_site,
                   int norm_site) const {
  const DropSite drop = pass.drop(part_site, spec_.hidden_dropout);
  if (spec_.pre_norm) return x + dropout(part, drop);
  return pass.norm(norm_site, spec_.norm, spec_.norm_eps, part, x, drop).y;
}

Tensor Block::forward(Forward& pass, Tensor x) const {
  x = pass.at(sites_.resid_in, x);
  const Tensor self_in =
      pass.at(sites_.self_in, spec_.pre_norm ? normed(pass, sites_.self_norm, x) : x);
  x = pass.at(sites_.resid_mid, join(pass,
                                     pass.part(sites_.self, self_in,
                                               [&](const Tensor& in) { return attend(pass, in); }),
                                     x, sites_.self_out, sites_.self_norm));
  const Tensor ffn_in =
      pass.at(sites_.ffn_in, spec_.pre_norm ? normed(pass, sites_.ffn_norm, x) : x);
  return pass.at(
      sites_.resid_out,
      join(pass,
           pass.part(sites_.ffn, ffn_in, [&](const Tensor& in) { return feed_forward(pass, in); }),
           x, sites_.ffn_out, sites_.ffn_norm));
}

}  // namespace attune
