// Convolutional adapters: a bottleneck whose inner rows also see their neighbours in the sequence.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "methods/adapters.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/time_conv.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace {

constexpr double kMomentum = 0.1, kEps = 1e-5;

/// x w^T + b in the type of x.
Tensor dense(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return attune::matmul(x, weight, false, true) + cast(bias, x.scalar_type());
}

/// The norm between convolution and activation.
struct InnerNorm {
  enum class Kind : uint8_t { None, Batch, Layer };
  Kind kind = Kind::None;
  Tensor weight, bias;    // [b]
  Tensor mean, variance;  // running statistics of a batch norm [b]
  std::string owner;

  Tensor run(const Tensor& x, bool training) const {
    if (kind == Kind::None) return x;
    if (kind == Kind::Layer) return layer_norm(x, Tensor(), weight, bias, kEps);
    if (training && x.size(0) < 2)
      fail(ErrorCode::BadInput,
           "conv_adapter: {}: a batch norm cannot train on a batch of one row; use longer texts, "
           "larger batches, or norm: layer",
           owner);
    return at::batch_norm(x, weight, bias, mean, variance, training, kMomentum, kEps, false);
  }
};

/// One convolutional adapter.
/// Reference: Gulati et al. 2020, "Conformer", arXiv 2005.08100, figure 2 (the convolution module);
/// Cappellazzo et al. 2023, arXiv 2312.03694, which makes it an adapter.
struct ConvLayer {
  bool conformer = true, causal = false;
  int64_t kernel = 0;
  Tensor down, down_bias;  // conformer: [2 b, d], the second half gates the first; else [b, d]
  Tensor conv, conv_bias;  // conformer: [b, k]; else [b, k b]
  InnerNorm norm;
  Tensor up, up_bias;  // [d, b], [d]
  double dropout = 0, scale = 1;

  /// A batch norm takes the statistics of every pass in training.
  bool stateful() const { return norm.kind == InnerNorm::Kind::Batch; }

  /// In the master type: the inner rows are narrow.
  Tensor inner(const Tensor& x, const View& view) const {
    Tensor h = cast(dense(x, down, down_bias), down.scalar_type());
    if (conformer) {
      const int64_t size = h.size(1) / 2;
      h = h.narrow(1, 0, size) * h.narrow(1, size, size).sigmoid();
      h = depthwise_conv(h, conv, conv_bias, view.rows, causal);
      return activate(kernels::Activation::Silu, norm.run(h, view.pass.training));
    }
    h = activate(kernels::Activation::QuickGelu, h);
    h = dense(windows(h, kernel, view.rows, causal), conv, conv_bias);
    return norm.run(h, view.pass.training);
  }

  /// base + scale * adapter(x).
  Tensor run(const View& view, const Tensor& x, const Tensor& base) const {
    const Tensor h = attune::dropout(inner(x, view), dropout, view);
    // The bias stands in the product, as the weight of a column of ones: one pass less.
    const Tensor ones = at::ones({h.size(0), 1}, h.options());
    const Tensor rows = cast(at::cat({h, ones}, 1), x.scalar_type());
    const Tensor weight = at::cat({up, up_bias.unsqueeze(1)}, 1) * scale;
    const Tensor added = attune::matmul(rows, weight, false, true);
    return base.defined() ? base + added : added;
  }
};

