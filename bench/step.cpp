// Whole training steps: forward, loss, backward, clipping, AdamW, on a model of random weights. One
// JSON object a run on standard output.
//
//   step MODEL METHOD [--dtype bf16|fp32] [--storage full|int8|nf4] [--shape 16x128 | --lognormal
//   32]
//        [--steps 10] [--warmup 2] [--threads 0] [--mapped DIR] [--recompute none|blocks|N] [--sets
//        N] [--answer 100]
//
// --mapped: the weights are those of a checkpoint in DIR/MODEL (made there when it is not there),
// as a user's are; otherwise they are drawn in memory, where they stay. --sets: forward passes
// alone, over N sets of the method, the sequences taking them in turn. --answer: the percent of
// each sequence, at its end, that carries labels (decoder). --lognormal: every step, warm-up too,
// has a batch of its own, as in a run; rates are medians of the steps' own.
//
// MODEL: bert-base, minilm, decoder; or `lengths`, which prints those of the steps' batches alone.
// METHOD: full; frozen (a trained head alone: no backward pass through the body); bare (one bias or
// norm of the first block: what methods in every block cannot avoid); or YAML of a method:
// "{lora: {rank: 8}}". The ceiling is that of packed products of the model's shapes, measured
// before and after the steps in this process.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "arch/load.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "core/adaptation.h"
#include "core/storage.h"
#include "kernels/kernels.h"
#include "methods/registry.h"
#include "nn/transformer.h"
#include "objectives/registry.h"
#include "recipe/yaml.h"
#include "step_batches.h"
#include "step_work.h"
#include "tensor/autograd.h"
#include "tensor/memory.h"
#include "tensor/process.h"
#include "tensor/torch.h"
#include "tensor/types.h"
#include "train/adapter_files.h"
#include "train/optimizer.h"
#include "train/trainer.h"

namespace attune {
namespace {

struct Setting {
  std::string model = "minilm", method = "{lora: {rank: 8}}", dtype = "bf16", storage = "full";
  std::string mapped;  // a folder of checkpoints; empty: weights in memory
  int64_t sequences = 16, length = 128, lognormal = 0, steps = 10, warmup = 2, sets = 0;
  int64_t answer = 100;
  int recompute = 0;
  int threads = 0;
};

/// `longest`: as many positions at least, 512 otherwise.
Json config_of(const std::string& name, int64_t longest) {
  Json config = Json::parse(
      R"({"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_act": "gelu",
          "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "initializer_range": 0.02,
          "layer_norm_eps": 1e-12, "type_vocab_size": 2,
          "vocab_size": 30522, "pad_token_id": 0})");
  const auto shape = [&](int64_t hidden, int64_t layers, int64_t heads) {
    config["hidden_size"] = hidden;
    config["num_hidden_layers"] = layers;
    config["num_attention_heads"] = heads;
    config["intermediate_size"] = 4 * hidden;
  };
  config["max_position_embeddings"] = std::max<int64_t>(512, longest);
  if (name == "minilm") {
    shape(384, 6, 12);
  } else if (name == "bert-base") {
    shape(768, 12, 12);
  } else if (name == "decoder") {
    config = Json::parse(
        R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "num_key_value_heads": 4, "intermediate_size": 2048, "vocab_size": 32000,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "initializer_range": 0.02,
            "tie_word_embeddings": false, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2})");
  } else {
    fail(ErrorCode::BadInput, "there is no model \"{}\"; bert-base, minilm, decoder", name);
  }
  return config;
}

