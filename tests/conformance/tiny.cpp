#include "tiny.h"

#include <cmath>

#include "base/text.h"
#include "core/attachment.h"
#include "tensor/autograd.h"
#include "train/optimizer.h"

namespace attune::tiny {

Tensor noise(const std::string& name, const std::vector<int64_t>& shape, double deviation,
             at::ScalarType type) {
  return normal_tensor(Stream64(7, "test").with(name).key(), shape, deviation, type);
}

namespace {

/// A query of a stack whose scores are not divided by sqrt(head_size): its weights are smaller by
/// that much, as trained ones are.
bool unscaled_query(const Model& model, const Site& site) {
  const Transformer* transformer = dynamic_cast<const Transformer*>(&model);
  return transformer != nullptr && transformer->spec().last().score_scale == 1 &&
         ends_with(site.name, ".q");
}

}  // namespace

void ordinary_weights(Model& model) {
  std::set<int> done;
  for (const Site& site : model.sites()) {
    if (site.kind != SiteKind::Weight || !done.insert(site.storage).second) continue;
    WeightSlot& slot = model.slot(site);
    const at::ScalarType type = model.numerics().master();
    std::vector<int64_t> shape{site.out};
    double deviation = 0.1;
    if (site.weight == WeightKind::Projection) shape = {site.out, site.in};
    if (site.weight == WeightKind::Table) shape = {site.in, site.out};
    if (site.weight == WeightKind::Projection)
      deviation = 0.8 / std::sqrt(static_cast<double>(site.in));
    if (site.weight == WeightKind::Table)
      deviation = 0.8 / std::sqrt(static_cast<double>(site.out));
    if (unscaled_query(model, site))
      deviation /= std::sqrt(
          static_cast<double>(dynamic_cast<const Transformer&>(model).spec().last().head_size));
    Tensor weight = noise(site.name + "/weight", shape, deviation);
    if (site.weight == WeightKind::Norm) weight = weight + 1.0;
    slot.weight = weight.to(type);
    if (site.bias) slot.bias = noise(site.name + "/bias", {site.out}, 0.1, type);
  }
}

std::vector<std::string> architecture_names() {
  return architectures().names();
}

Json config_of(const std::string& architecture) {
  return architectures().at(architecture).make(Options())->tiny_config();
}

std::unique_ptr<Model> model_of(const std::string& architecture, const HeadRequest& head,
                                kernels::DType type, const Json& changes, int recompute) {
  Json config = config_of(architecture);
  config.update(changes);
  LoadOptions options;
  options.numerics = {type, recompute};
  options.head = head;
  options.own_head = true;
  std::unique_ptr<Model> model = init_model(config, "tiny.json", options);
  ordinary_weights(*model);
  return model;
}

namespace {

const ModelSpec& spec_of(const Model& model) {
  return dynamic_cast<const Transformer&>(model).spec();
}

/// The stream whose rows a row-wise head labels.
const Stream& labelled_stream(const ModelSpec& spec, const Batch& batch) {
  const std::map<std::string, Stream>::const_iterator last = batch.streams.find(spec.last().name);
  return last != batch.streams.end() ? last->second : batch.streams.at(spec.first().name);
}

/// Sequences have one label each, rows one each with every third skipped.
Tensor labels_of(const ModelSpec& spec, const Stream64& stream, const RowIndex& rows) {
  const bool sequences = spec.head.kind == HeadKind::Sequence;
  const bool words = spec.head.kind == HeadKind::MaskedLm || spec.head.kind == HeadKind::Lm;
  const int64_t classes = words ? spec.last().vocabulary : spec.head.labels;
  const int64_t count = sequences ? rows.sequences() : rows.rows();
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < count; ++i)
    labels.push_back(static_cast<int64_t>(
        stream.below(static_cast<uint64_t>(i), static_cast<uint64_t>(classes))));
  for (size_t i = 1; !sequences && i < labels.size(); i += 3) labels[i] = -100;
  return int64_tensor(labels);
}

Tensor cut(const Tensor& x, int64_t begin, int64_t end) {
  return x.defined() ? x.slice(0, begin, end).clone() : Tensor();
}

}  // namespace

