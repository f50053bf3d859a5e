#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/options.h"
#include "core/bottleneck.h"
#include "core/tuner.h"

namespace attune {

/// What the methods that add a bottleneck to the rows have in common: options, tensors, initial
/// values, the function itself.

/// Defaults of the shared options that differ between methods.
struct AdapterDefaults {
  const char* reduction = "16";
  const char* activation = "relu";
  const char* init = "bert";
  const char* scaling = "1";
};
/// Options size, reduction, activation, init (unless null: the method has its own), scaling,
/// layer_norm, dropout.
std::vector<Option> adapter_options(const AdapterDefaults& defaults);

/// How the two projections begin. Bert: both N(0, 0.02^2), near the identity; Lora: down
/// Kaiming-uniform, up zero, exactly the identity; Zero: both zero, only the last bias can learn.
enum class AdapterInit : uint8_t { Bert, Lora, Zero };

/// One adapter: a bottleneck and its inner norm.
struct AdapterLayer {
  enum class Norm : uint8_t { None, In, Out };
  Bottleneck weights;
  Norm norm = Norm::None;
  Tensor norm_weight, norm_bias;
  double dropout = 0;
  /// base + what the adapter makes of x; base (may be x itself) may be undefined.
  Tensor run(const View& view, const Tensor& x, const Tensor& base) const;
};

/// The shared options, read.
class AdapterOptions {
 public:
  /// has_init: the method declares the option init. Errors: BadInput, naming the place, for a
  /// scaling that is neither a number nor "learnable".
  AdapterOptions(const Options& options, const char* method, bool has_init = true);

  /// The inner size between rows of `width`: `size`, or width / reduction rounded down.
  /// Errors: BadInput, naming method and site, when nothing is left.
  int64_t size_for(int64_t width, const std::string& site) const;
  /// Trained tensors named after `owner`: "SITE/down", "SITE/down_bias", "SITE/up", ...
  AdapterLayer make(Attachment& attachment, const Site& owner, int64_t in, int64_t out) const;
  /// The numbers make() trains: 2 r d + r + d for one width d and inner size r, and what the inner
  /// norm and a learnable scale add.
  int64_t count(int64_t in, int64_t out) const;
  /// Everything but the projections: activation, scaling, inner norm, dropout.
  AdapterLayer frame(Attachment& attachment, const Site& owner, int64_t in, int64_t out) const;
  /// What frame() trains.
  int64_t count_frame(int64_t in, int64_t out) const;
  double scaling() const { return scaling_; }
  double dropout() const { return dropout_; }
  AdapterInit init() const { return init_; }

 private:
  std::string method_;
  std::optional<int64_t> size_;
  double reduction_, scaling_ = 1, dropout_;
  bool learnable_ = false;
  kernels::Activation activation_;
  AdapterInit init_;
  AdapterLayer::Norm norm_;
};

/// Initial values of a projection [out, in] that goes down to (`up` false) or up from a bottleneck.
Tensor adapter_weight(Attachment& attachment, const Site& owner, const char* name, int64_t out,
                      int64_t in, AdapterInit init, bool up);

/// A bias or a norm's tensor: trained without weight decay.
Tensor plain_parameter(Attachment& attachment, const Site& owner, const char* name,
                       const Tensor& init);

/// "enc.0.ffn." of "enc.0.ffn.out".
std::string part_of(const Site& site);

/// The sites of these kinds that the globs select, each once, in model order; the single glob
/// "auto" stands for `fallback`. Errors: BadInput when a glob matches nothing, or no site of these
/// kinds; the message names the method and near sites.
std::vector<Site> sites_of_kinds(Attachment& attachment, const std::vector<std::string>& globs,
                                 const char* fallback, const std::vector<SiteKind>& kinds,
                                 const char* method);

}  // namespace attune