class ConvAdapter final : public Tuner {
 public:
  explicit ConvAdapter(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        conformer_(options.get<std::string>("form") == "conformer"),
        parallel_(options.get<std::string>("insertion") == "parallel"),
        residual_(options.get<std::string>("residual")),
        causal_(options.get<std::string>("causal")),
        norm_(norm_of(options)),
        init_(options.get<std::string>("init")),
        kernel_(kernel_of(options)),
        dropout_(options.get<double>("dropout")),
        scale_(options.get<double>("scaling")) {
    if (kernel_ % 2 == 0)
      fail(ErrorCode::BadInput,
           "{}: conv_adapter: an even kernel of {} has no middle; give an odd one",
           options.where("kernel"), kernel_);
    if (!parallel_ && residual_ == "false")
      log_warning(
          "conv_adapter: without its residual a serial adapter stands in the way of what the "
          "model has learned and is known to collapse");
    if (options.node("size").text() != "auto") size_ = options.get<int64_t>("size");
    reduction_ = options.get<double>("reduction");
  }

  static int64_t kernel_of(const Options& options) {
    if (options.node("kernel").text() != "auto") return options.get<int64_t>("kernel");
    return options.get<std::string>("form") == "conformer" ? 31 : 3;
  }

  static std::string norm_of(const Options& options) {
    const std::string norm = options.get<std::string>("norm");
    if (norm != "auto") return norm;
    return options.get<std::string>("form") == "conformer" ? "batch" : "none";
  }

  /// b = round(d / reduction), as the paper's sizes come out.
  int64_t size_for(const Site& site) const {
    if (size_ > 0) return size_;
    const int64_t size = std::llround(static_cast<double>(site.out) / reduction_);
    if (size < 1)
      fail(ErrorCode::BadInput,
           "conv_adapter: reduction {} leaves no inner feature of the {} at {}; give a smaller "
           "reduction, or the inner size itself (size)",
           reduction_, site.out, site.name);
    return size;
  }

  /// Conformer: (2 d b + 2 b) + (b k + b) + (d b + d); convpass: (d b + b) + (k b^2 + b) + (d b +
  /// d); a norm adds 2 b.
  int64_t count(const Site& site) const {
    const int64_t d = site.out, b = size_for(site);
    const int64_t norm = norm_ == "none" ? 0 : 2 * b;
    if (conformer_) return (2 * d * b + 2 * b) + (b * kernel_ + b) + norm + (d * b + d);
    return (d * b + b) + (kernel_ * b * b + b) + norm + (d * b + d);
  }

  void attach(Attachment& attachment) override {
    for (const Site& site :
         sites_of_kinds(attachment, sites_, "", {SiteKind::Rows}, "conv_adapter"))
      attach_to(attachment, site);
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const ConvLayer layer = new_layer(attachment, site);
    if (!parallel_) {
      const bool residual = residual_ != "false";
      attachment.add(site, Apply{[layer, residual](const View& view) {
                                   return layer.run(view, view.x, residual ? view.x : Tensor());
                                 },
                                 {},
                                 /*by_row=*/false,
                                 layer.stateful()});
      return;
    }
    const Site* input = find_site(attachment.all_sites(), part_of(site) + "in");
    if (input == nullptr || input->kind != SiteKind::Rows || input->out != site.out)
      fail(ErrorCode::BadInput,
           "conv_adapter: {} is not the end of a part: there are no rows {}in of its width before "
           "it; choose sites like *.ffn.out, or insertion: serial",
           site.name, part_of(site));
    const auto run = [layer, read = input->name, residual = residual_ == "true"](const View& view) {
      const Tensor& x = view.reads.at(read);
      return layer.run(view, x, residual ? view.x + x : view.x);
    };
    attachment.add(site, Apply{run, {input->name}, /*by_row=*/false, layer.stateful()});
  }

  ConvLayer new_layer(Attachment& attachment, const Site& site) const {
    const int64_t d = site.out, b = size_for(site);
    ConvLayer layer;
    layer.conformer = conformer_;
    layer.kernel = kernel_;
    layer.causal = causal_ == "auto" ? starts_with(site.name, "dec.") : causal_ == "true";
    layer.dropout = dropout_;
    layer.scale = scale_;
    // Every tensor as torch's convolutions begin, but the last: zero, so that the start is the
    // identity, unless the recipe asks otherwise.
    const auto drawn = [&](const char* name, const std::vector<int64_t>& shape, int64_t inputs) {
      return attachment.uniform(site, name, shape, kaiming_bound(inputs));
    };
    const int64_t first = conformer_ ? 2 * b : b;
    layer.down = attachment.parameter(site, "down", drawn("down", {first, d}, d));
    layer.down_bias =
        plain_parameter(attachment, site, "down_bias", drawn("down_bias", {first}, d));
    const int64_t inputs = conformer_ ? kernel_ : kernel_ * b;
    layer.conv = attachment.parameter(site, "conv", drawn("conv", {b, inputs}, inputs));
    layer.conv_bias =
        plain_parameter(attachment, site, "conv_bias", drawn("conv_bias", {b}, inputs));
    layer.norm = new_norm(attachment, site, b);
    const bool zero = init_ == "zero_up";
    layer.up =
        attachment.parameter(site, "up", zero ? attachment.zeros({d, b}) : drawn("up", {d, b}, b));
    layer.up_bias = plain_parameter(attachment, site, "up_bias",
                                    zero ? attachment.zeros({d}) : drawn("up_bias", {d}, b));
    return layer;
  }

  InnerNorm new_norm(Attachment& attachment, const Site& site, int64_t size) const {
    InnerNorm norm;
    norm.owner = site.name;
    if (norm_ == "none") return norm;
    norm.weight = plain_parameter(attachment, site, "norm_weight", attachment.ones({size}));
    norm.bias = plain_parameter(attachment, site, "norm_bias", attachment.zeros({size}));
    norm.kind = norm_ == "batch" ? InnerNorm::Kind::Batch : InnerNorm::Kind::Layer;
    if (norm.kind == InnerNorm::Kind::Layer) return norm;
    norm.mean = attachment.buffer(site, "running_mean", attachment.zeros({size}));
    norm.variance = attachment.buffer(site, "running_variance", attachment.ones({size}));
    return norm;
  }

  std::vector<std::string> sites_;
  bool conformer_, parallel_;
  std::string residual_, causal_, norm_, init_;
  int64_t kernel_, size_ = 0;
  double reduction_ = 0, dropout_, scale_;
};

std::vector<Option> options_of_conv() {
  return {
      {"sites", "globs", "\"*.ffn.out\"", "", "rows that get an adapter (globs over site names)"},
      {"form", "choice", "conformer", "conformer|convpass",
       "conformer: gated projection, depth-wise convolution, norm, SiLU; convpass: projection, "
       "QuickGELU, full convolution, norm"},
      {"insertion", "choice", "parallel", "parallel|serial",
       "parallel: from the part's input to its output; serial: behind the part's output"},
      {"residual", "choice", "auto", "auto|true|false",
       "add the adapter's input as well; auto: when serial"},
      {"size", "int", "auto", "[1, inf)", "inner size; auto: the rows' width / reduction, rounded"},
      {"reduction", "number", "96", "(0, inf)", "the rows' width / inner size, where size is auto"},
      {"kernel", "int", "auto", "[1, inf)",
       "rows that the convolution sees, odd; auto: 31 (conformer), 3 (convpass)"},
      {"causal", "choice", "auto", "auto|true|false",
       "see no later row; auto: in the stack dec, which must not"},
      {"norm", "choice", "auto", "auto|batch|layer|none",
       "behind the convolution; auto, as published: batch (conformer), none (convpass). batch "
       "makes "
       "training depend on who shares a batch; layer does not"},
      {"init", "choice", "zero_up", "zero_up|random",
       "zero_up: the last projection begins at zero, so that the start is the identity"},
      {"scaling", "number", "1", "(0, inf)", "factor on what the adapter adds"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the inner rows"},
  };
}

}  // namespace

void register_conv_adapter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "conv_adapter";
  entry.summary =
      "a bottleneck with a convolution over the sequence inside, beside the feed-forward part";
  entry.reference =
      "Cappellazzo et al. 2023, \"Parameter-Efficient Transfer Learning of Audio Spectrogram "
      "Transformers\", arXiv 2312.03694 (Conformer adapter); Jie and Deng 2022, \"Convolutional "
      "Bypasses Are Better Vision Transformer Adapters\", arXiv 2207.07039 (Convpass)";
  entry.options = options_of_conv();
  entry.learning_rate = 5e-3;
  entry.tiny = "{size: 3, kernel: 3, norm: layer}";  // batch: not the same packed and one by one
  entry.examples = {"{}", "{size: 8, kernel: 15, norm: layer}",
                    "{form: convpass, size: 8, insertion: serial}"};
  entry.make = [](const Options& options) { return std::make_unique<ConvAdapter>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const ConvAdapter method(options);
    int64_t count = 0;
    for (const Site& site : sites) count += method.count(site);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
