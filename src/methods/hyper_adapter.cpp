// Hypernetwork adapters: the weights of every adapter are generated from embeddings of task, layer
// and place.
#include <algorithm>
#include <deque>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "methods/adapters.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// "enc.ffn.out" of "enc.3.ffn.out": where in a block an adapter stands.
std::string place_in_block(const Site& site) {
  const std::string block = block_of(site);
  return block.substr(0, block.find('.') + 1) + site.name.substr(block.size());
}

/// The options that decide shapes, read.
struct HyperSizes {
  explicit HyperSizes(const Options& options)
      : form(options.get<std::string>("form")),
        tasks(options.get<int64_t>("tasks")),
        task(options.get<int64_t>("task_size")),
        layer(options.get<int64_t>("layer_size")),
        place(options.get<int64_t>("position_size")),
        hidden(options.get<int64_t>("hidden")),
        code(options.get<int64_t>("code")),
        rank(options.get<int64_t>("rank")),
        base(options.node("base_width").text() == "auto" ? 0 : options.get<int64_t>("base_width")),
        biases(options.get<bool>("biases")) {}
  std::string form;
  int64_t tasks, task, layer, place, hidden, code, rank, base;
  bool biases;
  bool lite() const { return form == "lite"; }
  bool plain() const { return form == "plain"; }
  /// Width of what the network reads.
  int64_t input() const { return lite() ? task : task + layer + place; }
};

/// Rows and their distinct numbers, in order of appearance.
class Numbering {
 public:
  int64_t number(const std::string& name) {
    return numbers_.try_emplace(name, static_cast<int64_t>(numbers_.size())).first->second;
  }
  int64_t size() const { return static_cast<int64_t>(numbers_.size()); }

 private:
  std::map<std::string, int64_t> numbers_;
};

/// Generates matrices [rows, columns], one a code: whole, or as the product of two thin ones.
/// Reference: Liu et al. 2022, "Polyhistor", arXiv 2210.03265, section 3.2: W = P Q^T.
struct Generator {
  Tensor whole;  // [rows * columns, k]
  Tensor p, q;   // [rows * rank, k], [columns * rank, k]
  int64_t rows = 0, columns = 0, rank = 0;

  /// codes [n, k]; result [n, rows, columns].
  Tensor run(const Tensor& codes) const {
    const int64_t n = codes.size(0);
    if (whole.defined())
      return attune::matmul(codes, whole, false, true).reshape({n, rows, columns});
    const Tensor left = attune::matmul(codes, p, false, true).reshape({n, rows, rank}),
                 right = attune::matmul(codes, q, false, true).reshape({n, columns, rank});
    // The inner size is tiny: n small products as sums over it.
    Tensor sum = left.select(2, 0).unsqueeze(2) * right.select(2, 0).unsqueeze(1);
    for (int64_t i = 1; i < rank; ++i)
      sum = sum + left.select(2, i).unsqueeze(2) * right.select(2, i).unsqueeze(1);
    return sum;
  }
};

/// kernel (x) matrix: [s, s] and [a, b] give [s a, s b].
Tensor enlarged(const Tensor& kernel, const Tensor& matrix) {
  const int64_t s = kernel.size(0), a = matrix.size(0), b = matrix.size(1);
  return (kernel.reshape({s, 1, s, 1}) * matrix.reshape({1, a, 1, b})).reshape({s * a, s * b});
}

class HyperAdapter final : public Tuner {
 public:
  explicit HyperAdapter(const Options& options)
      : sizes_(options),
        shared_(options, "hyper_adapter", false),
        sites_(options.get<std::vector<std::string>>("sites")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites =
        sites_of_kinds(attachment, sites_, "", {SiteKind::Rows}, "hyper_adapter");
    for (const Site& site : sites) attach_to(attachment, site);
    add_network(attachment);
    for (std::pair<const int64_t, Width>& entry : widths_) add_generators(attachment, entry.first);
    if (sizes_.lite()) add_kernels(attachment);
    prepare({});
  }

  /// Generates the weights of the pass's task for every adapter.
  /// Errors: BadInput when the task has no embedding.
  void prepare(const Pass& pass) override {
    if (pass.task < 0 || pass.task >= sizes_.tasks)
      fail(ErrorCode::BadInput,
           "hyper_adapter: the batch is of task {}, but tasks is {}: they are numbered from 0 to "
           "{}; raise tasks",
           pass.task, sizes_.tasks, sizes_.tasks - 1);
    const Tensor task = task_.narrow(0, pass.task, 1);
    for (const std::pair<const int64_t, Width>& entry : widths_) fill(entry.second, task);
  }

