#include "kernels/ops/attention.h"

#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

kernels::AttentionShape shape_of(const RowIndex& q_rows, const RowIndex& k_rows,
                                 const AttentionArgs& args) {
  kernels::AttentionShape shape;
  shape.sequences = q_rows.sequences();
  shape.q_offsets = q_rows.data();
  shape.k_offsets = k_rows.data();
  shape.heads = args.heads;
  shape.kv_heads = args.kv_heads;
  shape.head_size = args.head_size;
  shape.q_stride = args.heads * args.head_size;
  shape.k_stride = shape.v_stride = args.kv_heads * args.head_size;
  shape.scale = args.scale;
  shape.causal = args.causal;
  shape.window = args.window;
  shape.positions = pointer<const int32_t>(args.positions);
  shape.drop = args.drop.kernel();
  shape.heads_in_rows = args.heads_in_rows;
  return shape;
}

struct Saved {
  Tensor q, k, v, log_sums;
  Tensor out;  // undefined where all keys of a sequence are taken at once
  RowIndex q_rows, k_rows;
  AttentionArgs args;
  bool need_bias;
};

template <class T>
kernels::AttentionBias<T> bias_of(const Tensor& table, const Tensor& gradient) {
  using A = kernels::acc_t<T>;
  if (!table.defined()) return {};
  return {pointer<A>(table), pointer<A>(gradient), (table.size(1) - 1) / 2};
}

Tensors attention_gradients(const Saved& s, const Tensors& g) {
  const Tensor dout = dense_as(g[0], s.q.scalar_type());
  const bool shared = s.k.is_same(s.v);  // one gradient of both
  Tensor dq = at::empty_like(s.q), dk = at::empty_like(s.k), dv = shared ? dk : at::empty_like(s.v);
  Tensor dbias = s.need_bias ? at::zeros_like(s.args.bias) : Tensor();
  const kernels::AttentionShape shape = shape_of(s.q_rows, s.k_rows, s.args);
  dispatch(s.q, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = kernels::acc_t<T>;
    kernels::attention_backward<T>(shape, bias_of<T>(s.args.bias, dbias), pointer<T>(s.q),
                                   pointer<T>(s.k), pointer<T>(s.v), pointer<T>(s.out),
                                   pointer<A>(s.log_sums), pointer<T>(dout), pointer<T>(dq),
                                   pointer<T>(dk), pointer<T>(dv));
  });
  return {dq, dk, shared ? Tensor() : dv, dbias};
}

}  // namespace

Tensor attention(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in, const RowIndex& q_rows,
                 const RowIndex& k_rows, const AttentionArgs& args_in) {
  AttentionArgs args = args_in;
  if (args.bias.defined()) args.bias = args.bias.detach();
  const bool shared = k_in.is_same(v_in);
  const Tensor q = q_in.detach().contiguous(), k = k_in.detach().contiguous(),
               v = shared ? k : v_in.detach().contiguous();
  Tensor out = at::empty_like(q);
  Tensor log_sums = at::empty({q.size(0), args.heads}, q.options().dtype(master_of(dtype_of(q))));
  const kernels::AttentionShape shape = shape_of(q_rows, k_rows, args);
  dispatch(q, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = kernels::acc_t<T>;
    kernels::attention_forward<T>(shape, bias_of<T>(args.bias, Tensor()), pointer<T>(q),
                                  pointer<T>(k), pointer<T>(v), pointer<T>(out),
                                  pointer<A>(log_sums));
  });
  const bool chunked = k_rows.longest > kernels::kKeyChunk;
  Saved saved{q,
              k,
              v,
              log_sums,
              chunked ? out.detach() : Tensor(),
              q_rows,
              k_rows,
              args,
              wants_gradient(args_in.bias)};
  return record(
      out, {q_in, k_in, shared ? Tensor() : v_in, args_in.bias}, "attention",
      [saved = std::move(saved)](const Tensors& g) { return attention_gradients(saved, g); });
}

}  // namespace attune
