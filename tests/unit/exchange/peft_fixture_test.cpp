#include "unit/exchange/peft_fixture.h"

#include "exchange/module_names.h"
#include "nn/transformer.h"

namespace attune {

namespace fs = std::filesystem;

PeftFixture::PeftFixture(std::string name, kernels::DType type, const HeadRequest* head)
    : family(std::move(name)) {
  LoadOptions options;
  options.numerics.compute = type;
  if (head != nullptr) {
    options.own_head = true;
    options.head = *head;
  }
  loaded = load_model(golden(family, "base"), options);
  adaptation = std::make_unique<Adaptation>(*loaded.model, registry, 1);
}

namespace {

Stream tokens(const Json& ids) {
  Stream stream;
  stream.ids = at::tensor(ids.get<std::vector<int>>(), at::kInt);
  stream.rows = RowIndex::from_lengths({stream.ids.size(0)});
  return stream;
}

/// Pixels [channels, height, width] as rows of patches.
Stream patches(const std::string& file, const PatchSpec& spec, at::ScalarType type) {
  const Tensor pixels = SafetensorsFile(file).tensor("pixel_values").to(type);
  std::vector<Tensor> rows;
  for (int64_t y = 0; y + spec.patch_height <= spec.height; y += spec.patch_height)
    for (int64_t x = 0; x + spec.patch_width <= spec.width; x += spec.patch_width)
      rows.push_back(
          pixels.narrow(1, y, spec.patch_height).narrow(2, x, spec.patch_width).reshape({-1}));
  Stream stream;
  stream.values = at::stack(rows);
  stream.rows = RowIndex::from_lengths({stream.values.size(0)});
  return stream;
}

Batch batch_of(const Json& line, const std::string& family, const Model& model) {
  const ModelSpec& spec = dynamic_cast<const Transformer&>(model).spec();
  Batch batch;
  if (line.contains("tensors")) {
    batch.streams[spec.first().name] = patches(golden(family, line["tensors"].get<std::string>()),
                                               spec.first().patches, model.numerics().master());
    return batch;
  }
  Stream& first = batch.streams[spec.first().name] = tokens(line.at("input_ids"));
  if (line.contains("token_type_ids"))
    first.types = at::tensor(line["token_type_ids"].get<std::vector<int>>(), at::kInt);
  if (line.contains("decoder_input_ids"))
    batch.streams[spec.last().name] = tokens(line["decoder_input_ids"]);
  return batch;
}

}  // namespace

std::vector<Tensor> PeftFixture::logits() {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> result;
  for (const std::string& line : split(read_file(golden(family, "inputs.jsonl")), '\n')) {
    if (line.empty()) continue;
    const Batch batch = batch_of(parse_json(line, "inputs.jsonl"), family, model());
    result.push_back(model().forward(batch, {}).head->logits({}).reshape({-1}).clone());
  }
  return result;
}

void PeftFixture::disturb(double strength) {
  const at::NoGradGuard no_grad;
  double phase = 0;
  for (const std::pair<std::string, Tensor>& entry : adaptation->tensors("default")) {
    if (!entry.second.is_floating_point()) continue;
    const Tensor noise =
        at::arange(entry.second.numel(), at::kDouble).add(phase += 1).mul(1.7).sin().mul(strength);
    entry.second.add_(noise.reshape(entry.second.sizes()).to(entry.second.scalar_type()));
    mark_changed(entry.second);
  }
}

bool PeftFixture::holds(const std::pair<std::string, Tensor>& entry) {
  const std::string leading = "base_model.model.", ending = ".weight";
  if (!starts_with(entry.first, leading) || !ends_with(entry.first, ending)) return false;
  const std::string name =
      entry.first.substr(leading.size(), entry.first.size() - leading.size() - ending.size());
  const ModuleNames names(model());
  const ModuleNames::Module* module = names.find(name);
  if (module == nullptr || module->name != name) return false;
  const Tensor base = model().slot(module->site).weight;
  return entry.second.sizes() == base.sizes() && at::equal(entry.second, base);
}

std::vector<Tensor> expected_logits(const std::string& family, const std::string& adapter) {
  const SafetensorsFile file(golden(family, "expected.safetensors"));
  std::vector<Tensor> result;
  for (int i = 0; i < 4; ++i)
    result.push_back(file.tensor(format("{}/{}/logits", adapter, i)).reshape({-1}));
  return result;
}

void expect_equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << a[i] << b[i];
}

void expect_near(const std::vector<Tensor>& a, const std::vector<Tensor>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const Tensor x = a[i].to(at::kDouble), y = b[i].to(at::kDouble);
    ASSERT_EQ(x.sizes(), y.sizes());
    EXPECT_LE(((x - y).abs() / (1 + y.abs())).max().item<double>(), tolerance);
  }
}

void copy_adapter(const std::string& adapter, const std::string& directory, const Json& changes) {
  fs::copy(golden("bert", adapter), directory,
           fs::copy_options::overwrite_existing | fs::copy_options::recursive);
  Json config = read_json(directory + "/adapter_config.json");
  config.update(changes);
  write_file_atomic(directory + "/adapter_config.json", config.dump(2));
}

NamedTensors adapter_tensors(const std::string& directory) {
  const SafetensorsFile file(directory + "/adapter_model.safetensors");
  NamedTensors result;
  for (const TensorInfo& info : file.tensors())
    result.emplace_back(info.name, file.tensor(info.name).clone());
  return result;
}

void write_adapter_tensors(const std::string& directory, const NamedTensors& tensors) {
  save_safetensors(directory + "/adapter_model.safetensors", tensors);
}

namespace {

TEST(PeftFixture, ComputesTheBaseModelsOfAllFamilies) {
  for (const char* family : {"bert", "llama", "llama-tied", "t5", "vit"}) {
    PeftFixture fixture(family);
    expect_near(fixture.logits(), expected_logits(family, "base"), 3e-5);
  }
}

}  // namespace
}  // namespace attune
