// hyper_adapter: what the hypernetwork generates, in its three forms; counts, errors.
#include "flow_bench.h"

namespace attune {
namespace hyper_adapter_test {

const std::vector<std::string> kHyperSites{"enc.0.self.out", "enc.0.ffn.out", "enc.1.self.out",
                                           "enc.1.ffn.out"};

const Json kSmallHyper{{"size", 3},   {"tasks", 2},         {"task_size", 3}, {"layer_size", 2},
                       {"hidden", 5}, {"position_size", 2}, {"code", 4},      {"rank", 2}};
Json hyper_with(const Json& more) {
  Json options = kSmallHyper;
  options.update(more);
  return options;
}

Tensor hyper_tensor(const MethodBench& bench, const std::string& name) {
  return bench.parameter_of("shared/" + name).detach();
}

/// norm(dense(relu(dense(input)))) of one row.
Tensor naive_code(const MethodBench& bench, const Tensor& input) {
  const Tensor inner =
      each(naive_linear(input, hyper_tensor(bench, "in"), hyper_tensor(bench, "in_bias")), relu);
  return naive_norm(
      naive_linear(inner, hyper_tensor(bench, "out"), hyper_tensor(bench, "out_bias")),
      hyper_tensor(bench, "norm_weight"), hyper_tensor(bench, "norm_bias"), 1e-6);
}
/// The code of layer `layer` and place `place` (0: self.out, 1: ffn.out) for a task.
Tensor naive_code(const MethodBench& bench, int64_t task, int64_t layer, int64_t place) {
  return naive_code(bench,
                    at::cat({hyper_tensor(bench, "task")[task], hyper_tensor(bench, "layer")[layer],
                             hyper_tensor(bench, "position")[place]})
                        .unsqueeze(0));
}
/// H z as a matrix [rows, columns].
Tensor generated(const MethodBench& bench, const std::string& name, const Tensor& z, int64_t rows,
                 int64_t columns) {
  return naive_linear(z, hyper_tensor(bench, name)).reshape({rows, columns});
}

Tensor naive_rows(const Tensor& h, const Tensor& down, const Tensor& down_bias, const Tensor& up,
                  const Tensor& up_bias) {
  return h + naive_linear(each(naive_linear(h, down, down_bias), gelu), up, up_bias);
}

void check_gradients(MethodBench& bench, Tuner& tuner, const Pass& pass) {
  const Tensor h = rows_named("h", 5, bench.site(kHyperSites[0]).out),
               weights = rows_named("loss", 5, bench.site(kHyperSites[0]).out);
  for (const std::pair<const std::string, Tensor>& entry : bench.parameters) {
    SCOPED_TRACE(entry.first);
    expect_gradient(
        entry.second,
        [&] {
          tuner.prepare(pass);
          Tensor sum = at::zeros({}, at::kDouble);
          for (const std::string& site : kHyperSites)
            sum = sum + (run_site(bench, site, h) * weights).sum();
          return sum;
        },
        1e-5);
  }
}

TEST(HyperAdapter, PlainGeneratesWholeMatricesAndBiases) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("hyper_adapter", kSmallHyper);
  const Tensor h = rows_named("h", 5, 6);
  EXPECT_TRUE(run_site(*bench, kHyperSites[0], h).equal(h))
      << "a zero second projection adds nothing";
  bench->disturb();
  Pass pass;
  pass.task = 1;
  tuner.prepare(pass);
  for (int64_t layer = 0; layer < 2; ++layer)
    for (int64_t place = 0; place < 2; ++place) {
      const Tensor z = naive_code(*bench, 1, layer, place);
      const Tensor expected = naive_rows(
          h, generated(*bench, "down", z, 3, 6), generated(*bench, "down_bias", z, 1, 3)[0],
          generated(*bench, "up", z, 6, 3), generated(*bench, "up_bias", z, 1, 6)[0]);
      EXPECT_LE(difference(run_site(*bench, kHyperSites[static_cast<size_t>(2 * layer + place)], h),
                           expected),
                1e-12);
    }
  EXPECT_EQ(bench->trained(), bench->formula("hyper_adapter", kHyperSites));
  check_gradients(*bench, tuner, pass);
}

TEST(HyperAdapter, DecomposedGeneratesTwoThinFactors) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner =
      bench->attach("hyper_adapter", hyper_with({{"form", "decomposed"}, {"biases", false}}));
  const Tensor h = rows_named("h", 5, 6);
  EXPECT_TRUE(run_site(*bench, kHyperSites[0], h).equal(h));
  bench->disturb();
  tuner.prepare({});
  const Tensor z = naive_code(*bench, 0, 1, 1);
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns) {
    return naive_product(generated(*bench, name + "_p", z, rows, 2),
                         generated(*bench, name + "_q", z, columns, 2).t());
  };
  EXPECT_LE(difference(run_site(*bench, "enc.1.ffn.out", h),
                       naive_rows(h, matrix("down", 3, 6), Tensor(), matrix("up", 6, 3), Tensor())),
            1e-12);
  EXPECT_EQ(bench->trained(), bench->formula("hyper_adapter", kHyperSites));
  check_gradients(*bench, tuner, {});
}

