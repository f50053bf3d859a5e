// LoFiT: offsets on the outputs of a few chosen attention heads.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "methods/adapters.h"
#include "methods/registry.h"
#include "tensor/autograd.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// One head: which of the method's sites, and which head there.
using HeadAt = std::pair<int64_t, int64_t>;

/// How the heads are chosen when the recipe does not name them: one factor 1 + a on every feature
/// of every head learns with an L1 penalty while all else stands still; the heads whose factors
/// moved furthest are taken.
/// Reference: Yin, Ye and Durrett 2024, "LoFiT: Localized Fine-tuning on LLM Representations",
/// arXiv 2406.01563, section 3.1.
class Selection {
 public:
  Selection(double rate, double l1) : rate_(rate), l1_(l1) {}
  void begin(const std::vector<Tensor>& factors) {
    for (const Tensor& factor : factors) {
      factors_.push_back(as_leaf(factor));
      moments_.emplace_back(at::zeros_like(factor), at::zeros_like(factor));
    }
  }
  const std::vector<Tensor>& factors() const { return factors_; }

  /// One step of AdamW without decay on the mean loss of `count` examples plus l1 * sum |a|;
  /// progress in [0, 1] lowers the rate linearly to zero.
  void step(double count, double progress) {
    at::NoGradGuard no_grad;
    ++steps_;
    const double c1 = 1 - std::pow(0.9, static_cast<double>(steps_)),
                 c2 = 1 - std::pow(0.999, static_cast<double>(steps_));
    for (size_t i = 0; i < factors_.size(); ++i) {
      Tensor& factor = factors_[i];
      if (!factor.grad().defined()) continue;
      const Tensor gradient = factor.grad() / std::max(count, 1.0) + factor.sign() * l1_;
      Tensor &m = moments_[i].first, &v = moments_[i].second;
      m.mul_(0.9).add_(gradient, 0.1);
      v.mul_(0.999).addcmul_(gradient, gradient, 0.001);
      factor.sub_((m / c1) / ((v / c2).sqrt() + 1e-8) * (rate_ * (1 - progress)));
      factor.mutable_grad() = Tensor();
    }
  }

  /// The `count` heads with the largest norms of their factors; equal ones by site, then head.
  std::vector<HeadAt> best(int64_t count, double noise) const {
    std::vector<std::pair<double, HeadAt>> scores;
    for (size_t i = 0; i < factors_.size(); ++i) {
      const Tensor norms = factors_[i].detach().to(at::kDouble).square().sum(1).sqrt();
      for (int64_t head = 0; head < norms.numel(); ++head)
        scores.push_back({-norms[head].item<double>(), {static_cast<int64_t>(i), head}});
    }
    std::sort(scores.begin(), scores.end());
    if (-scores.front().first < noise)
      log_warning(
          "head_offset: no head's factors grew beyond their initial values (largest norm "
          "{:.2g}); lower l1 or raise select_batches",
          -scores.front().first);
    std::vector<HeadAt> heads;
    for (int64_t i = 0; i < count; ++i) heads.push_back(scores[static_cast<size_t>(i)].second);
    std::sort(heads.begin(), heads.end());
    return heads;
  }

 private:
  double rate_, l1_;
  int64_t steps_ = 0;
  std::vector<Tensor> factors_;
  std::vector<std::pair<Tensor, Tensor>> moments_;
};

