// conv_adapter: convolutions over time, the Conformer and Convpass forms, norms, counts, errors.
#include "base/log.h"
#include "flow_bench.h"
#include "methods/time_conv.h"

namespace attune {
namespace conv_adapter_test {

const std::string kConvSite = "enc.1.ffn.out";
const std::vector<std::string> kConvSites{"enc.0.ffn.out", "enc.1.ffn.out"};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/// y[t, c] = bias[c] + sum_j weight[c, j] x[t + j - before, c] within each sequence.
Tensor naive_depthwise(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const std::vector<int64_t>& lengths, bool causal) {
  Tensor y = at::zeros_like(x);
  const int64_t kernel = weight.size(1), before = causal ? kernel - 1 : (kernel - 1) / 2;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    for (int64_t t = 0; t < length; ++t)
      for (int64_t c = 0; c < x.size(1); ++c) {
        double sum = at1(bias, c);
        for (int64_t j = 0; j < kernel; ++j) {
          const int64_t other = t + j - before;
          if (other >= 0 && other < length) sum += at2(weight, c, j) * at2(x, begin + other, c);
        }
        y.index({begin + t, c}).fill_(sum);
      }
    begin += length;
  }
  return y;
}

TEST(DepthwiseConv, IsTheLoopOverTapsWithinEachSequence) {
  const std::vector<int64_t> lengths{4, 1, 7};
  const RowIndex rows = RowIndex::from_lengths(lengths);
  for (const int64_t kernel : {1, 3, 5, 15})
    for (const bool causal : {false, true}) {
      const Tensor x = as_leaf(rows_named("x", 12, 3)),
                   weight = as_leaf(rows_named("w", 3, kernel)),
                   bias = as_leaf(MethodBench::draw("b", {3}));
      EXPECT_LE(difference(depthwise_conv(x, weight, bias, rows, causal),
                           naive_depthwise(x, weight, bias, lengths, causal)),
                1e-13);
      const Tensor weights = rows_named("loss", 12, 3);
      for (const Tensor& leaf : {x, weight, bias})
        expect_gradient(
            leaf, [&] { return (depthwise_conv(x, weight, bias, rows, causal) * weights).sum(); });
    }
}

TEST(DepthwiseConv, FloatAgreesWithDouble) {
  const RowIndex rows = RowIndex::from_lengths({5, 3});
  const Tensor x = rows_named("x", 8, 4), weight = rows_named("w", 4, 3),
               bias = MethodBench::draw("b", {4});
  EXPECT_LE(difference(depthwise_conv(x.to(at::kFloat), weight.to(at::kFloat), bias.to(at::kFloat),
                                      rows, false),
                       depthwise_conv(x, weight, bias, rows, false)),
            1e-6);
}

TEST(DepthwiseConv, SizesThatDoNotFitAreRefused) {
  const RowIndex rows = RowIndex::from_lengths({5, 3});
  try {
    depthwise_conv(rows_named("x", 8, 4), rows_named("w", 3, 3), MethodBench::draw("b", {4}), rows,
                   false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_EQ(
        std::string(error.what()),
        "a convolution over 8 rows of x [8, 4] with kernels [3, 3] and bias [4]: the sizes or "
        "types differ; expected [rows, c], [c, k] and [c] of one type");
  }
}

TEST(Windows, PutNeighboursOfTheSameSequenceSideBySide) {
  const Tensor x = rows_named("x", 5, 2);
  const Tensor y = windows(x, 3, RowIndex::from_lengths({3, 2}), false);
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t j = 0; j < 3; ++j) {
      const int64_t other = row + j - 1;
      const bool inside = row < 3 ? other >= 0 && other < 3 : other >= 3 && other < 5;
      for (int64_t c = 0; c < 2; ++c)
        EXPECT_EQ(at2(y, row, 2 * j + c), inside ? at2(x, other, c) : 0);
    }
  const Tensor causal = windows(x, 3, RowIndex::from_lengths({3, 2}), true);
  EXPECT_LE(difference(causal.narrow(1, 4, 2), x), 0);  // the last tap is the row itself
}

struct Parts {
  const MethodBench& bench;
  Tensor at(const char* name) const { return bench.parameter_of(kConvSite + "/" + name).detach(); }
};

/// The Conformer form up to its norm.
Tensor conformer_before_norm(const Parts& parts, const Tensor& x,
                             const std::vector<int64_t>& lengths, bool causal = false) {
  const Tensor both = naive_linear(x, parts.at("down"), parts.at("down_bias"));
  const int64_t b = both.size(1) / 2;
  const Tensor gated = both.narrow(1, 0, b) * each(both.narrow(1, b, b), sigmoid);
  return naive_depthwise(gated, parts.at("conv"), parts.at("conv_bias"), lengths, causal);
}
Tensor conformer_after_norm(const Parts& parts, const Tensor& x) {
  const Tensor active = each(x, [](double v) { return v * sigmoid(v); });
  return naive_linear(active, parts.at("up"), parts.at("up_bias"));
}

TEST(ConvAdapter, TheConformerFormIsItsChain) {
  for (const char* norm : {"none", "layer"}) {
    const std::unique_ptr<MethodBench> bench = flow_encoder();
    bench->attach("conv_adapter", {{"size", 2}, {"kernel", 3}, {"norm", norm}});
    const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
    Flow flow;
    flow.reads["enc.1.ffn.in"] = x;
    EXPECT_TRUE(run_site(*bench, kConvSite, h, flow).equal(h)) << "a zero up adds nothing";
    bench->disturb();
    const Parts parts{*bench};
    Tensor inner = conformer_before_norm(parts, x, flow.lengths);
    if (std::string(norm) == "layer")
      inner = naive_norm(inner, parts.at("norm_weight"), parts.at("norm_bias"), 1e-5);
    EXPECT_LE(
        difference(run_site(*bench, kConvSite, h, flow), h + conformer_after_norm(parts, inner)),
        1e-12);
    EXPECT_EQ(bench->trained(), bench->formula("conv_adapter", kConvSites));
  }
}

/// (x - mean) / sqrt(variance + eps) * w + b with the given statistics, column by column.
Tensor naive_batch_norm(const Tensor& x, const Tensor& mean, const Tensor& variance,
                        const Tensor& weight, const Tensor& bias) {
  Tensor y = at::zeros_like(x);
  for (int64_t r = 0; r < x.size(0); ++r)
    for (int64_t c = 0; c < x.size(1); ++c)
      y.index({r, c}).fill_((at2(x, r, c) - at1(mean, c)) / std::sqrt(at1(variance, c) + 1e-5) *
                                at1(weight, c) +
                            at1(bias, c));
  return y;
}

TEST(ConvAdapter, TheBatchNormKeepsRunningStatistics) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("conv_adapter", {{"size", 2}, {"kernel", 3}});
  bench->disturb();
  const Parts parts{*bench};
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.1.ffn.in"] = x;
  const Tensor inner = conformer_before_norm(parts, x, flow.lengths);
  Tensor mean = at::zeros({2}, at::kDouble), variance = at::zeros({2}, at::kDouble);
  for (int64_t c = 0; c < 2; ++c) {
    for (int64_t r = 0; r < 5; ++r) mean[c] += at2(inner, r, c) / 5;
    for (int64_t r = 0; r < 5; ++r) variance[c] += std::pow(at2(inner, r, c) - at1(mean, c), 2) / 5;
  }
  const auto expected = [&](const Tensor& m, const Tensor& v) {
    return h + conformer_after_norm(parts, naive_batch_norm(inner, m, v, parts.at("norm_weight"),
                                                            parts.at("norm_bias")));
  };
  const Tensor running_mean = bench->buffers.at(kConvSite + "/running_mean"),
               running_variance = bench->buffers.at(kConvSite + "/running_variance");
  EXPECT_LE(difference(run_site(*bench, kConvSite, h, flow),
                       expected(at::zeros({2}, at::kDouble), at::ones({2}, at::kDouble))),
            1e-12);
  flow.pass.training = true;
  EXPECT_LE(difference(run_site(*bench, kConvSite, h, flow), expected(mean, variance)), 1e-12);
  EXPECT_LE(difference(running_mean, mean * 0.1), 1e-14);
  EXPECT_LE(difference(running_variance, variance * (5.0 / 4.0) * 0.1 + 0.9), 1e-14);
  // Outside training a row does not depend on who shares its batch.
  flow.pass.training = false;
  const Tensor whole = run_site(*bench, kConvSite, h, flow);
  flow.lengths = {3};
  flow.reads["enc.1.ffn.in"] = x.narrow(0, 0, 3);
  EXPECT_LE(difference(run_site(*bench, kConvSite, h.narrow(0, 0, 3), flow), whole.narrow(0, 0, 3)),
            1e-14);
  EXPECT_EQ(bench->trained(), bench->formula("conv_adapter", kConvSites));
}

