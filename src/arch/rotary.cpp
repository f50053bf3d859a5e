#include "arch/rotary.h"

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/text.h"

namespace attune {

namespace {

using Scaling = RotarySpec::Scaling;

Scaling scaling_of(const ConfigReader& rope, const std::string& name) {
  static const std::map<std::string, Scaling> kNames{
      {"default", Scaling::Default}, {"linear", Scaling::Linear}, {"dynamic", Scaling::Dynamic},
      {"llama3", Scaling::Llama3},   {"yarn", Scaling::Yarn},     {"longrope", Scaling::LongRope}};
  const std::map<std::string, Scaling>::const_iterator found = kNames.find(name);
  if (found != kNames.end()) return found->second;
  std::vector<std::string> known;
  for (const std::pair<const std::string, Scaling>& entry : kNames) known.push_back(entry.first);
  fail(ErrorCode::Unsupported, "{}: rope_type is \"{}\", which is not supported;{}", rope.path(),
       name, suggestion(name, known));
}

/// 0.1 m ln(scale) + 1, as yarn scales attention.
double yarn_scale(double scale, double m) {
  return scale <= 1 ? 1.0 : 0.1 * m * std::log(scale) + 1.0;
}

void read_yarn(const ConfigReader& rope, RotarySpec& s) {
  if (!rope.has("factor"))
    s.factor = static_cast<double>(s.max_positions) / static_cast<double>(s.original_positions);
  const double m = rope.number("mscale", 0), all = rope.number("mscale_all_dim", 0);
  s.attention_factor = m != 0 && all != 0 ? yarn_scale(s.factor, m) / yarn_scale(s.factor, all)
                                          : yarn_scale(s.factor, 1);
  if (const double fast = rope.number("beta_fast", 0); fast != 0) s.beta_fast = fast;
  if (const double slow = rope.number("beta_slow", 0); slow != 0) s.beta_slow = slow;
  s.truncate = rope.boolean("truncate", true);
}

void read_longrope(const ConfigReader& rope, RotarySpec& s) {
  s.short_factors = rope.numbers("short_factor", s.dims / 2);
  s.long_factors = rope.numbers("long_factor", s.dims / 2);
  const double original = static_cast<double>(s.original_positions);
  if (!rope.has("factor")) s.factor = static_cast<double>(s.max_positions) / original;
  if (s.factor > 1) s.attention_factor = std::sqrt(1 + std::log(s.factor) / std::log(original));
}

void read_scaling(const ConfigReader& config, const ConfigReader& rope, RotarySpec& s) {
  s.original_positions =
      config.integer("original_max_position_embeddings",
                     rope.integer("original_max_position_embeddings", s.max_positions));
  const bool needs_factor =
      s.scaling == Scaling::Linear || s.scaling == Scaling::Dynamic || s.scaling == Scaling::Llama3;
  s.factor = needs_factor ? rope.number("factor") : rope.number("factor", 1);
  if (s.scaling == Scaling::Llama3) {
    s.low_frequency = rope.number("low_freq_factor");
    s.high_frequency = rope.number("high_freq_factor");
  }
  if (s.scaling == Scaling::Yarn) read_yarn(rope, s);
  if (s.scaling == Scaling::LongRope) read_longrope(rope, s);
  if (s.scaling == Scaling::Yarn || s.scaling == Scaling::LongRope)
    s.attention_factor = rope.number("attention_factor", s.attention_factor);
}

}  // namespace

RotarySpec rotary_of(const ConfigReader& config, int64_t dims, double theta) {
  RotarySpec s;
  s.dims = dims;
  s.max_positions = config.integer("max_position_embeddings", 2048);
  s.base = config.number("rope_theta", theta);
  if (dims % 2 != 0)
    fail(ErrorCode::Unsupported,
         "{}: rotary positions turn pairs, and {} elements of a head (head_dim) are odd",
         config.path(), dims);
  const char* key = config.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (!config.has(key)) return s;
  const ConfigReader rope = config.inner(key);
  s.base = rope.number("rope_theta", s.base);
  s.scaling = scaling_of(rope, rope.text("rope_type", rope.text("type", "default")));
  if (s.scaling != Scaling::Default) read_scaling(config, rope, s);
  return s;
}

}  // namespace attune