class HeadOffset final : public Tuner {
 public:
  explicit HeadOffset(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        heads_(options.get<Node>("heads")),
        where_(options.where("heads")),
        count_(wanted(options)),
        component_(options.get<std::string>("component")),
        deviation_(options.get<double>("init_std")),
        batches_(options.get<int64_t>("select_batches")),
        rate_(options.get<double>("select_lr")),
        l1_(options.get<double>("l1")) {
    if (count_ > 0 && heads_.is_scalar() && heads_.text() == "all")
      fail(
          ErrorCode::BadInput,
          "{}: heads: all takes every head, so a count of {} has no meaning; leave one of them out",
          options.where("count"), count_);
    if (heads_.is_list() && count_ > static_cast<int64_t>(heads_.items().size()))
      fail(ErrorCode::BadInput,
           "{}: count {} is more than the {} heads of the list; name more heads, or give a smaller "
           "count",
           options.where("count"), count_, heads_.items().size());
  }

  /// K where the recipe says it; 0: to be computed from the number of heads.
  static int64_t wanted(const Options& options) {
    return options.node("count").text() == "auto" ? 0 : options.get<int64_t>("count");
  }
  /// K for a model with this many heads. Reference: section 4.1, about 3 % of the heads.
  static int64_t chosen(const Node& heads, int64_t count, int64_t all) {
    if (heads.is_list()) return count > 0 ? count : static_cast<int64_t>(heads.items().size());
    if (heads.is_scalar() && heads.text() == "all") return all;
    return count > 0 ? count : std::max<int64_t>(1, std::llround(0.03 * static_cast<double>(all)));
  }

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites =
        sites_of_kinds(attachment, sites_, "", {SiteKind::Heads}, "head_offset");
    int64_t all = 0;
    for (const Site& site : sites) {
      check_width(sites.front(), site);
      places_.push_back({site, nullptr, nullptr});
      all += site.heads;
    }
    const int64_t count = chosen(heads_, count_, all);
    if (count > all)
      fail(ErrorCode::BadInput,
           "head_offset: {} heads are asked for, but {} select {} heads in all; give at most {}",
           count, join(sites_, ", "), all, all);
    const std::vector<HeadAt> heads = first_heads(attachment, count, all);
    width_ = sites.front().out / sites.front().heads;
    add_tensors(attachment, heads);
    add_edits(attachment, heads);
    prepare({});
  }

  /// z <- (1 + a) z + v at the chosen heads (section 3); in the scaling phase z <- (1 + a) z at
  /// all.
  void prepare(const Pass&) override {
    std::vector<std::vector<int64_t>> heads(places_.size()), rows(places_.size());
    const int64_t* chosen = static_cast<const int64_t*>(chosen_.data_ptr());
    for (int64_t i = 0; i < chosen_.size(0); ++i) {
      heads[static_cast<size_t>(chosen[2 * i])].push_back(chosen[2 * i + 1]);
      rows[static_cast<size_t>(chosen[2 * i])].push_back(i);
    }
    for (size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[i];
      if (selecting_) {
        set(place.first, Scale{Tensor(), selection_->factors()[i] + 1.0});
        set(place.second, Observe{[](const View&) {}, {}});
        continue;
      }
      const auto spread = [&](const Tensor& values) {
        return at::zeros({place.site.heads, width_}, values.options())
            .index_copy(0, int64_tensor(heads[i]), values.index_select(0, int64_tensor(rows[i])));
      };
      const bool idle = heads[i].empty();
      Edit* last = place.second != nullptr ? place.second : place.first;
      if (idle) set(place.first, Observe{[](const View&) {}, {}});
      if (idle) set(place.second, Observe{[](const View&) {}, {}});
      if (!idle && scale_.defined()) set(place.first, Scale{Tensor(), spread(scale_) + 1.0});
      if (!idle && offset_.defined()) set(last, Shift{spread(offset_)});
    }
  }

  void calibrate(const Calibration& calibration) override {
    if (!heads_.is_scalar() || heads_.text() != "auto") return;
    selection_.emplace(rate_, l1_);
    std::vector<Tensor> factors;
    for (const Place& place : places_) {
      Tensor drawn = at::empty({place.site.heads, width_}, at::kDouble);
      const Stream64 stream = Stream64(select_key_).with(place.site.name);
      double* out = static_cast<double*>(drawn.data_ptr());
      for (int64_t i = 0; i < drawn.numel(); ++i)
        out[i] = stream.normal(static_cast<uint64_t>(i)) * kNoise;
      factors.push_back(drawn.to(any().scalar_type()));
    }
    selection_->begin(factors);
    selecting_ = true;
    int64_t done = 0;
    while (done < batches_) {
      const int64_t before = done;
      calibration.gradients(batches_ - done, [&](double count) {
        selection_->step(count, static_cast<double>(done) / static_cast<double>(batches_));
        ++done;
      });
      if (done == before) break;
    }
    selecting_ = false;
    const double noise = 2 * kNoise * std::sqrt(static_cast<double>(width_));
    keep(selection_->best(chosen_.size(0), noise));
    selection_.reset();
    prepare({});
  }

