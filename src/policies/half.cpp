// Half fine-tuning (HFT): in every round a random half of the model's matrices trains.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "base/text.h"
#include "policies/base_tensors.h"
#include "policies/registry.h"

namespace attune {
namespace {

/// The matrices of one block and category ("enc.self"): sites, each with its bias.
struct Cell {
  std::string block;
  std::vector<std::string> members;
};
/// Category -> its cells, one a block.
using Categories = std::map<std::string, std::vector<Cell>>;

/// "enc.self" of enc.3.self.q, "enc.norm" of every norm.
std::string category_of(const Site& site) {
  const std::string block = block_of(site), point = site.name.substr(block.size());
  const std::string part =
      site.weight == WeightKind::Norm ? "norm" : point.substr(0, point.find('.'));
  return site.name.substr(0, site.name.find('.') + 1) + part;
}

Categories categories_of(const std::vector<TrainedBase>& tensors) {
  Categories result;
  for (const TrainedBase& tensor : tensors) {
    if (tensor.site.layer < 0) continue;
    std::vector<Cell>& cells = result[category_of(tensor.site)];
    const std::string block = block_of(tensor.site);
    std::vector<Cell>::iterator cell = std::find_if(
        cells.begin(), cells.end(), [&](const Cell& other) { return other.block == block; });
    if (cell == cells.end()) cell = cells.insert(cells.end(), {block, {}});
    std::vector<std::string>& members = cell->members;
    if (std::find(members.begin(), members.end(), tensor.site.name) == members.end())
      members.push_back(tensor.site.name);
  }
  for (std::pair<const std::string, std::vector<Cell>>& category : result)
    std::sort(category.second.begin(), category.second.end(),
              [](const Cell& a, const Cell& b) { return a.block < b.block; });
  return result;
}

/// Some of the items, at random.
template <class T>
std::vector<T> drawn(const std::vector<T>& items, int64_t count, const Stream64& stream) {
  std::vector<T> result;
  const std::vector<int64_t> order = stream.permutation(static_cast<int64_t>(items.size()));
  for (int64_t i = 0; i < count; ++i)
    result.push_back(items[static_cast<size_t>(order[static_cast<size_t>(i)])]);
  return result;
}

int64_t rounded(double share, size_t count) {
  return std::llround(share * static_cast<double>(count));
}

using Sites = std::set<std::string>;

/// Of every block's c members floor(ratio c), and one more in as many random blocks as it takes to
/// train round(ratio * members) of the category over all blocks.
void draw_category(const std::vector<Cell>& cells, double ratio, const Stream64& stream,
                   Sites& updated) {
  size_t members = 0;
  std::vector<int64_t> counts;
  for (const Cell& cell : cells) {
    members += cell.members.size();
    counts.push_back(
        static_cast<int64_t>(std::floor(ratio * static_cast<double>(cell.members.size()) + 1e-9)));
  }
  int64_t missing =
      rounded(ratio, members) - std::accumulate(counts.begin(), counts.end(), int64_t{0});
  for (const int64_t at : stream.with("blocks").permutation(static_cast<int64_t>(cells.size()))) {
    const size_t cell = static_cast<size_t>(at);
    if (missing <= 0) break;
    if (counts[cell] == static_cast<int64_t>(cells[cell].members.size())) continue;
    ++counts[cell];
    --missing;
  }
  for (size_t i = 0; i < cells.size(); ++i)
    for (const std::string& site : drawn(cells[i].members, counts[i], stream.with(cells[i].block)))
      updated.insert(site);
}

/// Whole blocks of each stack.
void draw_layers(const Categories& categories, double ratio, const Stream64& stream,
                 Sites& updated) {
  std::map<std::string, std::map<std::string, std::vector<std::string>>> stacks;
  for (const std::pair<const std::string, std::vector<Cell>>& category : categories)
    for (const Cell& cell : category.second) {
      std::vector<std::string>& all =
          stacks[category.first.substr(0, category.first.find('.'))][cell.block];
      all.insert(all.end(), cell.members.begin(), cell.members.end());
    }
  for (const auto& [stack, blocks] : stacks) {
    std::vector<std::string> names;
    for (const auto& [block, sites] : blocks) names.push_back(block);
    for (const std::string& block : drawn(names, rounded(ratio, names.size()), stream.with(stack)))
      updated.insert(blocks.at(block).begin(), blocks.at(block).end());
  }
}

class Half final : public TrainingPolicy {
 public:
  explicit Half(const Options& options)
      : ratio_(options.get<double>("ratio")),
        selection_(options.get<std::string>("selection")),
        rounds_(options.get<int64_t>("rounds")),
        steps_(options.get<int64_t>("steps")),
        embeddings_(options.get<bool>("train_embeddings")),
        head_(options.get<bool>("train_head")),
        own_seed_(options.node("mask_seed").text() != "auto") {
    if (own_seed_) seed_ = static_cast<uint64_t>(options.get<int64_t>("mask_seed"));
  }