/// Lengths of the batches that steps take in turn: one batch of equal lengths, or one for every
/// step.
std::vector<std::vector<int64_t>> lengths_of(const Setting& setting) {
  if (setting.lognormal > 0)
    return lognormal_lengths(setting.warmup + setting.steps, setting.lognormal);
  return {std::vector<int64_t>(static_cast<size_t>(setting.sequences), setting.length)};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double load_average() {
  std::ifstream file("/proc/loadavg");
  double load = 0;
  file >> load;
  return load;
}

struct Measured {
  std::vector<double> seconds;
  double faults = 0, system_ms = 0;
  double loss = 0;
};

class Bench {
 public:
  explicit Bench(const Setting& setting) : setting_(setting), registry_(methods()) {
    LoadOptions options;
    options.numerics.compute = setting.dtype == "bf16" ? kernels::DType::BF16 : kernels::DType::F32;
    if (setting.model == "decoder") {
      options.head.kind = HeadKind::Lm;
    } else {
      options.head.kind = HeadKind::Sequence;
      options.head.labels = 2;
    }
    options.own_head = true;
    lengths_ = lengths_of(setting);
    int64_t longest = 0;
    for (const std::vector<int64_t>& lengths : lengths_)
      longest = std::max(longest, *std::max_element(lengths.begin(), lengths.end()));
    options.numerics.recompute = setting.recompute;
    make_model(config_of(setting.model, longest), options);
    StorageOptions storage;
    storage.kind = setting.storage;
    store(*model_, storage);
    adaptation_ = std::make_unique<Adaptation>(*model_, registry_, 1);
    full_ = setting.method == "full";
    const Json method = parse_yaml(setting.method, "method").to_json();
    if (setting.method == "frozen" || (!full_ && setting.model != "decoder"))
      adaptation_->add("default", {"head", Json::object()});
    if (setting.method == "bare") {
      const std::string first =
          (model_->find("enc.0.self.q") != nullptr ? "enc" : "dec") + std::string(".0.self.");
      const bool biases = model_->site(first + "q").bias;
      adaptation_->add(
          "default", {biases ? "bias" : "norms", Json{{"sites", first + (biases ? "q" : "norm")}}});
    } else if (setting.method != "frozen") {
      const TunerSpec spec = method.is_string()
                                 ? TunerSpec{method.get<std::string>(), Json::object()}
                                 : TunerSpec{method.begin().key(), method.begin().value()};
      adaptation_->add("default", spec);
      for (int64_t i = 1; i < setting.sets; ++i) adaptation_->add(format("set {}", i), spec);
    }
    const Registry<Objective> registry = objectives();
    const Entry<Objective>& entry = registry.at("cross_entropy");
    objective_ = entry.make(Options(entry.options, Node(), "objective"));
    for (const std::vector<int64_t>& lengths : lengths_) batches_.push_back(batch_of(lengths));
    optimizer_.leave_rows_behind();
  }

  Json run() {
    const kernels::DType type = model_->numerics().compute;
    std::vector<Work> works;
    std::vector<int64_t> rows;
    for (const std::vector<int64_t>& lengths : lengths_) {
      works.push_back(
          work_of(*model_, lengths, rows_read(lengths), setting_.model == "decoder", full_));
      rows.push_back(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
    }
    const double before = ceiling_of(works[0], rows[0], type);
    return_free_memory();
    for (int64_t i = 0; i < setting_.warmup; ++i) step();
    const Measured m = measure();
    // What the products below take on their own is not the steps'.
    const int64_t peak = peak_resident_bytes();
    const MemoryCounts memory = memory_counts();
    const Cost cost = adaptation_->cost();  // weights drawn here all count as new
    const double after = ceiling_of(works[0], rows[0], type);
    const double ceiling = std::max(before, after);
    std::vector<double> tokens_per_second, useful_per_second;
    for (size_t i = 0; i < m.seconds.size(); ++i) {
      const size_t at = (i + static_cast<size_t>(setting_.warmup)) % works.size();
      tokens_per_second.push_back(static_cast<double>(rows[at]) / m.seconds[i]);
      useful_per_second.push_back((works[at].linear + works[at].attention) * 1e-9 / m.seconds[i]);
    }
    const double most = *std::max_element(useful_per_second.begin(), useful_per_second.end());
    const double least = *std::min_element(m.seconds.begin(), m.seconds.end());
    const double steps = static_cast<double>(setting_.steps);
    return Json{{"model", setting_.model},
                {"method", setting_.method},
                {"dtype", setting_.dtype},
                {"storage", setting_.storage},
                {"sets", setting_.sets},
                {"threads", kernels::threads()},
                {"isa", kernels::isa_name(kernels::isa())},
                {"sequences", lengths_[0].size()},
                {"tokens", rows[0]},
                {"steps", setting_.steps},
                {"min_ms", 1e3 * least},
                {"median_ms", 1e3 * median(m.seconds)},
                {"tokens_per_second", median(tokens_per_second)},
                {"gflop", (works[0].linear + works[0].attention) * 1e-9},
                {"ceiling", ceiling},
                {"ceiling_before", before},
                {"ceiling_after", after},
                {"fraction_min", most / ceiling},
                {"fraction_median", median(useful_per_second) / ceiling},
                {"faults_per_step", m.faults / steps},
                {"system_ms_per_step", m.system_ms / steps},
                {"peak_bytes", peak},
                {"tensor_peak_bytes", memory.peak},
                {"tensor_kept_bytes", memory.in_use + memory.kept},
                {"trainable", cost.trainable + cost.head},
                {"loss", m.loss},
                {"load", load_average()}};
  }

 private:
  /// Rows of each sequence that the loss reads: one of a classifier's, the answer of a decoder's.
  std::vector<int64_t> rows_read(const std::vector<int64_t>& lengths) const {
    std::vector<int64_t> read;
    for (const int64_t length : lengths)
      read.push_back(
          setting_.model == "decoder" ? std::max<int64_t>(length * setting_.answer / 100, 1) : 1);
    return read;
  }
  Batch batch_of(const std::vector<int64_t>& lengths) const {
    Batch batch =
        step_batch(dynamic_cast<const Transformer&>(*model_).spec(), lengths, batches_.size() + 1,
                   setting_.model == "decoder" ? setting_.answer : 0);
    batch.pass.training = setting_.sets == 0;
    std::vector<int32_t> sets;
    for (size_t i = 0; setting_.sets > 1 && i < lengths.size(); ++i)
      sets.push_back(static_cast<int32_t>(static_cast<int64_t>(i) % setting_.sets));
    if (!sets.empty()) batch.sets = int32_tensor(sets);
    return batch;
  }

  void make_model(const Json& config, const LoadOptions& options) {
    if (setting_.mapped.empty()) {
      model_ = init_model(config, setting_.model, options);
      return;
    }
    const std::string folder = format("{}/{}-{}", setting_.mapped, setting_.model,
                                      config["max_position_embeddings"].dump());
    if (!file_exists(folder + "/config.json")) {
      FreshDirectory fresh(folder);
      write_model(*init_model(config, setting_.model, options), "", fresh.path(), Json::object());
      fresh.replace();
    }
    model_ = load_model(folder, options).model;
  }

  double step() {
    Batch& batch = batches_[static_cast<size_t>(steps_) % batches_.size()];
    batch.pass.step = ++steps_;
    if (setting_.sets > 0) {
      const at::NoGradGuard no_grad;
      return objective_->compute(*model_, batch).total.sum.item<double>();
    }
    std::vector<Param> params = adaptation_->trainable();
    clear_gradients(params);
    const Loss loss = objective_->compute(*model_, batch);
    const double value = loss.total.sum.item<double>() / loss.total.count;
    backward(loss.total.sum);
    const double norm = gradient_norm(params) / loss.total.count;
    optimizer_.step(params, 1e-4, std::min(1.0, 1.0 / (norm + 1e-6)) / loss.total.count);
    return value;
  }

  Measured measure() {
    Measured m;
    rusage start{}, end{};
    getrusage(RUSAGE_SELF, &start);
    for (int64_t i = 0; i < setting_.steps; ++i) {
      const auto began = std::chrono::steady_clock::now();
      m.loss = step();
      m.seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    getrusage(RUSAGE_SELF, &end);
    m.faults = static_cast<double>(end.ru_minflt - start.ru_minflt);
    const auto ms = [](const timeval& t) {
      return 1e3 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_usec);
    };
    m.system_ms = ms(end.ru_stime) - ms(start.ru_stime);
    return m;
  }

  Setting setting_;
  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Adaptation> adaptation_;
  std::unique_ptr<Objective> objective_;
  AdamW optimizer_{AdamWOptions{}};
  std::vector<std::vector<int64_t>> lengths_;  // of the batches
  std::vector<Batch> batches_;                 // that steps take in turn
  bool full_ = false;
  int64_t steps_ = 0;
};

Setting parse(const std::vector<std::string>& arguments) {
  Setting setting;
  std::vector<std::string> plain;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!starts_with(arguments[i], "--")) {
      plain.push_back(arguments[i]);
      continue;
    }
    if (i + 1 == arguments.size()) fail(ErrorCode::BadInput, "{} needs a value", arguments[i]);
    const std::string key = arguments[i], value = arguments[++i];
    if (key == "--dtype")
      setting.dtype = value;
    else if (key == "--storage")
      setting.storage = value;
    else if (key == "--steps")
      setting.steps = std::stoll(value);
    else if (key == "--warmup")
      setting.warmup = std::stoll(value);
    else if (key == "--threads")
      setting.threads = std::stoi(value);
    else if (key == "--mapped")
      setting.mapped = value;
    else if (key == "--answer")
      setting.answer = std::stoll(value);
    else if (key == "--sets")
      setting.sets = std::stoll(value);
    else if (key == "--recompute")
      setting.recompute = value == "none" ? 0 : value == "blocks" ? -1 : std::stoi(value);
    else if (key == "--lognormal")
      setting.lognormal = std::stoll(value);
    else if (key == "--shape") {
      const std::vector<std::string> sides = split(value, 'x');
      if (sides.size() != 2) fail(ErrorCode::BadInput, "--shape {}: give 16x128", value);
      setting.sequences = std::stoll(sides[0]);
      setting.length = std::stoll(sides[1]);
    } else {
      fail(ErrorCode::BadInput, "there is no option {}", key);
    }
  }
  if (!plain.empty()) setting.model = plain[0];
  if (plain.size() > 1) setting.method = plain[1];
  return setting;
}

}  // namespace
}  // namespace attune

int main(int count, char** values) {
  using namespace attune;
  try {
    const Setting setting = parse(std::vector<std::string>(values + 1, values + count));
    if (setting.model == "lengths") {
      std::printf("%s\n", Json(lengths_of(setting)).dump().c_str());
      return 0;
    }
    start_threads(setting.threads);
    std::printf("%s\n", Bench(setting).run().dump().c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "step: %s\n", error.what());
    return 1;
  }
}
