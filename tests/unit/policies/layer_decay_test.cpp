#include <cmath>

#include "support/toy_run.h"

namespace attune {
namespace layer_decay_test {

TEST(LayerDecay, SixBlocksAndTheEmbeddingsHaveTheRatesOfTheTable) {
  ToyRun run({{"full", Json::object()}}, {{"layer_decay", Json{{"factor", 0.9}}}}, 0, 6);
  std::vector<Param> params = run.adaptation.trainable();
  TrainState state{run.model, run.adaptation, params, {}};
  run.policies[0]->begin(state);
  // lr * {0.9^1 .. 0.9^7} from the top block down to the embeddings; heads at lr.
  const std::map<std::string, double> table{
      {"head", 1},       {"enc.5", 0.9},     {"enc.4", 0.81},     {"enc.3", 0.729},
      {"enc.2", 0.6561}, {"enc.1", 0.59049}, {"enc.0", 0.531441}, {"enc.embed", 0.4782969}};
  for (const Param& param : params) {
    const std::string site = split(param.name, '/')[2];
    const std::string group =
        starts_with(site, "head.") ? "head" : site.substr(0, site.find('.', 4));
    EXPECT_NEAR(param.lr_scale, table.at(group), 1e-12) << param.name;
  }
}

}  // namespace layer_decay_test
}  // namespace attune