  void begin(TrainState& state) override {
    if (!own_seed_) seed_ = state.pass.seed;
    tensors_ = trained_base(state);
    categories_ = categories_of(tensors_);
    if (categories_.empty())
      fail(ErrorCode::BadInput,
           "half: nothing to select: no matrix of the base model's blocks trains; half tuning "
           "chooses among them, so add a method that trains them, such as full");
    check_tied(state.model);
  }

  void before_step(TrainState& state) override {
    const int64_t round =
        steps_ > 0
            ? state.pass.step / steps_
            : std::min(rounds_ - 1,
                       static_cast<int64_t>(state.pass.progress * static_cast<double>(rounds_)));
    if (round != round_) {
      // Frozen tensors leave no moments behind, and others join without any.
      if (round_ >= 0) state.restart = true;
      round_ = round;
      updated_ = draw();
    }
    for (const TrainedBase& tensor : tensors_)
      if (!trains(tensor)) state.params[tensor.param].frozen = true;
  }

  std::string save_state() const override {
    return Json{{"round", round_},
                {"seed", seed_},
                {"ratio", ratio_},
                {"selection", selection_},
                {"updated", updated_}}
        .dump();
  }

  void load_state(std::string_view text) override {
    const Json json = Json::parse(text);
    if (json.at("seed") != seed_ || json.at("ratio") != ratio_ ||
        json.at("selection") != selection_)
      fail(ErrorCode::BadInput,
           "half: the checkpoint's half was drawn with seed {}, ratio {} and selection {}, but "
           "this recipe has seed {}, ratio {} and selection {}; resume with the recipe of the run",
           json.at("seed").dump(), json.at("ratio").dump(), json.at("selection").get<std::string>(),
           seed_, ratio_, selection_);
    round_ = json.at("round").get<int64_t>();
    updated_ = json.at("updated").get<Sites>();
  }

 private:
  bool trains(const TrainedBase& tensor) const {
    if (tensor.new_head) return true;
    if (tensor.site.layer >= 0) return updated_.count(tensor.site.name) > 0;
    if (tensor.site.name.find(".embed.") != std::string::npos) return embeddings_;
    return !starts_with(tensor.site.name, "head.") || head_;
  }

  Sites draw() const {
    const Stream64 stream = Stream64(seed_, "half").with(static_cast<uint64_t>(round_));
    Sites updated;
    if (selection_ == "layer") {
      draw_layers(categories_, ratio_, stream, updated);
    } else if (selection_ == "model") {
      std::vector<std::string> all;
      for (const std::pair<const std::string, std::vector<Cell>>& category : categories_)
        for (const Cell& cell : category.second)
          all.insert(all.end(), cell.members.begin(), cell.members.end());
      for (const std::string& site : drawn(all, rounded(ratio_, all.size()), stream))
        updated.insert(site);
    } else {
      for (const std::pair<const std::string, std::vector<Cell>>& category : categories_)
        draw_category(category.second, ratio_, stream.with(category.first), updated);
    }
    return updated;
  }

  /// One tensor cannot both train and stay.
  void check_tied(const Model& model) const {
    const Site* head = model.find("head.proj");
    if (embeddings_ == head_ || head == nullptr) return;
    for (const Site& site : model.sites())
      if (site.storage == head->storage && site.name.find(".embed.") != std::string::npos)
        fail(ErrorCode::BadInput,
             "half: train_embeddings is {} and train_head is {}, but {} and head.proj are one tied "
             "tensor; give both the same value",
             embeddings_, head_, site.name);
  }

  double ratio_;
  std::string selection_;
  int64_t rounds_, steps_;
  bool embeddings_, head_, own_seed_;
  uint64_t seed_ = 0;
  int64_t round_ = -1;
  std::vector<TrainedBase> tensors_;
  Categories categories_;
  Sites updated_;  // of the blocks, in this round
};

}  // namespace

void register_half(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "half";
  entry.summary =
      "half fine-tuning: a random half of the blocks' matrices trains, drawn anew in every round";
  entry.reference =
      "Hui et al. 2025, \"HFT: Half Fine-Tuning for Large Language Models\", arXiv 2404.18466";
  entry.options = {
      {"ratio", "number", "0.5", "[0, 1]", "share of the matrices that trains; 1: no effect"},
      {"selection", "choice", "category", "category|layer|model",
       "half of each category (attention, feed-forward, norms) in every block; whole blocks; or "
       "any matrices"},
      {"rounds", "int", "1", "[1, inf)",
       "rounds of equal length in the run, each with a new half and a fresh optimizer; as many as "
       "epochs: one each"},
      {"steps", "int", "0", "[0, inf)", "instead, steps of a round; 0: use rounds"},
      {"mask_seed", "int", "auto", "[0, inf)", "seed of the draw; auto: the run's"},
      {"train_embeddings", "bool", "true", "", "embeddings always train, as in the paper"},
      {"train_head", "bool", "true", "",
       "the checkpoint's own head always trains, as in the paper; a new head always does"},
  };
  entry.tiny = "{}";
  entry.examples = {"{}", "{rounds: 3}", "{selection: layer, ratio: 0.25}"};
  entry.make = [](const Options& options) { return std::make_unique<Half>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
