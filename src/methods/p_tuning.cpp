// P-tuning: prompt rows made by a small network from trained embeddings.
#include "base/error.h"
#include "base/text.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/sequences.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// x W^T + b, with tensors owned under "NAME_weight" and "NAME_bias".
struct Affinity {
  Tensor weight, bias;
  Tensor operator()(const Tensor& x) const { return attune::matmul(x, weight, false, true) + bias; }
};

class PTuning final : public Tuner {
 public:
  explicit PTuning(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        length_(options.get<int64_t>("length")),
        hidden_(options.get<int64_t>("hidden")),
        layers_(options.get<int64_t>("layers")),
        encoder_(options.get<std::string>("encoder")),
        init_(options.get<std::string>("init")),
        pooled_(options.get<bool>("pooled")) {}

  void attach(Attachment& attachment) override {
    for (const Site& site : flow_sites(attachment, sites_, SiteKind::Rows, "p_tuning")) {
      Generator generator;
      generator.embedding = attachment.parameter(
          site, "embedding", first_prompt(attachment, site, length_, init_, ""));
      if (encoder_ != "none") attach_network(attachment, site, generator);
      Extend edit;
      edit.rows = generator.embedding;
      edit.pooled = pooled_;
      generator.edit = &attachment.add(site, edit);
      generators_.push_back(std::move(generator));
    }
  }

  void prepare(const Pass&) override {
    if (encoder_ == "none") return;
    for (Generator& generator : generators_) {
      Tensor x = generator.embedding;
      for (const Recurrent& layer : generator.lstm) x = run(layer, x);
      for (size_t i = 0; i < generator.mlp.size(); ++i) {
        x = generator.mlp[i](x);
        if (i + 1 < generator.mlp.size()) x = x.relu();
      }
      std::get<Extend>(*generator.edit).rows = x;
    }
  }

 private:
  struct Direction {
    Affinity input, state;  // gates i, f, g, o one below the other: [4 hidden, *]
  };
  struct Recurrent {
    Direction forward, backward;
  };
  struct Generator {
    Tensor embedding;
    std::vector<Recurrent> lstm;
    std::vector<Affinity> mlp;
    Edit* edit = nullptr;
  };

  Affinity affinity(Attachment& attachment, const Site& site, const std::string& name, int64_t out,
                    int64_t in, int64_t inputs) const {
    const double bound = kaiming_bound(inputs);  // as torch draws linear and recurrent layers
    const std::string weight = name + "_weight", bias = name + "_bias";
    return {attachment.parameter(site, weight, attachment.uniform(site, weight, {out, in}, bound)),
            attachment.parameter(site, bias, attachment.uniform(site, bias, {out}, bound))};
  }

  void attach_network(Attachment& attachment, const Site& site, Generator& generator) const {
    const int64_t h = hidden_ > 0 ? hidden_ : site.in;
    std::vector<int64_t> sizes{site.in, h, h, site.in};
    if (encoder_ == "lstm") {
      sizes = {2 * h, 2 * h, site.in};
      for (int64_t layer = 0; layer < layers_; ++layer) {
        const int64_t in = layer == 0 ? site.in : 2 * h;
        Recurrent recurrent;
        for (Direction* direction : {&recurrent.forward, &recurrent.backward}) {
          const std::string name =
              format("lstm{}_{}", layer, direction == &recurrent.forward ? "forward" : "backward");
          direction->input = affinity(attachment, site, name + "_input", 4 * h, in, h);
          direction->state = affinity(attachment, site, name + "_state", 4 * h, h, h);
        }
        generator.lstm.push_back(std::move(recurrent));
      }
    }
    for (size_t i = 0; i + 1 < sizes.size(); ++i)
      generator.mlp.push_back(
          affinity(attachment, site, format("mlp{}", i), sizes[i + 1], sizes[i], sizes[i]));
  }

  /// One direction over the rows of x [length, in]: states [length, hidden].
  /// Reference: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
  static Tensor run_direction(const Direction& direction, const Tensor& x, bool reversed) {
    const int64_t length = x.size(0), h = direction.state.weight.size(1);
    const Tensor inputs = direction.input(x);
    Tensor state = at::zeros({1, h}, x.options()), cell = at::zeros({1, h}, x.options());
    std::vector<Tensor> states(static_cast<size_t>(length));
    for (int64_t i = 0; i < length; ++i) {
      const int64_t at = reversed ? length - 1 - i : i;
      const std::vector<Tensor> gate =
          (inputs.narrow(0, at, 1) + direction.state(state)).chunk(4, 1);
      cell = gate[1].sigmoid() * cell + gate[0].sigmoid() * gate[2].tanh();
      state = gate[3].sigmoid() * cell.tanh();
      states[static_cast<size_t>(at)] = state;
    }
    return at::cat(states);
  }
  static Tensor run(const Recurrent& layer, const Tensor& x) {
    return at::cat({run_direction(layer.forward, x, false), run_direction(layer.backward, x, true)},
                   1);
  }

  std::vector<std::string> sites_;
  int64_t length_, hidden_, layers_;
  std::string encoder_, init_;
  bool pooled_;
  std::vector<Generator> generators_;
};

int64_t network_count(int64_t d, const Options& options) {
  const int64_t h = options.get<int64_t>("hidden") > 0 ? options.get<int64_t>("hidden") : d;
  const std::string encoder = options.get<std::string>("encoder");
  if (encoder == "none") return 0;
  if (encoder == "mlp") return (d * h + h) + (h * h + h) + (h * d + d);
  int64_t count = (2 * h * 2 * h + 2 * h) + (2 * h * d + d);
  for (int64_t layer = 0; layer < options.get<int64_t>("layers"); ++layer)
    count += 2 * (4 * h * ((layer == 0 ? d : 2 * h) + 1) + 4 * h * (h + 1));
  return count;
}

}  // namespace

void register_p_tuning(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "p_tuning";
  entry.summary = "prompt rows that a small network makes from trained embeddings";
  entry.reference = "Liu et al. 2021, \"GPT Understands, Too\", arXiv 2103.10385";
  entry.options = {
      {"sites", "globs", "auto", "",
       "where the rows go in; auto: the first stack's token rows, before positions join them"},
      {"length", "int", "20", "[1, inf)", "rows"},
      {"encoder", "choice", "mlp", "mlp|lstm|none",
       "network: three dense layers, a bidirectional LSTM and two dense layers, or none"},
      {"hidden", "int", "0", "[0, inf)", "inner width of the network; 0: the model's"},
      {"layers", "int", "2", "[1, inf)", "layers of the LSTM"},
      {"init", "choice", "random", "random|vocab", "first values of the embeddings"},
      {"pooled", "bool", "false", "",
       "a head that pools the first row takes the first made row, as PEFT does"},
  };
  entry.learning_rate = 2e-3;
  entry.identity_at_start = false;
  entry.tiny = "{length: 3, hidden: 4, encoder: lstm}";
  entry.examples = {"{}", "{encoder: lstm, length: 10, hidden: 128}"};
  entry.make = [](const Options& options) { return std::make_unique<PTuning>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites)
      count += options.get<int64_t>("length") * site.in + network_count(site.in, options);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
