#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

/// Times of the kernels on a MiniLM-sized step: 2048 rows of 384, 12 heads of 32, texts of 16
/// tokens. ATTUNE_THREADS sets the thread count, ATTUNE_ISA lowers the instruction set.
namespace attune::kernels {
namespace {

constexpr int64_t kRows = 2048, kCols = 384, kInner = 1536, kHeads = 12, kHead = 32;

template <class T>
std::vector<T> randoms(uint64_t seed, int64_t count) {
  const Stream64 stream(seed, "bench");
  std::vector<float> x(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    x[i] = static_cast<float>(stream.uniform(static_cast<uint64_t>(i)) * 2 - 1);
  std::vector<T> out(x.size());
  if constexpr (sizeof(T) == 2)
    convert(x.data(), out.data(), count);
  else
    std::memcpy(out.data(), x.data(), x.size() * 4);
  return out;
}

template <class T>
constexpr DType kType = sizeof(T) == 2 ? DType::BF16 : DType::F32;

template <class T>
void gemm_packed(benchmark::State& state) {
  const int64_t m = state.range(0), k = state.range(1), n = state.range(2);
  const std::vector<T> a = randoms<T>(1, m * k), b = randoms<T>(2, k * n);
  std::vector<T> c(static_cast<size_t>(m * n));
  const PackedMatrix packed({b.data(), kType<T>, n, k, true}, kType<T>, m);
  for (auto _ : state)
    gemm({a.data(), kType<T>, m, k, false}, packed, {c.data(), kType<T>, m, n}, nullptr, false);
  state.counters["GF/s"] =
      benchmark::Counter(2e-9 * double(m) * double(k) * double(n) * double(state.iterations()),
                         benchmark::Counter::kIsRate);
  state.SetLabel(last_gemm_implementation());
}
BENCHMARK(gemm_packed<bf16>)
    ->Args({2048, 384, 384})
    ->Args({2048, 384, 1536})
    ->Args({2048, 1536, 384})
    ->UseRealTime();
BENCHMARK(gemm_packed<float>)
    ->Args({2048, 384, 384})
    ->Args({2048, 384, 1536})
    ->Args({2048, 1536, 384})
    ->UseRealTime();

template <class T>
void gemm_weight_gradient(benchmark::State& state) {
  const int64_t m = kRows, k = state.range(0), n = state.range(1);
  const std::vector<T> dy = randoms<T>(1, m * n), x = randoms<T>(2, m * k);
  std::vector<float> dw(static_cast<size_t>(k * n));
  for (auto _ : state)
    gemm({dy.data(), kType<T>, m, n, true}, {x.data(), kType<T>, m, k, false},
         {dw.data(), DType::F32, n, k}, nullptr, true);
  state.counters["GF/s"] =
      benchmark::Counter(2e-9 * double(m) * double(k) * double(n) * double(state.iterations()),
                         benchmark::Counter::kIsRate);
  state.SetLabel(last_gemm_implementation());
}
BENCHMARK(gemm_weight_gradient<bf16>)
    ->Args({384, 384})
    ->Args({384, 1536})
    ->Args({1536, 384})
    ->UseRealTime();
BENCHMARK(gemm_weight_gradient<float>)->Args({384, 1536})->UseRealTime();

void gemm_double(benchmark::State& state) {
  const int64_t m = 512, k = kCols, n = kCols;
  const std::vector<double> a(m * k, 1.0), b(k * n, 1.0);
  std::vector<double> c(m * n);
  for (auto _ : state)
    gemm({a.data(), DType::F64, m, k, false}, {b.data(), DType::F64, k, n, false},
         {c.data(), DType::F64, m, n}, nullptr, false);
  state.counters["GF/s"] =
      benchmark::Counter(2e-9 * double(m) * double(k) * double(n) * double(state.iterations()),
                         benchmark::Counter::kIsRate);
}
BENCHMARK(gemm_double)->UseRealTime();

std::vector<uint64_t> keys() {
  std::vector<uint64_t> out(kRows);
  for (size_t r = 0; r < out.size(); ++r) out[r] = mix(1, r);
  return out;
}

template <class T>
void norm_forward_bench(benchmark::State& state) {
  const std::vector<T> x = randoms<T>(1, kRows * kCols), residual = randoms<T>(2, kRows * kCols);
  const std::vector<float> gamma(kCols, 1), beta(kCols, 0);
  const std::vector<uint64_t> row_keys = keys();
  std::vector<T> h(x.size()), y(x.size());
  std::vector<float> mean(kRows), rstd(kRows);
  const Dropout drop{state.range(0) != 0 ? 0.1f : 0.0f, row_keys.data(), 1};
  for (auto _ : state)
    norm_forward<T>(NormKind::Layer, x.data(), residual.data(), drop, gamma.data(), beta.data(),
                    1e-12, kRows, kCols, h.data(), y.data(), mean.data(), rstd.data());
}
BENCHMARK(norm_forward_bench<bf16>)->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(norm_forward_bench<float>)->Arg(0)->UseRealTime();

template <class T>
void norm_backward_bench(benchmark::State& state) {
  const std::vector<T> h = randoms<T>(1, kRows * kCols), dy = randoms<T>(2, kRows * kCols);
  const std::vector<float> gamma(kCols, 1), mean(kRows, 0), rstd(kRows, 1.7f);
  const std::vector<uint64_t> row_keys = keys();
  std::vector<T> dh(h.size()), dx(h.size());
  std::vector<float> dgamma(kCols), dbeta(kCols);
  const Dropout drop{state.range(0) != 0 ? 0.1f : 0.0f, row_keys.data(), 1};
  for (auto _ : state)
    norm_backward<T>(NormKind::Layer, dy.data(), nullptr, h.data(), mean.data(), rstd.data(),
                     gamma.data(), drop, kRows, kCols, dh.data(), drop.on() ? dx.data() : dh.data(),
                     dgamma.data(), dbeta.data());
}
BENCHMARK(norm_backward_bench<bf16>)->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(norm_backward_bench<float>)->Arg(0)->UseRealTime();

template <class T>
void gelu(benchmark::State& state) {
  const std::vector<T> x = randoms<T>(1, kRows * kInner), dy = randoms<T>(2, kRows * kInner);
  std::vector<T> y(x.size());
  const Activation f = static_cast<Activation>(state.range(1));
  for (auto _ : state) {
    if (state.range(0) == 0)
      activation_forward(f, x.data(), y.data(), kRows * kInner);
    else
      activation_backward(f, x.data(), dy.data(), y.data(), kRows * kInner);
  }
}
BENCHMARK(gelu<bf16>)->ArgsProduct({{0, 1}, {0, 1}})->UseRealTime();
BENCHMARK(gelu<float>)->ArgsProduct({{0, 1}, {0}})->UseRealTime();

template <class T>
void dropout_bench(benchmark::State& state) {
  const std::vector<T> x = randoms<T>(1, kRows * kCols);
  const std::vector<uint64_t> row_keys = keys();
  std::vector<T> y(x.size());
  for (auto _ : state) dropout(x.data(), y.data(), kRows, kCols, {0.1f, row_keys.data(), 1});
}
BENCHMARK(dropout_bench<bf16>)->UseRealTime();

template <class T>
void column_sum_bench(benchmark::State& state) {
  const std::vector<T> x = randoms<T>(1, kRows * kInner);
  std::vector<float> out(kInner);
  for (auto _ : state) column_sum(x.data(), kRows, kInner, out.data(), true);
}
BENCHMARK(column_sum_bench<bf16>)->UseRealTime();

/// Arguments: tokens a text, backward, dropout, head size.
template <class T>
void attention(benchmark::State& state) {
  const int64_t length = state.range(0), d = state.range(3), width = kHeads * d;
  const std::vector<T> qkv = randoms<T>(1, kRows * 3 * width), dout = randoms<T>(2, kRows * width);
  const std::vector<uint64_t> row_keys = keys();
  std::vector<int32_t> offsets;
  for (int64_t r = 0; r <= kRows; r += length) offsets.push_back(static_cast<int32_t>(r));
  // One block with odd gaps: arrays that start at the same place of a page would fight for cache
  // sets.
  const size_t part = dout.size() + 1184;
  std::vector<T> results(4 * part);
  T *out = results.data(), *dq = out + part, *dk = dq + part, *dv = dk + part;
  std::vector<float> lse(kRows * kHeads);
  AttentionShape shape;
  shape.sequences = static_cast<int64_t>(offsets.size()) - 1;
  shape.q_offsets = shape.k_offsets = offsets.data();
  shape.heads = shape.kv_heads = kHeads;
  shape.head_size = d;
  shape.q_stride = shape.k_stride = shape.v_stride = 3 * width;
  shape.scale = 0.17;
  if (state.range(2) != 0) shape.drop = {0.1f, row_keys.data(), 1};
  const T* q = qkv.data();
  const AttentionBias<T> none;
  attention_forward<T>(shape, none, q, q + width, q + 2 * width, out, lse.data());
  for (auto _ : state) {
    if (state.range(1) == 0)
      attention_forward<T>(shape, none, q, q + width, q + 2 * width, out, lse.data());
    else
      attention_backward<T>(shape, none, q, q + width, q + 2 * width, out, lse.data(), dout.data(),
                            dq, dk, dv);
  }
  const double flops =
      (state.range(1) == 0 ? 4.0 : 10.0) * double(kRows) * double(length) * double(width);
  state.counters["GF/s"] =
      benchmark::Counter(flops * 1e-9 * double(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(attention<bf16>)->ArgsProduct({{16, 128, 512}, {0, 1}, {0, 1}, {32}})->UseRealTime();
BENCHMARK(attention<bf16>)->ArgsProduct({{16, 32, 128}, {0, 1}, {0}, {64}})->UseRealTime();
BENCHMARK(attention<float>)->ArgsProduct({{16, 128}, {0, 1}, {0}, {32}})->UseRealTime();

void adamw_bench(benchmark::State& state) {
  const int64_t count = 1 << 22;
  std::vector<float> p = randoms<float>(1, count), g = randoms<float>(2, count), m(p.size()),
                     v(p.size());
  AdamW o;
  o.lr = 1e-3;
  for (auto _ : state) adamw<float>(o, p.data(), g.data(), m.data(), v.data(), nullptr, count);
  state.counters["ns/param"] =
      benchmark::Counter(1e-9 * double(count) * double(state.iterations()),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(adamw_bench)->UseRealTime();

void embedding(benchmark::State& state) {
  const int64_t vocabulary = 30522;
  const std::vector<float> table = randoms<float>(1, vocabulary * kCols);
  std::vector<float> gradient(table.size());
  const std::vector<bf16> dy = randoms<bf16>(2, kRows * kCols);
  std::vector<bf16> y(dy.size());
  std::vector<int32_t> ids(kRows);
  for (size_t r = 0; r < ids.size(); ++r) ids[r] = static_cast<int32_t>(mix(5, r) % vocabulary);
  const float* tables[] = {table.data()};
  const int32_t* index[] = {ids.data()};
  for (auto _ : state) {
    if (state.range(0) == 0)
      embedding_forward<bf16>(1, tables, index, kRows, kCols, y.data());
    else
      embedding_backward<bf16>(dy.data(), ids.data(), kRows, kCols, vocabulary, gradient.data());
  }
}
BENCHMARK(embedding)->Arg(0)->Arg(1)->UseRealTime();

}  // namespace
}  // namespace attune::kernels

int main(int argc, char** argv) {
  const char* threads = std::getenv("ATTUNE_THREADS");
  attune::kernels::set_threads(threads != nullptr ? std::atoi(threads) : 2);
  benchmark::AddCustomContext("isa", attune::kernels::isa_name(attune::kernels::isa()));
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
