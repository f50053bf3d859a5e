#include "method_bench.h"
#include "support/toy_run.h"

namespace attune {
namespace layers_test {

/// Blocks with a trained tensor, of a toy model of `layers` blocks.
std::set<int> trained_blocks(const Json& options, int layers) {
  const ToyRun run({{"layers", options}}, {}, 0, layers);
  std::set<int> blocks;
  for (const Param& param : run.adaptation.trainable()) blocks.insert(param.layer);
  return blocks;
}

TEST(Layers, TheFirstTheLastOrChosenBlocksTrain) {
  EXPECT_EQ(trained_blocks(Json{{"last", 2}}, 5), (std::set<int>{3, 4}));
  EXPECT_EQ(trained_blocks(Json{{"first", 1}}, 5), (std::set<int>{0}));
  EXPECT_EQ(trained_blocks(Json{{"choose", {1, 3}}}, 5), (std::set<int>{1, 3}));
  EXPECT_EQ(trained_blocks(Json{{"first", 1}, {"last", 1}, {"choose", {2}}}, 5),
            (std::set<int>{0, 2, 4}));
}

TEST(Layers, AutoIsTheLastQuarter) {
  EXPECT_EQ(trained_blocks(Json::object(), 1), (std::set<int>{0}));
  EXPECT_EQ(trained_blocks(Json::object(), 4), (std::set<int>{3}));
  EXPECT_EQ(trained_blocks(Json::object(), 6), (std::set<int>{4, 5}));
  EXPECT_EQ(trained_blocks(Json::object(), 12), (std::set<int>{9, 10, 11}));
}

TEST(Layers, EveryTensorOfTheBlocksTrainsAndNoOther) {
  ToyRun run({{"layers", Json{{"last", 1}}}});
  run.train();
  int64_t elements = 0;
  for (const Param& param : run.adaptation.trainable()) {
    EXPECT_NE(param.name.find("enc.1."), std::string::npos);
    EXPECT_FALSE(at::equal(param.value.detach(), run.base(param.name))) << param.name;
    elements += param.value.numel();
  }
  // q, k, v, o [6, 6] + 6; up, gate [10, 6] + 10; down [6, 10] + 6; two norms 6 + 6.
  EXPECT_EQ(elements, 4 * 42 + 2 * 70 + 66 + 2 * 12);
  std::vector<Site> sites;
  for (const Site& site : run.model.sites())
    if (site.layer == 1 && site.kind == SiteKind::Weight) sites.push_back(site);
  EXPECT_EQ(run.registry.at("layers").count(sites, Options()), elements);
}

TEST(Layers, ChoicesOutsideTheModelAreReadableErrors) {
  EXPECT_EQ(MethodBench::error_of("layers", Json{{"choose", {0, 2}}}),
            "layers: there is no block 2 to choose; this model's are numbered 0 to 1");
  EXPECT_EQ(MethodBench::error_of("layers", Json{{"choose", {0.5}}}),
            "layers: there is no block 0.5 to choose; this model's are numbered 0 to 1");
  EXPECT_EQ(MethodBench::error_of("layers", Json{{"last", 3}}),
            "layers: 3 last blocks are more than the 2 that this model has");
  EXPECT_EQ(MethodBench::error_of("layers", Json{{"first", 4}}),
            "layers: 4 first blocks are more than the 2 that this model has");
  EXPECT_EQ(MethodBench::error_of("layers", Json{{"last", 0}}),
            "layers: no block is chosen; give `first`, `last` or `choose`, or leave all out for "
            "the last quarter");
  EXPECT_EQ(MethodBench::error_of("layers", Json{{"sites", {"enc.embed.*"}}}),
            "layers: the chosen sites hold no tensor of the checkpoint that it could train; give "
            "other `sites`, or allow their weights, biases and norms");
}

}  // namespace layers_test
}  // namespace attune
