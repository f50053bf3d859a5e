// BOFT: butterfly rotations of a projection's inputs and a scale of its outputs (ours: boft).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// Rows and columns of the upper triangle of a block, row by row, as places in the flat block.
Tensor upper_places(int64_t block) {
  const Tensor pairs = at::triu_indices(block, block, 1, at::kLong);
  return pairs.select(0, 0) * block + pairs.select(0, 1);
}

std::vector<PeftTuner> load_boft(PeftSource& source) {
  const PeftConfig& config = source.config;
  const int64_t blocks = config.integer("boft_block_num", 0);
  const int64_t factors = config.positive("boft_n_butterfly_factor", 1);
  PeftTuner tuner{"boft", Json{{"sites", Json::array()},
                               {"factors", factors},
                               {"dropout", config.number("boft_dropout", 0)}}};
  if (blocks > 0) {
    tuner.options["blocks"] = blocks;
  } else {
    tuner.options["block_size"] = config.integer("boft_block_size", 4);
  }
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    const Tensor r = source.part(module, "boft_R", {factors, -1, -1, -1});
    const int64_t block = r.size(3);
    if (r.size(2) != block) source.corrupt(module, "boft_R", "its blocks are not square");
    // Only the skew-symmetric part of a block acts.
    const Tensor skew = (r - r.transpose(2, 3)) * 0.5;
    tuner.act_at(site);
    tuner.set(site, "rotation",
              skew.reshape({factors, r.size(1), -1}).index_select(2, upper_places(block)));
    tuner.set(site, "scale", source.part(module, "boft_s", {site.out, 1}).reshape({-1}));
  }
  return {tuner};
}

PeftPiece save_boft(const PeftView& view) {
  PeftPiece piece{"BOFT"};
  const Json& options = view.options();
  const int64_t blocks = options.at("blocks").get<int64_t>();
  piece.config = Json{{"boft_block_num", blocks},
                      {"boft_block_size", blocks > 0 ? Json(0) : options.at("block_size")},
                      {"boft_n_butterfly_factor", options.at("factors")},
                      {"boft_dropout", options.at("dropout")},
                      {"init_weights", true},
                      {"fan_in_fan_out", false}};
  for (const Site& site : view.sites()) {
    const Tensor upper = view.tensor(site, "rotation");
    const int64_t count = upper.size(1), block = site.in / count;
    const Tensor filled = at::zeros({upper.size(0), count, block * block})
                              .index_copy(2, upper_places(block), upper)
                              .reshape({upper.size(0), count, block, block});
    piece.updates.push_back({site,
                             Json::object(),
                             {{"boft_R", filled - filled.transpose(2, 3)},
                              {"boft_s", view.tensor(site, "scale").reshape({-1, 1})}}});
  }
  return piece;
}

}  // namespace

PeftType peft_boft() {
  PeftType type;
  type.name = "BOFT";
  type.methods = {"boft"};
  type.fields = {"boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "boft_dropout",
                 "init_weights"};
  type.parts = {"boft_R", "boft_s"};
  type.bias_only = "boft_only";
  type.load = load_boft;
  type.save = save_boft;
  return type;
}

}  // namespace attune