 private:
  static constexpr double kNoise = 1e-3;
  struct Place {
    Site site;
    Edit *first, *second;  // the second only where there are factors and offsets
  };

  static void set(Edit* edit, Edit value) {
    if (edit != nullptr) *edit = std::move(value);
  }
  const Tensor& any() const { return offset_.defined() ? offset_ : scale_; }

  static void check_width(const Site& first, const Site& site) {
    if (site.out / site.heads != first.out / first.heads)
      fail(ErrorCode::BadInput,
           "head_offset: the heads of {} have {} features, those of {} have {}; choose sites with "
           "heads of one size",
           first.name, first.out / first.heads, site.name, site.out / site.heads);
  }

  /// The heads the recipe names, all of them, or a random choice (which the scaling phase replaces
  /// where heads is auto).
  std::vector<HeadAt> first_heads(Attachment& attachment, int64_t count, int64_t all) {
    select_key_ = attachment.stream("select");
    if (heads_.is_list()) return listed();
    const std::string text = heads_.is_scalar() ? heads_.text() : "";
    if (text != "auto" && text != "random" && text != "all")
      fail(ErrorCode::BadInput,
           "{}: expected auto, random, all or a list of [layer, head], found {}", where_,
           heads_.shown());
    std::vector<HeadAt> every;
    for (size_t i = 0; i < places_.size(); ++i)
      for (int64_t head = 0; head < places_[i].site.heads; ++head)
        every.emplace_back(static_cast<int64_t>(i), head);
    const std::vector<int64_t> order = Stream64(attachment.stream("random")).permutation(all);
    std::vector<HeadAt> heads;
    for (int64_t i = 0; i < count; ++i)
      heads.push_back(every[static_cast<size_t>(order[static_cast<size_t>(i)])]);
    std::sort(heads.begin(), heads.end());
    return heads;
  }

  std::vector<HeadAt> listed() const {
    std::set<HeadAt> heads;
    for (const Node& item : heads_.items()) {
      if (count_ > 0 && static_cast<int64_t>(heads.size()) == count_) break;
      if (!item.is_list() || item.items().size() != 2)
        fail(ErrorCode::BadInput, "{}: expected pairs [layer, head], found {}", where_,
             item.shown());
      const int64_t layer = item.items()[0].as_int(where_), head = item.items()[1].as_int(where_);
      if (!heads.insert({place_of(layer, head), head}).second)
        fail(ErrorCode::BadInput, "{}: head [{}, {}] is named twice", where_, layer, head);
    }
    if (heads.empty())
      fail(ErrorCode::BadInput, "{}: the list is empty; name at least one [layer, head]", where_);
    return {heads.begin(), heads.end()};
  }

