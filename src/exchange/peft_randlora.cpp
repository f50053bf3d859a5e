// RANDLORA: scaled sums of frozen random bases that all modules share (ours: randlora).
#include <algorithm>
#include <cmath>

#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

constexpr const char* kA = "base_model.randlora_A";
constexpr const char* kB = "base_model.randlora_B";

struct Bases {
  Tensor a, b;  // [rank, 1, smaller], [larger, bases, rank]
};
/// The sides of the largest matrices that share the bases.
struct Sides {
  int64_t in = 0, out = 0;
  void cover(const Site& site) {
    in = std::max(in, site.in);
    out = std::max(out, site.out);
  }
  int64_t smaller() const { return std::min(in, out); }
  int64_t larger() const { return std::max(in, out); }
  int64_t bases(int64_t rank) const { return (smaller() + rank - 1) / rank; }
};

Tensor rounded(const Tensor& x) {
  return x.to(at::kBFloat16).to(at::kFloat);
}

/// PEFT draws these in bfloat16 wherever the machine has it, which all but old GPUs do: torch draws
/// single-precision numbers there, rounds them, and puts the lower bound for one that reaches the
/// upper.
Bases drawn_dense(const at::Generator& generator, int64_t rank, const Sides& sides) {
  const auto draw = [&](const std::vector<int64_t>& shape, int64_t inputs) {
    const double bound =
        std::sqrt(3.0) * (std::sqrt(2.0 / 6.0) / std::sqrt(static_cast<double>(inputs)));
    const Tensor values = rounded(at::empty(shape, at::kFloat).uniform_(-bound, bound, generator));
    const Tensor end = rounded(at::full({1}, bound, at::kFloat));
    return at::where(values == end, -end, values);
  };
  const Tensor a = draw({rank, 1, sides.smaller()}, sides.smaller());
  std::vector<Tensor> parts;
  for (int64_t i = 0; i < sides.bases(rank); ++i)
    parts.push_back(draw({sides.larger(), 1, rank}, rank));
  const Tensor b = at::cat(parts, 1);
  return {rounded(a / rounded(a.std())), rounded(b / rounded(b.std()))};
}

/// -1, 0 and 1 with the chances 1/2s, 1 - 1/s, 1/2s.
Bases drawn_sparse(const at::Generator& generator, int64_t rank, const Sides& sides, double s) {
  const auto draw = [&](const std::vector<int64_t>& shape) {
    const Tensor values = at::rand(shape, generator, at::kFloat);
    return (values > 1 - 1 / (2 * s)).to(at::kFloat) - (values < 1 / (2 * s)).to(at::kFloat);
  };
  const Tensor a = draw({rank, 1, sides.smaller()});
  const Tensor b = draw({sides.larger(), sides.bases(rank), rank});
  return {a / a.std(), b / b.std()};
}

/// What PEFT draws, when the bases are not saved, from torch's CPU generator (mt19937).
Bases drawn(const PeftConfig& config, int64_t rank, const Sides& sides) {
  const at::Generator generator = at::detail::createCPUGenerator(
      static_cast<uint64_t>(config.integer("projection_prng_key", 0)));
  if (config.flag("very_sparse", false))
    return drawn_sparse(generator, rank, sides, std::sqrt(static_cast<double>(sides.smaller())));
  if (config.flag("sparse", false)) return drawn_sparse(generator, rank, sides, 3);
  return drawn_dense(generator, rank, sides);
}

const char* kind_of(const PeftConfig& config) {
  if (config.flag("very_sparse", false)) return "very_sparse";
  return config.flag("sparse", false) ? "sparse" : "dense";
}

std::vector<PeftTuner> load_randlora(PeftSource& source) {
  const PeftConfig& config = source.config;
  const int64_t rank = config.positive("r", 32);
  PeftTuner tuner{"randlora", Json{{"sites", Json::array()},
                                   {"rank", rank},
                                   {"alpha", plain_number(config.number("randlora_alpha", 640))},
                                   {"bases", kind_of(config)},
                                   {"dropout", config.number("randlora_dropout", 0)}}};
  Sides all;
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    Sides own;
    own.cover(site);
    all.cover(site);
    const int64_t bases = own.bases(rank);
    tuner.act_at(site);
    tuner.set(site, "lambda", source.part(module, "randlora_lambda", {rank, bases}));
    tuner.set(site, "gamma", source.part(module, "randlora_gamma", {bases, own.smaller()}));
  }
  const bool saved = config.flag("save_projection", true) || source.shared.count(kA) > 0;
  const Bases bases = saved ? Bases{source.shared_tensor(kA, {rank, 1, all.smaller()}),
                                    source.shared_tensor(kB, {all.larger(), all.bases(rank), rank})}
                            : drawn(config, rank, all);
  tuner.set(Site::shared(), "basis_a", bases.a);
  tuner.set(Site::shared(), "basis_b", bases.b);
  return {tuner};
}

PeftPiece save_randlora(const PeftView& view) {
  PeftPiece piece{"RANDLORA"};
  const Json& options = view.options();
  piece.config = Json{{"r", options.at("rank")},
                      {"randlora_alpha", options.at("alpha")},
                      {"randlora_dropout", options.at("dropout")},
                      {"sparse", options.at("bases") == "sparse"},
                      {"very_sparse", options.at("bases") == "very_sparse"},
                      {"save_projection", true},
                      {"projection_prng_key", 0},
                      {"init_weights", true},
                      {"fan_in_fan_out", false}};
  for (const Site& site : view.sites())
    piece.updates.push_back({site,
                             Json::object(),
                             {{"randlora_lambda", view.tensor(site, "lambda")},
                              {"randlora_gamma", view.tensor(site, "gamma")}}});
  piece.shared = {{kA, view.tensor(Site::shared(), "basis_a")},
                  {kB, view.tensor(Site::shared(), "basis_b")}};
  return piece;
}

/// PEFT makes the bases as large as the largest of the modules that it changes, and writes them
/// beside every module too; it warns of missing keys when they are not there.
void finish_randlora(PeftPiece& piece) {
  Sides all;
  for (const PeftUpdate& update : piece.updates) all.cover(update.site);
  const int64_t rank = piece.config["r"].get<int64_t>();
  piece.shared[kA] = piece.shared[kA].slice(2, 0, all.smaller());
  piece.shared[kB] = piece.shared[kB].slice(0, 0, all.larger()).slice(1, 0, all.bases(rank));
  for (PeftUpdate& update : piece.updates) {
    update.parts["randlora_A"] = piece.shared[kA];
    update.parts["randlora_B"] = piece.shared[kB];
  }
}

}  // namespace

PeftType peft_randlora() {
  PeftType type;
  type.name = "RANDLORA";
  type.methods = {"randlora"};
  type.fields = {"r",           "randlora_alpha",  "randlora_dropout",    "sparse",
                 "very_sparse", "save_projection", "projection_prng_key", "init_weights"};
  type.parts = {"randlora_lambda", "randlora_gamma"};
  type.shared = {kA, kB};
  type.repeated = {"randlora_A", "randlora_B"};  // PEFT saves them again for every module
  type.bias_only = "randlora_only";
  type.load = load_randlora;
  type.save = save_randlora;
  type.finish = finish_randlora;
  return type;
}

}  // namespace attune