  void check(const RunLimits&) const override {
    if (sizes_.tasks == 1) return;
    fail(ErrorCode::Unsupported,
         "hyper_adapter: tasks {}: a run's data do not say yet which task an example is of, so all "
         "but the first would never train; leave `tasks` at 1, or train one run a task",
         sizes_.tasks);
  }

  static int64_t count(const std::vector<Site>& sites, const Options& options);

 private:
  struct Place {
    Site site;
    AdapterLayer layer;
    int64_t number = 0, point = 0;  // rows of the embeddings
    Tensor down_kernel, up_kernel;  // lite: [s, s]
  };
  /// The adapters of one width, and what generates them (lite: one template for all widths).
  struct Width {
    int64_t width = 0, size = 0;
    Generator down, up, down_bias, up_bias;
    std::vector<Place*> places;
  };

  int64_t scale_of(int64_t width, const std::string& site) const {
    const int64_t base = sizes_.base > 0 ? sizes_.base : width;
    if (width % base != 0)
      fail(ErrorCode::BadInput,
           "hyper_adapter: base_width {} does not divide the {} features of {}; give a divisor of "
           "every width",
           base, width, site);
    return width / base;
  }

  void attach_to(Attachment& attachment, const Site& site) {
    places_.emplace_back();
    Place& place = places_.back();  // a deque: addresses stay
    place.site = site;
    place.layer = shared_.frame(attachment, site, site.out, site.out);
    if (!sizes_.lite()) {
      place.number = layers_.number(block_of(site).empty() ? site.name : block_of(site));
      place.point = points_.number(place_in_block(site));
    }
    const int64_t size = shared_.size_for(site.out, site.name), scale = base_scale(site, size);
    Width& width = widths_[site.out / scale];
    width.width = site.out / scale;
    width.size = size / scale;
    width.places.push_back(&place);
    attachment.add(
        site, Apply{[&place](const View& view) { return place.layer.run(view, view.x, view.x); },
                    {},
                    /*by_row=*/true});
  }

  /// How many times larger than the template the adapter is; 1 but for lite.
  int64_t base_scale(const Site& site, int64_t size) const {
    const int64_t scale = sizes_.lite() ? scale_of(site.out, site.name) : 1;
    if (size % scale != 0)
      fail(ErrorCode::BadInput,
           "hyper_adapter: the inner size {} at {} is no multiple of {} = {} / base_width; choose "
           "another size or reduction",
           size, site.name, scale, site.out);
    const int64_t most = std::min(site.out, size) / scale;
    if (!sizes_.plain() && sizes_.rank > most)
      fail(ErrorCode::BadInput,
           "hyper_adapter: rank {} at {} is larger than the generated matrix [{}, {}]; give a rank "
           "of at most {}",
           sizes_.rank, site.name, size / scale, site.out / scale, most);
    return scale;
  }

  Tensor drawn(Attachment& attachment, const std::string& name, const std::vector<int64_t>& shape,
               double deviation) const {
    const Site shared = Site::shared();
    return attachment.parameter(shared, name, attachment.normal(shared, name, shape, deviation));
  }

