// Sparse fine-tuning: a fixed choice of the base model's own parameters trains.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "methods/registry.h"
#include "methods/thawed.h"
#include "tensor/choose.h"
#include "tensor/torch.h"

namespace attune {
namespace {

ThawChoice choice_of(const Options& options) {
  ThawChoice choice{options.get<std::vector<std::string>>("sites")};
  choice.biases = options.get<bool>("biases");
  choice.norms = options.get<bool>("norms");
  return choice;
}

int64_t share_of(double density, int64_t elements) {
  return std::llround(density * static_cast<double>(elements));
}

class SparseMask final : public Tuner {
 public:
  explicit SparseMask(const Options& options)
      : choice_(choice_of(options)),
        density_(options.get<double>("density")),
        choose_(options.get<std::string>("choose")),
        per_tensor_(options.get<std::string>("scope") == "tensor"),
        batches_(options.get<int64_t>("batches")) {}

  void attach(Attachment& attachment) override {
    tensors_ = thaw_chosen(attachment, choice_, true, "sparse_mask");
    std::vector<Tensor> sizes;
    for (const BaseTensor& tensor : tensors_) sizes.push_back(tensor.base.abs());
    if (choose_ == "random") {
      choose(
          [key = attachment.stream("mask")](const std::vector<Tensor>& like, int64_t count,
                                            size_t first) {
            return random_elements(like, count, Stream64(key).with(first).key());
          },
          sizes);
    } else {
      choose_largest(sizes);  // Fisher: until the data were seen
    }
  }

  void calibrate(const Calibration& calibration) override {
    if (choose_ == "fisher")
      choose_largest(fisher_information(calibration, tensors_, batches_, "sparse_mask"));
  }

 private:
  using Chooser = std::function<std::vector<Tensor>(const std::vector<Tensor>& scores,
                                                    int64_t count, size_t first)>;
  void choose_largest(const std::vector<Tensor>& scores) {
    choose([](const std::vector<Tensor>& s, int64_t count,
              size_t) { return largest_elements(s, count); },
           scores);
  }

  void choose(const Chooser& chooser, const std::vector<Tensor>& scores) {
    std::vector<Tensor> masks;
    if (per_tensor_) {
      for (size_t i = 0; i < scores.size(); ++i)
        masks.push_back(chooser({scores[i]}, share_of(density_, scores[i].numel()), i)[0]);
    } else {
      int64_t elements = 0;
      for (const Tensor& score : scores) elements += score.numel();
      masks = chooser(scores, share_of(density_, elements), 0);
    }
    int64_t chosen = 0;
    for (const Tensor& mask : masks) chosen += mask.sum().item<int64_t>();
    if (chosen == 0)
      fail(ErrorCode::BadInput,
           "sparse_mask: density {} leaves no parameter to train; give a larger one", density_);
    refill(tensors_, masks);
  }

  ThawChoice choice_;
  double density_;
  std::string choose_;
  bool per_tensor_;
  int64_t batches_;
  std::vector<BaseTensor> tensors_;
};

int64_t mask_count_of(const std::vector<Site>& sites, const Options& options) {
  const ThawChoice choice = choice_of(options);
  const double density = options.get<double>("density");
  if (options.get<std::string>("scope") == "global")
    return share_of(density, count_chosen(sites, choice));
  int64_t count = 0;
  for (const Site& site : sites)
    for (const bool biases : {false, true}) {
      ThawChoice part = choice;
      part.weights = !biases;
      part.biases = biases && choice.biases;
      count += share_of(density, count_chosen({site}, part));
    }
  return count;
}

}  // namespace

void register_sparse_mask(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "sparse_mask";
  entry.summary =
      "sparse fine-tuning: a fixed share of the model's own parameters trains, chosen by Fisher "
      "information, magnitude or at random (lottery tickets: the policy lottery_ticket)";
  entry.reference =
      "Sung et al. 2021, \"Training Neural Networks with Fixed Sparse Masks\", arXiv 2111.09839 "
      "(fisher, random); Bhardwaj et al. 2024, \"Sparse High Rank Adapters\", arXiv 2406.13175 "
      "(magnitude)";
  entry.options = {
      {"sites", "globs", "\"*\"", "",
       "sites among whose tensors the parameters are chosen (globs over site names); a head that "
       "the checkpoint lacks trains whole"},
      {"choose", "choice", "fisher", "fisher|magnitude|random",
       "the parameters with the largest Fisher information on the training data, of the largest "
       "magnitude, or at random"},
      {"density", "number", "0.005", "(0, 1]", "share of the parameters that trains"},
      {"scope", "choice", "global", "global|tensor",
       "choose among all tensors together, or the same share of each"},
      {"biases", "bool", "true", "", "biases may be chosen"},
      {"norms", "bool", "true", "", "normalisation layers may be chosen"},
      {"batches", "int", "128", "[1, inf)",
       "fisher: training batches it is computed from, at most one pass over the data"},
  };
  entry.learning_rate = 2e-4;
  entry.tiny = "{choose: magnitude, density: 0.3}";
  entry.examples = {"{}", "{choose: random, density: 0.01, norms: false}"};
  entry.make = [](const Options& options) { return std::make_unique<SparseMask>(options); };
  entry.count = mask_count_of;
  registry.add(std::move(entry));
}

}  // namespace attune
