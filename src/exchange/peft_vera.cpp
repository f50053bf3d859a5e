// VERA: two vectors a module around one shared pair of frozen random matrices (ours: vera).
#include <algorithm>
#include <cmath>

#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

constexpr const char* kVeraA = "base_model.vera_A";
constexpr const char* kVeraB = "base_model.vera_B";

struct Projections {
  Tensor down, up;  // [rank, in], [out, rank]
};

/// What PEFT draws when the matrices are not saved: uniform with Kaiming's bound for a rectifier,
/// first A, then B, from torch's CPU generator (mt19937).
Projections drawn(int64_t key, int64_t rank, int64_t in, int64_t out) {
  const at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(key));
  const auto draw = [&](int64_t rows, int64_t columns) {
    const double bound =
        std::sqrt(3.0) * (std::sqrt(2.0) / std::sqrt(static_cast<double>(columns)));
    return at::empty({rows, columns}, at::kFloat).uniform_(-bound, bound, generator);
  };
  const Tensor down = draw(rank, in);
  return {down, draw(out, rank)};
}

std::vector<PeftTuner> load_vera(PeftSource& source) {
  const PeftConfig& config = source.config;
  const int64_t rank = config.positive("r", 256);
  PeftTuner tuner{"vera", Json{{"sites", Json::array()},
                               {"rank", rank},
                               {"d_initial", config.number("d_initial", 0.1)},
                               {"dropout", config.number("vera_dropout", 0)}}};
  int64_t in = 0, out = 0;
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    in = std::max(in, site.in);
    out = std::max(out, site.out);
    tuner.act_at(site);
    tuner.set(site, "d", source.part(module, "vera_lambda_d", {rank}));
    tuner.set(site, "b", source.part(module, "vera_lambda_b", {site.out}));
  }
  const bool saved = config.flag("save_projection", true) || source.shared.count(kVeraA) > 0;
  const Projections both = saved ? Projections{source.shared_tensor(kVeraA, {rank, in}),
                                               source.shared_tensor(kVeraB, {out, rank})}
                                 : drawn(config.integer("projection_prng_key", 0), rank, in, out);
  tuner.set(Site::shared(), "down", both.down);
  tuner.set(Site::shared(), "up", both.up);
  return {tuner};
}

PeftPiece save_vera(const PeftView& view) {
  PeftPiece piece{"VERA"};
  const Json& options = view.options();
  piece.config = Json{{"r", options.at("rank")},
                      {"d_initial", options.at("d_initial")},
                      {"vera_dropout", options.at("dropout")},
                      {"save_projection", true},
                      {"projection_prng_key", 0},
                      {"init_weights", true},
                      {"fan_in_fan_out", false}};
  for (const Site& site : view.sites())
    piece.updates.push_back(
        {site,
         Json::object(),
         {{"vera_lambda_d", view.tensor(site, "d")}, {"vera_lambda_b", view.tensor(site, "b")}}});
  piece.shared = {{kVeraA, view.tensor(Site::shared(), "down")},
                  {kVeraB, view.tensor(Site::shared(), "up")}};
  return piece;
}

/// PEFT makes the matrices as large as the largest of the modules that it changes.
void finish_vera(PeftPiece& piece) {
  int64_t in = 0, out = 0;
  for (const PeftUpdate& update : piece.updates) {
    in = std::max(in, update.site.in);
    out = std::max(out, update.site.out);
  }
  piece.shared[kVeraA] = piece.shared[kVeraA].slice(1, 0, in);
  piece.shared[kVeraB] = piece.shared[kVeraB].slice(0, 0, out);
}

}  // namespace

PeftType peft_vera() {
  PeftType type;
  type.name = "VERA";
  type.methods = {"vera"};
  type.fields = {
      "r", "d_initial", "vera_dropout", "init_weights", "save_projection", "projection_prng_key"};
  type.parts = {"vera_lambda_b", "vera_lambda_d"};
  type.shared = {kVeraA, kVeraB};
  type.bias_only = "vera_only";
  type.load = load_vera;
  type.save = save_vera;
  type.finish = finish_vera;
  return type;
}

}  // namespace attune