Batch batch_of(const Model& model, const std::vector<int64_t>& lengths, uint64_t seed) {
  const ModelSpec& spec = spec_of(model);
  Batch batch = made_up_batch(spec, lengths, seed);
  for (std::pair<const std::string, Stream>& stream : batch.streams)
    if (stream.second.values.defined())
      stream.second.values = stream.second.values.to(model.numerics().master());
  if (spec.head.kind != HeadKind::None)
    batch.fields["labels"] =
        labels_of(spec, Stream64(seed, "batch").with("labels"), labelled_stream(spec, batch).rows);
  std::vector<int64_t> examples;
  for (size_t i = 0; i < lengths.size(); ++i) examples.push_back(100 + static_cast<int64_t>(i));
  batch.fields["example"] = int64_tensor(examples);
  return batch;
}

Batch single(const Model& model, const Batch& batch, int64_t b) {
  const ModelSpec& spec = spec_of(model);
  Batch one;
  one.pass = batch.pass;
  for (const std::pair<const std::string, Stream>& entry : batch.streams) {
    const Stream& all = entry.second;
    const int64_t begin = all.rows.begin(b), end = all.rows.end(b);
    Stream& input = one.streams[entry.first];
    input.rows = RowIndex::from_lengths({end - begin});
    input.ids = cut(all.ids, begin, end);
    input.values = cut(all.values, begin, end);
    input.types = cut(all.types, begin, end);
  }
  one.fields["example"] = cut(batch.fields.at("example"), b, b + 1);
  if (batch.fields.count("labels") == 0) return one;
  const bool sequences = spec.head.kind == HeadKind::Sequence;
  const RowIndex& rows = labelled_stream(spec, batch).rows;
  one.fields["labels"] = cut(batch.fields.at("labels"), sequences ? b : rows.begin(b),
                             sequences ? b + 1 : rows.end(b));
  return one;
}

Batch training(Batch batch) {
  batch.pass.training = true;
  batch.pass.step = 3;
  batch.pass.seed = 9;
  return batch;
}

Tensor logits(Model& model, const Batch& batch) {
  at::NoGradGuard no_grad;
  return model.forward(batch, {}).head->logits(Tensor()).detach().clone();
}

Values everything(Model& model, const Batch& batch) {
  at::NoGradGuard no_grad;
  Output output = model.forward(batch, {{"*"}, true});
  Values values = std::move(output.captured);
  if (output.head != nullptr) values["logits"] = output.head->logits(Tensor());
  return values;
}

Tensor loss(Model& model, const Batch& batch, const Adaptation* adaptation) {
  Tensor sum;
  if (batch.fields.count("labels") > 0) {
    sum =
        model.forward(batch, {}).head->cross_entropy(batch.fields.at("labels"), Tensor(), 0.1).sum;
  } else {
    const std::string end = model.find("head.in") != nullptr ? "head.in" : "final";
    const Tensor x = model.forward(batch, {{end}, true}).captured.at(end).to(at::kDouble);
    sum = (x * noise("weights of " + end, x.sizes().vec(), 1)).sum();
  }
  const Tensor penalty = adaptation != nullptr ? adaptation->penalty() : Tensor();
  return penalty.defined() ? sum + penalty.to(at::kDouble) : sum;
}

double distance(const Tensor& a, const Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  if (a.numel() == 0) return 0;
  const Tensor x = a.detach().to(at::kDouble), y = b.detach().to(at::kDouble);
  return (x - y).abs().max().item<double>() / std::max(1.0, y.abs().max().item<double>());
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         at::equal(a.detach(), b.detach());
}

bool same(const Values& a, const Values& b) {
  if (a.size() != b.size()) return false;
  for (const Values::value_type& entry : a) {
    const Values::const_iterator other = b.find(entry.first);
    if (other == b.end() || !same_bits(entry.second, other->second)) return false;
  }
  return true;
}

