#pragma once
// Rows and heads sites on the method bench, and a way to run what a method put there.
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "core/bottleneck.h"
#include "method_bench.h"
#include "tensor/rows.h"

namespace attune {

/// Two blocks with every site of an encoder's block; attention of `heads` heads. Post-norm, or
/// pre-norm with a last norm.
inline std::unique_ptr<MethodBench> flow_encoder(int64_t d = 6, int64_t heads = 2,
                                                 bool pre_norm = false) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(d, d + 2);
  bench->flow("enc.embed.out", SiteKind::Rows, d);
  for (const std::string block : {"enc.0.", "enc.1."}) {
    for (const char* point : {"resid.in", "self.in", "self.out", "resid.mid", "ffn.in", "ffn.out"})
      bench->flow(block + point, SiteKind::Rows, d);
    bench->flow(block + "self.kv", SiteKind::KeyValue, d, heads);
    bench->flow(block + "self.heads", SiteKind::Heads, d, heads);
    bench->norm(block + "ffn.norm", d);
  }
  if (pre_norm) bench->norm("enc.final.norm", d);
  return bench;
}

/// Rows of sequences with these lengths, drawn by name.
struct Flow {
  std::vector<int64_t> lengths{3, 2};
  std::map<std::string, Tensor> reads;
  Pass pass;
};

/// What the edits at a site make of x, in their order.
inline Tensor run_site(const MethodBench& bench, const std::string& site, Tensor x,
                       const Flow& flow = {}) {
  const RowIndex rows = RowIndex::from_lengths(flow.lengths);
  std::vector<int64_t> numbers;
  for (int64_t r = 0; r < rows.rows(); ++r) numbers.push_back(1000 + r);
  const Tensor keys = flow.pass.training ? int64_tensor(numbers) : Tensor();
  for (const Edit* edit : bench.edits_at(site)) {
    if (const Scale* scale = std::get_if<Scale>(edit)) x = x * scale->out;
    if (const Shift* shift = std::get_if<Shift>(edit)) x = x + shift->by;
    if (const Apply* apply = std::get_if<Apply>(edit))
      x = apply->fn(View{x, rows, flow.reads, flow.pass, keys, 7});
  }
  return x;
}

inline Tensor rows_named(const std::string& name, int64_t rows, int64_t width) {
  return MethodBench::draw(name, {rows, width});
}

/// x w^T + b as a triple loop; b may be undefined.
inline Tensor naive_linear(const Tensor& x, const Tensor& w, const Tensor& b = {}) {
  const Tensor y = naive_product(x, w.detach().t());
  return b.defined() ? y + b.detach() : y;
}

template <class F>
Tensor each(const Tensor& x, const F& f) {
  const Tensor y = x.detach().clone().contiguous();
  double* data = static_cast<double*>(y.data_ptr());
  for (int64_t i = 0; i < y.numel(); ++i) data[i] = f(data[i]);
  return y;
}
inline double relu(double x) {
  return x > 0 ? x : 0;
}
inline double gelu(double x) {
  return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
}

/// f(x down^T + down_bias) up^T + up_bias from the tensors SITE/down, ...
template <class F>
Tensor naive_adapter(const MethodBench& bench, const std::string& site, const Tensor& x,
                     const F& f) {
  const auto tensor = [&](const char* name) { return bench.parameter_of(site + "/" + name); };
  return naive_linear(each(naive_linear(x, tensor("down"), tensor("down_bias")), f), tensor("up"),
                      tensor("up_bias"));
}

/// (x - mean) / sqrt(variance + eps) * gamma + beta, row by row.
inline Tensor naive_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps) {
  Tensor y = x.detach().clone();
  for (int64_t r = 0; r < x.size(0); ++r) {
    double mean = 0, variance = 0;
    const double width = static_cast<double>(x.size(1));
    for (int64_t i = 0; i < x.size(1); ++i) mean += at2(x, r, i) / width;
    for (int64_t i = 0; i < x.size(1); ++i) variance += std::pow(at2(x, r, i) - mean, 2) / width;
    for (int64_t i = 0; i < x.size(1); ++i)
      y.index({r, i}).fill_((at2(x, r, i) - mean) / std::sqrt(variance + eps) * at1(gamma, i) +
                            at1(beta, i));
  }
  return y;
}

/// Text of the BadInput error that attaching to flow_encoder() ends with.
inline std::string flow_error(const std::string& method, const Json& options) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  try {
    bench->attach(method, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput) << error.what();
    return error.what();
  }
  ADD_FAILURE() << method << " accepted " << options.dump();
  return "";
}

}  // namespace attune
