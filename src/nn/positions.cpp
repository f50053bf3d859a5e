#include "nn/positions.h"

#include <algorithm>
#include <cmath>

#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

using at::Tensor;
using Scaling = RotarySpec::Scaling;

/// base^(2 j / dims), float.
Tensor wavelengths(double base, int64_t dims) {
  const Tensor exponent = at::arange(0, dims, 2, at::kFloat) / static_cast<double>(dims);
  return at::pow(at::Scalar(base), exponent);
}

Tensor llama3(const RotarySpec& s) {
  const Tensor plain = wavelengths(s.base, s.dims).reciprocal();
  const double context = static_cast<double>(s.original_positions);
  const Tensor length = plain.reciprocal() * (2 * M_PI);
  const Tensor is_long = length > context / s.low_frequency,
               is_short = length < context / s.high_frequency;
  const Tensor scaled = at::where(is_long, plain / s.factor, plain);
  const Tensor smooth =
      (length.reciprocal() * context - s.low_frequency) / (s.high_frequency - s.low_frequency);
  const Tensor between = (1 - smooth) * scaled / s.factor + smooth * scaled;
  return at::where(is_long.logical_or(is_short), scaled, between);
}

/// The pair whose wave turns `rotations` times over the original context.
double correction_pair(const RotarySpec& s, double rotations) {
  return static_cast<double>(s.dims) *
         std::log(static_cast<double>(s.original_positions) / (rotations * 2 * M_PI)) /
         (2 * std::log(s.base));
}

Tensor yarn(const RotarySpec& s) {
  const Tensor waves = wavelengths(s.base, s.dims);
  double low = correction_pair(s, s.beta_fast), high = correction_pair(s, s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(s.dims - 1));
  if (low == high) high += 0.001;
  const Tensor ramp = ((at::arange(s.dims / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const Tensor kept = 1 - ramp;  // the share of the unscaled frequency
  return (waves * s.factor).reciprocal() * (1 - kept) + waves.reciprocal() * kept;
}

Tensor longrope(const RotarySpec& s, int64_t length) {
  const std::vector<double>& factors =
      length > s.original_positions ? s.long_factors : s.short_factors;
  return (at::tensor(factors, at::kFloat) * wavelengths(s.base, s.dims)).reciprocal();
}

/// Longer texts stretch the base. In single precision, as transformers has it.
Tensor dynamic(const RotarySpec& s, int64_t length) {
  if (length <= s.max_positions) return wavelengths(s.base, s.dims).reciprocal();
  const double dims = static_cast<double>(s.dims);
  const Tensor share = at::scalar_tensor(static_cast<double>(length), at::kFloat) * s.factor /
                       static_cast<double>(s.max_positions);
  const Tensor base = (share - (s.factor - 1)).pow(dims / (dims - 2)) * s.base;
  const Tensor exponent = at::arange(0, s.dims, 2, at::kFloat) / dims;
  return at::pow(base, exponent).reciprocal();
}

}  // namespace

Tensor inverse_frequencies(const RotarySpec& s, int64_t length) {
  switch (s.scaling) {
    case Scaling::Llama3:
      return llama3(s);
    case Scaling::Yarn:
      return yarn(s);
    case Scaling::LongRope:
      return longrope(s, length);
    case Scaling::Linear:
      return wavelengths(s.base, s.dims).reciprocal() / s.factor;
    case Scaling::Dynamic:
      return dynamic(s, length);
    case Scaling::Default:
      break;
  }
  return wavelengths(s.base, s.dims).reciprocal();
}

RotaryTable rotary_table(const RotarySpec& spec, const Tensor& positions, const RowIndex& rows,
                         at::ScalarType master) {
  const bool by_length = spec.scaling == Scaling::Dynamic || spec.scaling == Scaling::LongRope;
  const Tensor place = positions.to(at::kFloat).unsqueeze(1);
  Tensor angles;
  if (!by_length) {
    angles = place * inverse_frequencies(spec, 0).unsqueeze(0);
  } else {
    const int32_t* at = pointer<const int32_t>(positions);
    std::vector<Tensor> parts;
    for (int64_t b = 0; b < rows.sequences(); ++b) {
      if (rows.length(b) == 0) continue;
      const int64_t length = *std::max_element(at + rows.begin(b), at + rows.end(b)) + 1;
      parts.push_back(place.narrow(0, rows.begin(b), rows.length(b)) *
                      inverse_frequencies(spec, length).unsqueeze(0));
    }
    angles = at::cat(parts);
  }
  return {(angles.cos() * spec.attention_factor).to(master).contiguous(),
          (angles.sin() * spec.attention_factor).to(master).contiguous(), spec.interleaved};
}

Tensor bucket_index(const BucketSpec& spec) {
  int64_t buckets = spec.buckets;
  if (spec.bidirectional) buckets /= 2;
  const int64_t exact = buckets / 2, reach = std::max(spec.max_distance, exact);
  const Tensor distance = at::arange(-reach, reach + 1, at::kLong);
  const Tensor away = spec.bidirectional ? distance.abs() : distance.neg().clamp_min(0);
  // In single precision, as transformers: at a boundary a rounding decides the bucket.
  const double span = std::log(static_cast<double>(spec.max_distance) / static_cast<double>(exact));
  const Tensor large = ((away.clamp_min(exact).to(at::kFloat) / static_cast<double>(exact)).log() /
                        span * static_cast<double>(buckets - exact))
                           .to(at::kLong) +
                       exact;
  Tensor index = at::where(away < exact, away, large.clamp_max(buckets - 1));
  if (spec.bidirectional) index = index + distance.gt(0).to(at::kLong) * buckets;
  return index.to(at::kInt);
}

bool consecutive(const Tensor& positions, const RowIndex& rows) {
  const int32_t* at = pointer<const int32_t>(positions);
  for (int64_t b = 0; b < rows.sequences(); ++b)
    for (int64_t r = rows.begin(b) + 1; r < rows.end(b); ++r)
      if (at[r] != at[r - 1] + 1) return false;
  return true;
}

}  // namespace attune