TEST(ConvAdapter, TheConvpassFormIsItsChain) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("conv_adapter", {{"form", "convpass"}, {"size", 2}, {"scaling", 0.5}});
  bench->disturb();
  const Parts parts{*bench};
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.1.ffn.in"] = x;
  const Tensor bent = each(naive_linear(x, parts.at("down"), parts.at("down_bias")),
                           [](double v) { return v * sigmoid(1.702 * v); });
  Tensor inner = at::zeros({5, 2}, at::kDouble);
  const Tensor conv = parts.at("conv");  // [b, k * b], tap by tap
  for (int64_t r = 0; r < 5; ++r)
    for (int64_t o = 0; o < 2; ++o) {
      double sum = at1(parts.at("conv_bias"), o);
      for (int64_t j = 0; j < 3; ++j) {
        const int64_t other = r + j - 1;
        const bool inside = r < 3 ? other >= 0 && other < 3 : other >= 3 && other < 5;
        for (int64_t i = 0; inside && i < 2; ++i)
          sum += at2(conv, o, 2 * j + i) * at2(bent, other, i);
      }
      inner.index({r, o}).fill_(sum);
    }
  EXPECT_LE(difference(run_site(*bench, kConvSite, h, flow),
                       h + 0.5 * naive_linear(inner, parts.at("up"), parts.at("up_bias"))),
            1e-12);
  EXPECT_EQ(bench->trained(), bench->formula("conv_adapter", kConvSites));
}

