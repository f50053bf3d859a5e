// mh_parallel_adapter: one adapter a head on its query, counts, errors.
#include "flow_bench.h"

namespace attune {
namespace mh_parallel_adapter_test {

const std::string kMhSite = "enc.1.self.heads";
const std::vector<std::string> kMhSites{"enc.0.self.heads", "enc.1.self.heads"};

/// z_i + scale * relu(q_i down_i^T) up_i with q = W_q x + b_q, head by head.
Tensor naive_heads(const MethodBench& bench, const Tensor& z, const Tensor& x, double scale) {
  const Tensor q =
      naive_linear(x, bench.weight_of("enc.1.self.q"), bench.bias(bench.site("enc.1.self.q")));
  const Tensor down = bench.parameter_of(kMhSite + "/down").detach(),
               up = bench.parameter_of(kMhSite + "/up").detach();
  Tensor y = z.clone();
  const int64_t width = z.size(2);
  for (int64_t head = 0; head < z.size(1); ++head) {
    const Tensor inner = each(naive_linear(q.narrow(1, head * width, width), down[head]), relu);
    y.select(1, head).add_(naive_product(inner, up[head]) * scale);
  }
  return y;
}

TEST(MhParallelAdapter, EachHeadsAdapterReadsItsUnscaledQuery) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(6, 3);
  Tuner& tuner = bench->attach("mh_parallel_adapter", {{"size", 4}, {"scaling", 1.5}});
  const Tensor z = MethodBench::draw("z", {5, 3, 2}), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.1.self.in"] = x;
  EXPECT_TRUE(run_site(*bench, kMhSite, z, flow).equal(z)) << "a zero up adds nothing";
  bench->disturb();
  tuner.prepare({});
  EXPECT_LE(difference(run_site(*bench, kMhSite, z, flow), naive_heads(*bench, z, x, 1.5)), 1e-12);
  const Tensor weights = MethodBench::draw("loss", {5, 3, 2});
  for (const char* name : {"/down", "/up"})
    expect_gradient(bench->parameter_of(kMhSite + name), [&] {
      tuner.prepare({});
      return (run_site(*bench, kMhSite, z, flow) * weights).sum();
    });
}

TEST(MhParallelAdapter, ANormMayStandBeforeTheQuery) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(6, 3);
  Tuner& tuner = bench->attach("mh_parallel_adapter", {{"size", 4}, {"layer_norm", true}});
  bench->disturb();
  tuner.prepare({});
  const Tensor z = MethodBench::draw("z", {5, 3, 2}), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.1.self.in"] = x;
  const Tensor normed = naive_norm(x, bench->parameter_of("enc.1.self.in/norm_weight"),
                                   bench->parameter_of("enc.1.self.in/norm_bias"), 1e-5);
  EXPECT_LE(difference(run_site(*bench, kMhSite, z, flow), naive_heads(*bench, z, normed, 1)),
            1e-12);
  EXPECT_EQ(bench->trained(),
            bench->formula("mh_parallel_adapter",
                           {"enc.0.self.in", "enc.0.self.heads", "enc.1.self.in", kMhSite}));
}

TEST(MhParallelAdapter, TheCountIsThatOfAPrefixOfItsSize) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(768, 12);
  bench->attach("mh_parallel_adapter", {{"size", 30}});
  EXPECT_EQ(bench->trained(), 2 * (2 * 30 * 768));  // 2 l d an attention
  EXPECT_EQ(bench->trained(), bench->formula("mh_parallel_adapter", kMhSites));
}

TEST(MhParallelAdapter, AttentionWithoutAQueryProjectionIsAReadableError) {
  MethodBench bench;
  bench.flow("enc.0.self.in", SiteKind::Rows, 6);
  bench.flow("enc.0.self.heads", SiteKind::Heads, 6, 2);
  try {
    bench.attach("mh_parallel_adapter", Json::object());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_EQ(std::string(error.what()),
              "mh_parallel_adapter: enc.0.self.heads has no enc.0.self.q beside it, from which its "
              "heads read; choose attentions with separate query projections");
  }
}

}  // namespace mh_parallel_adapter_test
}  // namespace attune