  /// Embeddings, and the network from them to a code: dense, ReLU, dense, layer norm.
  void add_network(Attachment& attachment) {
    const Site shared = Site::shared();
    task_ = drawn(attachment, "task", {sizes_.tasks, sizes_.task}, 0.1);
    if (!sizes_.lite()) {
      layer_ = drawn(attachment, "layer", {layers_.size(), sizes_.layer}, 0.1);
      point_ = drawn(attachment, "position", {points_.size(), sizes_.place}, 0.1);
    }
    const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
      return attachment.parameter(shared, name,
                                  attachment.uniform(shared, name, {out, in}, kaiming_bound(in)));
    };
    const auto vector = [&](const char* name, const Tensor& init) {
      return plain_parameter(attachment, shared, name, init);
    };
    in_ = linear("in", sizes_.hidden, sizes_.input());
    in_bias_ = vector("in_bias", attachment.zeros({sizes_.hidden}));
    out_ = linear("out", sizes_.code, sizes_.hidden);
    out_bias_ = vector("out_bias", attachment.zeros({sizes_.code}));
    norm_ = vector("norm_weight", attachment.ones({sizes_.code}));
    norm_bias_ = vector("norm_bias", attachment.zeros({sizes_.code}));
  }

  /// H ~ N(0, 0.01^2); what makes the second projection begins at zero.
  /// Differs: HyperFormer draws both; so every adapter begins exactly as the identity.
  Generator generator(Attachment& attachment, const std::string& name, int64_t rows,
                      int64_t columns, bool zero) const {
    const Site shared = Site::shared();
    Generator made;
    made.rows = rows;
    made.columns = columns;
    const auto tensor = [&](const std::string& full, int64_t entries, bool at_zero) {
      if (!at_zero) return drawn(attachment, full, {entries, sizes_.code}, 0.01);
      return attachment.parameter(shared, full, attachment.zeros({entries, sizes_.code}));
    };
    if (sizes_.plain() || columns == 1) {
      made.whole = tensor(name, rows * columns, zero);
      return made;
    }
    made.rank = sizes_.rank;
    made.p = tensor(name + "_p", rows * sizes_.rank, false);
    made.q = tensor(name + "_q", columns * sizes_.rank, zero);
    return made;
  }

  void add_generators(Attachment& attachment, int64_t key) {
    Width& width = widths_.at(key);
    const std::string prefix = widths_.size() > 1 ? format("w{}_", width.width) : "";
    width.down = generator(attachment, prefix + "down", width.size, width.width, false);
    width.up = generator(attachment, prefix + "up", width.width, width.size, true);
    if (!sizes_.biases || sizes_.lite()) return;
    width.down_bias = generator(attachment, prefix + "down_bias", width.size, 1, false);
    width.up_bias = generator(attachment, prefix + "up_bias", width.width, 1, true);
  }

  /// Lite: a kernel a site, and biases that are not generated.
  void add_kernels(Attachment& attachment) {
    for (Place& place : places_) {
      const int64_t scale = scale_of(place.site.out, place.site.name);
      const auto kernel = [&](const char* name) {
        const Tensor identity = at::eye(scale, attachment.zeros({1}).options());
        return attachment.parameter(place.site, name, identity);
      };
      place.down_kernel = kernel("down_kernel");
      place.up_kernel = kernel("up_kernel");
      if (!sizes_.biases) continue;
      const int64_t size = shared_.size_for(place.site.out, place.site.name);
      Bottleneck& weights = place.layer.weights;
      weights.down_bias =
          plain_parameter(attachment, place.site, "down_bias", attachment.zeros({size}));
      weights.up_bias =
          plain_parameter(attachment, place.site, "up_bias", attachment.zeros({place.site.out}));
    }
  }

  /// z = norm(MLP([task; layer; place])) for the adapters of one width: [n, k] (lite: [1, k]).
  /// Reference: Mahabadi et al. 2021, "Parameter-efficient Multi-task Fine-tuning for Transformers
  /// via Shared Hypernetworks", arXiv 2106.04489, sections 2.2 and 2.3.
  Tensor codes(const Width& width, const Tensor& task) const {
    Tensor input = task;
    if (!sizes_.lite()) {
      std::vector<int64_t> numbers, points;
      for (const Place* place : width.places) {
        numbers.push_back(place->number);
        points.push_back(place->point);
      }
      input = at::cat({task.expand({static_cast<int64_t>(numbers.size()), -1}),
                       layer_.index_select(0, int64_tensor(numbers)),
                       point_.index_select(0, int64_tensor(points))},
                      1);
    }
    const Tensor inner = (attune::matmul(input, in_, false, true) + in_bias_).relu();
    return layer_norm(attune::matmul(inner, out_, false, true) + out_bias_, Tensor(), norm_,
                      norm_bias_, 1e-6);
  }

  void fill(const Width& width, const Tensor& task) const {
    const Tensor z = codes(width, task);
    const Tensor down = width.down.run(z), up = width.up.run(z);
    const bool biases = width.down_bias.whole.defined();
    const Tensor down_bias = biases ? width.down_bias.run(z) : Tensor(),
                 up_bias = biases ? width.up_bias.run(z) : Tensor();
    for (size_t i = 0; i < width.places.size(); ++i) {
      Place& place = *width.places[i];
      Bottleneck& weights = place.layer.weights;
      const int64_t row = sizes_.lite() ? 0 : static_cast<int64_t>(i);
      weights.down = down.select(0, row);
      weights.up = up.select(0, row);
      if (sizes_.lite()) {
        weights.down = enlarged(place.down_kernel, weights.down);
        weights.up = enlarged(place.up_kernel, weights.up);
      }
      if (!biases) continue;
      weights.down_bias = down_bias.select(0, row).select(1, 0);
      weights.up_bias = up_bias.select(0, row).select(1, 0);
    }
  }

  HyperSizes sizes_;
  AdapterOptions shared_;
  std::vector<std::string> sites_;
  std::deque<Place> places_;
  std::map<int64_t, Width> widths_;
  Numbering layers_, points_;
  Tensor task_, layer_, point_, in_, in_bias_, out_, out_bias_, norm_, norm_bias_;
};