TEST(ConvAdapter, SerialReadsThePartsOutputAndParallelMayAddItsInput) {
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.1.ffn.in"] = x;
  const auto made = [](const Json& more) {
    Json options{{"size", 2}, {"kernel", 3}, {"norm", "none"}, {"init", "random"}};
    options.update(more);
    std::unique_ptr<MethodBench> bench = flow_encoder();
    bench->attach("conv_adapter", options);
    return bench;
  };
  const auto added = [&](const MethodBench& bench, const Tensor& from) {
    const Parts parts{bench};
    return conformer_after_norm(parts, conformer_before_norm(parts, from, {3, 2}));
  };
  const std::unique_ptr<MethodBench> serial = made({{"insertion", "serial"}});
  EXPECT_LE(difference(run_site(*serial, kConvSite, h), h + added(*serial, h)), 1e-12);
  std::string warned;
  set_log_sink([&](LogLevel, const std::string& text) { warned = text; });
  const std::unique_ptr<MethodBench> bare = made({{"insertion", "serial"}, {"residual", "false"}});
  set_log_sink(nullptr);
  EXPECT_NE(warned.find("conv_adapter: without its residual"), std::string::npos) << warned;
  EXPECT_LE(difference(run_site(*bare, kConvSite, h), added(*bare, h)), 1e-12);
  const std::unique_ptr<MethodBench> both = made({{"residual", "true"}});
  EXPECT_LE(difference(run_site(*both, kConvSite, h, flow), h + x + added(*both, x)), 1e-12);
}