  int64_t place_of(int64_t layer, int64_t head) const {
    int64_t found = -1;
    for (size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].site.layer != layer) continue;
      if (found >= 0)
        fail(ErrorCode::BadInput,
             "{}: layer {} is that of {} and of {}; narrow sites to one of them", where_, layer,
             places_[static_cast<size_t>(found)].site.name, places_[i].site.name);
      found = static_cast<int64_t>(i);
    }
    if (found < 0)
      fail(ErrorCode::BadInput, "{}: [{}, {}]: {} select no attention of layer {}", where_, layer,
           head, join(sites_, ", "), layer);
    const int64_t heads = places_[static_cast<size_t>(found)].site.heads;
    if (head < 0 || head >= heads)
      fail(ErrorCode::BadInput, "{}: [{}, {}]: layer {} has heads 0 to {}", where_, layer, head,
           layer, heads - 1);
    return found;
  }

  void add_tensors(Attachment& attachment, const std::vector<HeadAt>& heads) {
    const Site shared = Site::shared();
    const int64_t count = static_cast<int64_t>(heads.size());
    const auto made = [&](const char* name) {
      return plain_parameter(attachment, shared, name,
                             attachment.normal(shared, name, {count, width_}, deviation_));
    };
    if (component_ != "offset") scale_ = made("scale");
    if (component_ != "scale") offset_ = made("offset");
    chosen_ = attachment.buffer(shared, "heads", table_of(heads));
  }

  void add_edits(Attachment& attachment, const std::vector<HeadAt>& heads) {
    for (size_t i = 0; i < places_.size(); ++i) {
      Place& place = places_[i];
      // Where heads are chosen, and chosen anew, every site must be ready for some.
      const bool used =
          !heads_.is_list() || std::any_of(heads.begin(), heads.end(), [&](const HeadAt& head) {
            return head.first == static_cast<int64_t>(i);
          });
      if (!used) continue;
      const Tensor ones = attachment.ones({place.site.heads, width_});
      place.first = &attachment.add(place.site, Scale{Tensor(), ones});
      if (component_ == "both") place.second = &attachment.add(place.site, Scale{Tensor(), ones});
    }
  }

  static Tensor table_of(const std::vector<HeadAt>& heads) {
    std::vector<int64_t> flat;
    for (const HeadAt& head : heads) {
      flat.push_back(head.first);
      flat.push_back(head.second);
    }
    return int64_tensor(flat).reshape({-1, 2});
  }

  void keep(const std::vector<HeadAt>& heads) {
    at::NoGradGuard no_grad;
    chosen_.copy_(table_of(heads));
  }

  std::vector<std::string> sites_;
  Node heads_;
  std::string where_;
  int64_t count_;
  std::string component_;
  double deviation_;
  int64_t batches_;
  double rate_, l1_;
  int64_t width_ = 0;
  uint64_t select_key_ = 0;
  std::vector<Place> places_;
  Tensor scale_, offset_;  // [K, d_h]
  Tensor chosen_;          // int64 [K, 2]: site, head
  bool selecting_ = false;
  std::optional<Selection> selection_;
};

std::vector<Option> options_of_head_offset() {
  return {
      {"sites", "globs", "\"*.self.heads\"", "",
       "attentions whose heads may be chosen (globs over site names)"},
      {"heads", "any", "auto", "",
       "auto: those whose factors grow furthest in a scaling phase before training; random; all; "
       "or a list of [layer, head]"},
      {"count", "int", "auto", "[1, inf)",
       "how many heads auto and random choose, or how many of a list are taken, from its "
       "beginning; "
       "auto: 3 %, or the whole list"},
      {"component", "choice", "offset", "offset|scale|both",
       "what is trained at a chosen head: an offset, a factor on each feature, or both"},
      {"init_std", "number", "1e-3", "[0, inf)", "standard deviation of the initial values"},
      {"select_batches", "int", "200", "[1, inf)",
       "heads: auto: steps of the scaling phase, one a training batch"},
      {"select_lr", "number", "5e-3", "(0, inf)", "heads: auto: peak learning rate of that phase"},
      {"l1", "number", "5e-4", "[0, inf)", "heads: auto: weight of the factors' sum of magnitudes"},
  };
}

}  // namespace

void register_head_offset(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "head_offset";
  entry.summary =
      "offset vectors on the outputs of a few attention heads, chosen by a short scaling phase";
  entry.reference =
      "Yin, Ye and Durrett 2024, \"LoFiT: Localized Fine-tuning on LLM Representations\", arXiv "
      "2406.01563";
  entry.options = options_of_head_offset();
  entry.learning_rate = 1e-2;
  entry.rate_by_width = false;
  entry.identity_at_start = false;  // near it: N(0, init_std^2)
  entry.tiny = "{heads: random, count: 3, component: both}";
  entry.examples = {"{}", "{count: 32, l1: 1e-3}", "{heads: [[0, 1], [1, 3]]}",
                    "{heads: all, component: scale}"};
  entry.make = [](const Options& options) { return std::make_unique<HeadOffset>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t all = 0, width = 0;
    for (const Site& site : sites) {
      all += site.heads;
      width = site.out / site.heads;
    }
    const int64_t parts = options.get<std::string>("component") == "both" ? 2 : 1;
    return parts * width *
           HeadOffset::chosen(options.get<Node>("heads"), HeadOffset::wanted(options), all);
  };
  registry.add(std::move(entry));
}

}  // namespace attune
