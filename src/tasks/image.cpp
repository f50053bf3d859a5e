// image: one label an image.
#include <filesystem>

#include "base/error.h"
#include "signal/image_processor.h"
#include "tasks/record_image.h"
#include "tasks/registry.h"
#include "tasks/text_task.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class ImageTask final : public TextTask {
 public:
  void prepare(const Dataset& train, const TaskContext& context) override {
    processor_ = ImageProcessor::load(context.directory);
    TextTask::prepare(train, context);
  }
  void restore(const Json& state, const TaskContext& context) override {
    if (!context.directory.empty()) processor_ = ImageProcessor::load(context.directory);
    TextTask::restore(state, context);
  }
  HeadRequest head() const override { return {HeadKind::Sequence, labels_.size(), "auto"}; }
  std::unique_ptr<Tally> tally() const override {
    return std::make_unique<LabelTally>(labels_.names());
  }
  std::string objective() const override { return "cross_entropy"; }
  std::string main_metric() const override { return "accuracy"; }
  bool reads_text() const override { return false; }
  void check(const Model& model) const override {
    for (const Site& site : model.sites())
      if (site.name.ends_with(".embed.patch")) return;
    fail(ErrorCode::Unsupported,
         "task image: this model reads no images; choose an image model, such as a ViT");
  }

  Example encode(const Record& record, bool with_labels) const override {
    Example example;
    const std::string name = column_of(record, "image", {"image", "file", "path"});
    example.values = processor_.patches(image_of(record, name));
    if (with_labels) label(record, example);
    return example;
  }

  Batch collate(const std::vector<Example>& examples) const override {
    Batch batch;
    std::vector<int64_t> lengths, ids, labels;
    std::vector<Tensor> values;
    for (const Example& example : examples) {
      lengths.push_back(example.values.size(0));
      ids.push_back(example.id);
      values.push_back(example.values);
      labels.insert(labels.end(), example.labels.begin(), example.labels.end());
    }
    Stream& stream = batch.streams["vis"];
    stream.rows = RowIndex::from_lengths(lengths);
    stream.values = at::cat(values);
    batch.fields["example"] = int64_tensor(ids);
    if (!labels.empty()) batch.fields["labels"] = int64_tensor(labels);
    return batch;
  }

  std::vector<Json> predictions(const Tensor& logits, const RowIndex&,
                                const std::vector<Example>& examples) const override {
    std::vector<Json> result;
    for (size_t i = 0; i < examples.size(); ++i)
      result.push_back(
          label_scores(labels_.names(), probabilities_of(logits, static_cast<int64_t>(i))));
    return result;
  }

 protected:
  void learn(const Record& record) override { labels_.add(record, label_column(record)); }
  void learned() override { labels_.finish(2); }
  void check_row(const Record& record) const override {
    const std::string name = column_of(record, "image", {"image", "file", "path"});
    if (!std::filesystem::exists(file_of(record, name)))
      encode(record, false);  // says what is wrong with it
  }
  void label(const Record& record, Example& example) const override {
    example.labels = {labels_.id(record, label_column(record))};
  }

 private:
  ImageProcessor processor_;
};

}  // namespace

void register_image(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "image";
  entry.summary =
      "one label an image; a folder with a subfolder of PNG or JPEG files a label, or columns "
      "image "
      "(a file) and label";
  entry.reference = "scikit-learn's metrics; images as transformers' ViTImageProcessor reads them";
  entry.make = [](const Options&) { return std::make_unique<ImageTask>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