Values base_tensors(Model& model) {
  Values values;
  for (size_t i = 0; i < model.slots(); ++i) {
    values[format("{}/weight", i)] = model.slot_at(i).weight.clone();
    if (model.slot_at(i).bias.defined())
      values[format("{}/bias", i)] = model.slot_at(i).bias.clone();
  }
  return values;
}

Values copies(const Adaptation& adaptation, const std::string& set) {
  Values values;
  for (const std::pair<std::string, Tensor>& entry : adaptation.tensors(set))
    values[entry.first] = entry.second.clone();
  return values;
}

void disturb(const Adaptation& adaptation, double deviation) {
  at::NoGradGuard no_grad;
  for (const Param& param : adaptation.trainable()) {
    const Tensor value = param.value.detach();
    value.add_(noise(param.name, value.sizes().vec(), deviation, value.scalar_type()));
    mark_changed(param.value);
  }
}

std::pair<double, double> train(Model& model, Adaptation& adaptation, const Batch& batch, int steps,
                                double rate) {
  std::vector<Param> params = adaptation.trainable();
  AdamW optimizer({});
  const double before = loss(model, batch, &adaptation).item<double>();
  for (int step = 0; step < steps; ++step) {
    clear_gradients(params);
    backward(loss(model, batch, &adaptation));
    optimizer.step(params, rate, 1);
  }
  clear_gradients(params);
  return {before, loss(model, batch, &adaptation).item<double>()};
}

namespace {

/// Central difference of the loss along one element.
double difference(Model& model, const Adaptation& adaptation, const Batch& batch,
                  const Tensor& value, int64_t at) {
  at::NoGradGuard no_grad;
  double* data = static_cast<double*>(value.data_ptr());
  const double kept = data[at], step = 1e-5;
  data[at] = kept + step;
  mark_changed(value);
  const double up = loss(model, batch, &adaptation).item<double>();
  data[at] = kept - step;
  mark_changed(value);
  const double down = loss(model, batch, &adaptation).item<double>();
  data[at] = kept;
  mark_changed(value);
  return (up - down) / (2 * step);
}

}  // namespace

void check_gradients(Model& model, Adaptation& adaptation, const Batch& batch, int random) {
  std::vector<Param> params = adaptation.trainable();
  clear_gradients(params);
  backward(loss(model, batch, &adaptation));
  for (const Param& param : params) {
    const Tensor gradient = param.value.grad();
    ASSERT_TRUE(gradient.defined()) << param.name;
    // Scores of a mask learn by a straight-through estimate, which is no derivative.
    if (ends_with(param.name, "_scores")) continue;
    const Tensor flat = gradient.reshape({-1});
    std::set<int64_t> elements{flat.abs().argmax().item<int64_t>()};
    for (int i = 0; i < random; ++i)
      elements.insert(static_cast<int64_t>(
          Stream64(5, param.name)
              .below(static_cast<uint64_t>(i), static_cast<uint64_t>(flat.numel()))));
    for (const int64_t element : elements) {
      const double expected = difference(model, adaptation, batch, param.value, element);
      EXPECT_NEAR(flat[element].item<double>(), expected, 2e-7 * (1 + std::abs(expected)))
          << param.name << " " << element;
    }
  }
  clear_gradients(params);
}

namespace {
class Attacher final : public Tuner {
 public:
  explicit Attacher(Edits::Attach attach) : attach_(std::move(attach)) {}
  void attach(Attachment& attachment) override { attach_(attachment); }

 private:
  Edits::Attach attach_;
};
}  // namespace

Edits::Edits(Model& model, Attach attach) {
  Entry<Tuner> entry;
  entry.name = "edits";
  entry.make = [attach](const Options&) { return std::make_unique<Attacher>(attach); };
  registry_.add(std::move(entry));
  adaptation_ = std::make_unique<Adaptation>(model, registry_, 1);
  adaptation_->add("default", {"edits", Json::object()});
}

}  // namespace attune::tiny
