// OFT: block-diagonal rotations of a projection's inputs (ours: oft).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

Json oft_options(const PeftConfig& config) {
  Json options{{"sites", Json::array()},
               {"block_share", config.flag("block_share", false)},
               {"coft", config.flag("coft", false)},
               {"eps", config.number("eps", 6e-5)}};
  const bool series = config.flag("use_cayley_neumann", true);
  options["neumann_terms"] = series ? config.integer("num_cayley_neumann_terms", 5) : 0;
  const int64_t blocks = config.integer("r", 0), size = config.integer("oft_block_size", 32);
  if ((blocks == 0) == (size == 0))
    config.refuse(
        "r",
        "of r and oft_block_size exactly one is zero in files of PEFT's present OFT; older "
        "ones hold other tensors: load them in the release that wrote them and merge");
  if (blocks > 0) {
    options["blocks"] = blocks;
  } else {
    options["block_size"] = size;
  }
  return options;
}

std::vector<PeftTuner> load_oft(PeftSource& source) {
  PeftTuner tuner{"oft", oft_options(source.config)};
  for (const PeftModule& module : source.modules) {
    tuner.act_at(module.site);
    // The block size may be adjusted to the inputs; the method does so as PEFT does.
    tuner.set(module.site, "rotation", source.part(module, "oft_R.weight", {-1, -1}));
  }
  return {tuner};
}

PeftPiece save_oft(const PeftView& view) {
  PeftPiece piece{"OFT"};
  const Json& options = view.options();
  const int64_t blocks = options.at("blocks").get<int64_t>();
  const int64_t terms = options.at("neumann_terms").get<int64_t>();
  piece.config = Json{{"r", blocks},
                      {"oft_block_size", blocks > 0 ? Json(0) : options.at("block_size")},
                      {"block_share", options.at("block_share")},
                      {"coft", options.at("coft")},
                      {"eps", options.at("eps")},
                      {"use_cayley_neumann", terms > 0},
                      {"num_cayley_neumann_terms", terms > 0 ? terms : 5},
                      {"module_dropout", 0.0},
                      {"init_weights", true},
                      {"fan_in_fan_out", false}};
  for (const Site& site : view.sites())
    piece.updates.push_back(
        {site, Json::object(), {{"oft_R.weight", view.tensor(site, "rotation")}}});
  return piece;
}

}  // namespace

PeftType peft_oft() {
  PeftType type;
  type.name = "OFT";
  type.methods = {"oft"};
  type.fields = {"r",
                 "oft_block_size",
                 "block_share",
                 "coft",
                 "eps",
                 "use_cayley_neumann",
                 "num_cayley_neumann_terms",
                 "module_dropout",
                 "init_weights"};
  type.parts = {"oft_R.weight"};
  type.bias_only = "oft_only";
  type.load = load_oft;
  type.save = save_oft;
  return type;
}

}  // namespace attune