TEST(HyperAdapter, LiteEnlargesOneTemplateByAKernelASite) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("hyper_adapter",
                               hyper_with({{"form", "lite"}, {"size", 4}, {"base_width", 3}}));
  const Tensor h = rows_named("h", 5, 6);
  EXPECT_TRUE(run_site(*bench, kHyperSites[0], h).equal(h));
  EXPECT_TRUE(hyper_tensor(*bench, "task").sizes() == (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(bench->parameters.count("shared/layer"), 0u);
  bench->disturb();
  Pass pass;
  pass.task = 1;
  tuner.prepare(pass);
  const Tensor z = naive_code(*bench, hyper_tensor(*bench, "task").narrow(0, 1, 1));
  const std::string site = "enc.1.self.out";
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns) {
    const Tensor small = naive_product(generated(*bench, name + "_p", z, rows, 2),
                                       generated(*bench, name + "_q", z, columns, 2).t());
    const Tensor kernel = bench->parameter_of(site + "/" + name + "_kernel").detach();
    Tensor large = at::zeros({2 * rows, 2 * columns}, at::kDouble);
    for (int64_t i = 0; i < 2 * rows; ++i)
      for (int64_t j = 0; j < 2 * columns; ++j)
        large.index({i, j}).fill_(at2(kernel, i / rows, j / columns) *
                                  at2(small, i % rows, j % columns));
    return large;
  };
  EXPECT_LE(difference(run_site(*bench, site, h),
                       naive_rows(h, matrix("down", 2, 3), bench->parameter_of(site + "/down_bias"),
                                  matrix("up", 3, 2), bench->parameter_of(site + "/up_bias"))),
            1e-12);
  EXPECT_EQ(bench->trained(), bench->formula("hyper_adapter", kHyperSites));
  check_gradients(*bench, tuner, pass);
}

TEST(HyperAdapter, EqualTaskEmbeddingsGiveEqualAdapters) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("hyper_adapter", kSmallHyper);
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6);
  Pass first, second;
  second.task = 1;
  tuner.prepare(first);
  const Tensor one = run_site(*bench, kHyperSites[3], h).detach();
  tuner.prepare(second);
  EXPECT_GT(difference(run_site(*bench, kHyperSites[3], h), one), 1e-3);
  bench->set("shared/task", hyper_tensor(*bench, "task").narrow(0, 0, 1).expand({2, 3}));
  tuner.prepare(second);
  EXPECT_EQ(difference(run_site(*bench, kHyperSites[3], h), one), 0);
}

TEST(HyperAdapter, TheCountsAreThoseOfThePapers) {
  // d = 384, reduction 8: plain 2 k d n, decomposed 2 k q (d + n), lite on a template of 96.
  const auto trained = [](const Json& more) {
    Json options{{"reduction", 8}, {"biases", false}, {"sites", "*.ffn.out"}};
    options.update(more);
    const std::unique_ptr<MethodBench> bench = flow_encoder(384, 12);
    bench->attach("hyper_adapter", options);
    EXPECT_EQ(bench->trained(),
              bench->formula("hyper_adapter", {"enc.0.ffn.out", "enc.1.ffn.out"}));
    return bench->trained();
  };
  const auto network = [](int64_t input) { return input * 128 + 128 + 128 * 32 + 32 + 2 * 32; };
  const int64_t embeddings = 64 + 2 * 64 + 64;
  EXPECT_EQ(trained({{"form", "plain"}}), embeddings + network(192) + 32 * 2 * 384 * 48);
  EXPECT_EQ(trained({{"form", "decomposed"}}), embeddings + network(192) + 32 * 2 * 4 * (384 + 48));
  EXPECT_EQ(trained({{"form", "lite"}, {"base_width", 96}}),
            64 + network(64) + 32 * 2 * 4 * (96 + 12) + 2 * 2 * 16);
}

TEST(HyperAdapter, BadOptionsAreReadableErrors) {
  const auto text = [](const Json& more) { return flow_error("hyper_adapter", hyper_with(more)); };
  EXPECT_EQ(text({{"form", "decomposed"}, {"rank", 9}}),
            "hyper_adapter: rank 9 at enc.0.self.out is larger than the generated matrix [3, 6]; "
            "give a rank of at most 3");
  EXPECT_EQ(text({{"form", "lite"}, {"base_width", 4}}),
            "hyper_adapter: base_width 4 does not divide the 6 features of enc.0.self.out; give a "
            "divisor of every width");
  EXPECT_EQ(text({{"form", "lite"}, {"base_width", 3}}),
            "hyper_adapter: the inner size 3 at enc.0.self.out is no multiple of 2 = 6 / "
            "base_width; choose another size or reduction");
}

TEST(HyperAdapter, ARunOfSeveralTasksIsRefused) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  const Tuner& two = bench->attach("hyper_adapter", kSmallHyper);
  try {
    two.check({});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    EXPECT_EQ(std::string(error.what()),
              "hyper_adapter: tasks 2: a run's data do not say yet which task an example is of, so "
              "all but the first would never train; leave `tasks` at 1, or train one run a task");
  }
  flow_encoder()->attach("hyper_adapter", hyper_with({{"tasks", 1}})).check({});
}

TEST(HyperAdapter, ACodeOfOneNumberIsRefused) {
  EXPECT_NE(flow_error("hyper_adapter", hyper_with({{"code", 1}})).find("code"), std::string::npos);
}

TEST(HyperAdapter, ATaskWithoutAnEmbeddingIsAReadableError) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("hyper_adapter", kSmallHyper);
  Pass pass;
  pass.task = 2;
  try {
    tuner.prepare(pass);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_EQ(std::string(error.what()),
              "hyper_adapter: the batch is of task 2, but tasks is 2: they are numbered from 0 to "
              "1; raise tasks");
  }
}

}  // namespace hyper_adapter_test
}  // namespace attune