TEST(ConvAdapter, ADecoderSeesNoLaterRow) {
  MethodBench bench;
  for (const char* point : {"dec.0.ffn.in", "dec.0.ffn.out"}) bench.flow(point, SiteKind::Rows, 6);
  bench.attach("conv_adapter", {{"size", 2}, {"kernel", 3}, {"norm", "none"}, {"init", "random"}});
  const Tensor h = rows_named("h", 5, 6);
  Tensor x = rows_named("x", 5, 6);
  Flow flow;
  flow.lengths = {5};
  flow.reads["dec.0.ffn.in"] = x;
  const Tensor before = run_site(bench, "dec.0.ffn.out", h, flow).detach();
  flow.reads["dec.0.ffn.in"] = x.clone();
  flow.reads["dec.0.ffn.in"][3] += 1.0;
  const Tensor after = run_site(bench, "dec.0.ffn.out", h, flow).detach();
  EXPECT_TRUE(after.narrow(0, 0, 3).equal(before.narrow(0, 0, 3)));
  EXPECT_FALSE(after[3].equal(before[3]));
  EXPECT_FALSE(after[4].equal(before[4]));
}

TEST(ConvAdapter, EveryGradientIsThatOfCentralDifferences) {
  for (const Json& more : {Json{{"norm", "batch"}}, Json{{"form", "convpass"}}}) {
    const std::unique_ptr<MethodBench> bench = flow_encoder();
    Json options{{"size", 2}, {"kernel", 3}};
    options.update(more);
    bench->attach("conv_adapter", options);
    bench->disturb();
    const Tensor h = rows_named("h", 5, 6), weights = rows_named("loss", 5, 6);
    Flow flow;
    flow.reads["enc.1.ffn.in"] = rows_named("x", 5, 6);
    flow.pass.training = true;
    for (const std::pair<const std::string, Tensor>& entry : bench->parameters)
      if (starts_with(entry.first, kConvSite + "/"))
        expect_gradient(
            entry.second, [&] { return (run_site(*bench, kConvSite, h, flow) * weights).sum(); },
            1e-5);
  }
}

TEST(ConvAdapter, TheCountIsThatOfThePaper) {
  // 0.29 % of 87 M: 12 layers of width 768 with 8 inner features and kernels of 31, and the norms
  // before the feed-forward parts (12 * 2 * 768), which the method `norms` trains.
  const std::unique_ptr<MethodBench> bench = flow_encoder(768, 12);
  bench->attach("conv_adapter", Json::object());
  EXPECT_EQ(bench->trained(), bench->formula("conv_adapter", kConvSites));
  EXPECT_EQ(bench->trained() * 6 + 12 * 2 * 768, 252288);
}

TEST(ConvAdapter, BadOptionsAreReadableErrors) {
  EXPECT_EQ(flow_error("conv_adapter", {{"size", 2}, {"kernel", 4}}),
            "test: test.kernel: conv_adapter: an even kernel of 4 has no middle; give an odd one");
  EXPECT_EQ(flow_error("conv_adapter", {{"reduction", 96}}),
            "conv_adapter: reduction 96 leaves no inner feature of the 6 at enc.0.ffn.out; give a "
            "smaller reduction, or the inner size itself (size)");
  EXPECT_EQ(flow_error("conv_adapter", {{"size", 2}, {"sites", "enc.embed.out"}}),
            "conv_adapter: enc.embed.out is not the end of a part: there are no rows enc.embed.in "
            "of its width before it; choose sites like *.ffn.out, or insertion: serial");
}

TEST(ConvAdapter, ABatchNormCannotTrainOnOneRow) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("conv_adapter", {{"size", 2}});
  Flow flow;
  flow.lengths = {1};
  flow.pass.training = true;
  flow.reads["enc.1.ffn.in"] = rows_named("x", 1, 6);
  try {
    run_site(*bench, kConvSite, rows_named("h", 1, 6), flow);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_EQ(std::string(error.what()),
              "conv_adapter: enc.1.ffn.out: a batch norm cannot train on a batch of one row; use "
              "longer texts, larger batches, or norm: layer");
  }
}

}  // namespace conv_adapter_test
}  // namespace attune
