// Parallel adapters: a trained bottleneck beside a sub-layer, from its input to its output.
#include "base/error.h"
#include "methods/adapters.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class ParallelAdapter final : public Tuner {
 public:
  explicit ParallelAdapter(const Options& options)
      : shared_(options, "parallel_adapter"),
        sites_(options.get<std::vector<std::string>>("sites")),
        residual_(options.get<bool>("residual")) {}

  void attach(Attachment& attachment) override {
    for (const Site& site : sites_of_kinds(attachment, sites_, "",
                                           {SiteKind::Rows, SiteKind::Heads}, "parallel_adapter"))
      attach_to(attachment, site);
  }

 private:
  /// The rows that enter the part which ends at `site`.
  const Site& input_of(Attachment& attachment, const Site& site) const {
    const Site* input = find_site(attachment.all_sites(), part_of(site) + "in");
    if (input == nullptr || input->kind != SiteKind::Rows || input->id == site.id)
      fail(ErrorCode::BadInput,
           "parallel_adapter: {} is not the end of a part: there are no rows {}in before it; "
           "choose sites like *.ffn.out, *.self.out or *.self.heads",
           site.name, part_of(site));
    if (residual_ && input->out != site.out)
      fail(ErrorCode::BadInput,
           "parallel_adapter: residual: {} has {} features and {} has {}; set residual: false",
           input->name, input->out, site.name, site.out);
    return *input;
  }

  void attach_to(Attachment& attachment, const Site& site) {
    const Site& input = input_of(attachment, site);
    Site owner = input;  // so that the count sees the input's width
    owner.name = site.name;
    const AdapterLayer layer = shared_.make(attachment, owner, input.out, site.out);
    const auto run = [layer, residual = residual_, read = input.name](const View& view) {
      const Tensor& x = view.reads.at(read);
      const Tensor h = view.x.dim() == 2 ? view.x : view.x.reshape({view.x.size(0), -1});
      return layer.run(view, x, residual ? h + x : h).reshape(view.x.sizes());
    };
    attachment.add(site, Apply{run, {input.name}, /*by_row=*/true});
  }

  AdapterOptions shared_;
  std::vector<std::string> sites_;
  bool residual_;
};

std::vector<Option> options_of_parallel() {
  std::vector<Option> options = {
      {"sites", "globs", "\"*.ffn.out\"", "",
       "the ends of the parts that get an adapter beside them (globs over site names): *.ffn.out, "
       "*.self.out, or *.self.heads, before attention's output projection"},
  };
  for (Option& option : adapter_options({"16", "relu", "lora", "4"}))
    options.push_back(std::move(option));
  options.push_back({"residual", "bool", "false", "", "add the part's input as well"});
  return options;
}

}  // namespace

void register_parallel_adapter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "parallel_adapter";
  entry.summary =
      "a bottleneck beside the feed-forward part: h += scale * f(x down^T) up^T, x the part's "
      "input";
  entry.reference =
      "He et al. 2022, \"Towards a Unified View of Parameter-Efficient Transfer Learning\", arXiv "
      "2110.04366, section 3.3 and table 1 (parallel and scaled parallel adapter)";
  entry.options = options_of_parallel();
  entry.learning_rate = 1e-3;
  entry.tiny = "{size: 3, activation: gelu}";
  entry.examples = {"{}", "{size: 16, scaling: 2}", "{size: 48, scaling: learnable}",
                    "{sites: \"*.self.heads\", size: 12, scaling: 1, layer_norm: in}"};
  entry.make = [](const Options& options) { return std::make_unique<ParallelAdapter>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const AdapterOptions shared(options, "parallel_adapter");
    int64_t count = 0;
    for (const Site& site : sites) {
      if (site.name.ends_with(".in")) continue;
      const Site* input = find_site(sites, part_of(site) + "in");
      count += shared.count(input != nullptr ? input->out : site.out, site.out);
    }
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