/// Embeddings, the network, and for each width what generates its adapters: k d r a matrix (plain),
/// k q (d + r) (decomposed; lite for the template's width alone, with 2 s^2 a site); generated
/// biases k (d + r), or d + r a site (lite).
int64_t HyperAdapter::count(const std::vector<Site>& sites, const Options& options) {
  const HyperSizes sizes(options);
  const AdapterOptions shared(options, "hyper_adapter", false);
  Numbering layers, points;
  std::map<int64_t, int64_t> widths;  // of what is generated: inner size by width
  int64_t count = sizes.tasks * sizes.task;
  for (const Site& site : sites) {
    const int64_t d = site.out, r = shared.size_for(d, site.name);
    const int64_t scale = sizes.lite() && sizes.base > 0 ? d / sizes.base : 1;
    layers.number(block_of(site).empty() ? site.name : block_of(site));
    points.number(place_in_block(site));
    widths[d / scale] = r / scale;
    count += shared.count_frame(d, d);
    if (sizes.lite()) count += 2 * scale * scale + (sizes.biases ? d + r : 0);
  }
  if (!sizes.lite()) count += layers.size() * sizes.layer + points.size() * sizes.place;
  const int64_t k = sizes.code, m = sizes.hidden;
  count += m * sizes.input() + m + k * m + k + 2 * k;
  for (const std::pair<const int64_t, int64_t>& entry : widths) {
    const int64_t d = entry.first, r = entry.second;
    count += sizes.plain() ? 2 * k * d * r : 2 * k * sizes.rank * (d + r);
    if (sizes.biases && !sizes.lite()) count += k * (d + r);
  }
  return count;
}

std::vector<Option> options_of_hyper() {
  std::vector<Option> options = {
      {"sites", "globs", "\"*.{self,cross,ffn}.out\"", "",
       "rows that get an adapter (globs over site names)"},
      {"form", "choice", "plain", "plain|decomposed|lite",
       "plain: every matrix is generated whole (HyperFormer); decomposed: as a product of two thin "
       "ones (Polyhistor); lite: one template, enlarged at each site by a small Kronecker factor "
       "(Polyhistor-Lite)"},
      {"tasks", "int", "1", "[1, inf)",
       "how many tasks have an embedding; a run takes 1, for its data do not say yet which task an "
       "example is of"},
      {"task_size", "int", "64", "[1, inf)", "width of the task embedding"},
      {"layer_size", "int", "64", "[1, inf)", "width of the layer embedding (not lite)"},
      {"position_size", "int", "64", "[1, inf)",
       "width of the embedding of the place in the block (not lite)"},
      {"hidden", "int", "128", "[1, inf)", "inner width of the network behind the embeddings"},
      {"code", "int", "32", "[2, inf)",
       "width of what it gives to the generators, normalised: one number alone would always be 0"},
      {"rank", "int", "4", "[1, inf)", "rank of generated matrices (decomposed, lite)"},
      {"base_width", "int", "auto", "[1, inf)",
       "lite: width of the template; auto: that of the rows"},
      {"biases", "bool", "true", "", "biases, generated too (lite: trained at each site)"},
  };
  for (Option& option : adapter_options({"16", "gelu", nullptr, "1"}))
    options.push_back(std::move(option));
  return options;
}

}  // namespace

void register_hyper_adapter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "hyper_adapter";
  entry.summary =
      "adapters whose weights a shared network generates from task, layer and place embeddings";
  entry.reference =
      "Mahabadi et al. 2021, \"Parameter-efficient Multi-task Fine-tuning for Transformers via "
      "Shared Hypernetworks\", arXiv 2106.04489 (HyperFormer++); Liu et al. 2022, \"Polyhistor: "
      "Parameter-Efficient Multi-Task Adaptation for Dense Vision Tasks\", arXiv 2210.03265";
  entry.options = options_of_hyper();
  entry.learning_rate = 1e-3;
  entry.tiny =
      "{form: decomposed, rank: 2, size: 4, scaling: 0.3, tasks: 2, task_size: 3, layer_size: 3, "
      "position_size: 2, hidden: 5, code: 4}";
  entry.examples = {"{}", "{reduction: 8, code: 8}", "{form: decomposed, rank: 4, reduction: 8}",
                    "{form: lite, base_width: 96, reduction: 8}"};
  entry.make = [](const Options& options) { return std::make_unique<HyperAdapter>(options); };
  entry.count = &HyperAdapter::count;
  registry.add(std::move(entry));
}

}  // namespace attune
