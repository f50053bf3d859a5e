#include "decode/beam_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/torch.h"

namespace attune {

namespace {

using Ids = std::vector<int32_t>;

struct Hypothesis {
  Ids ids;
  double score = 0;  // sum of log-probabilities; of finished ones divided by the length penalty
};

/// One way on from a running hypothesis.
struct Continuation {
  size_t beam = 0;
  int32_t token = 0;
  double score = 0;
};

/// The beams of one prompt.
class Beams {
 public:
  Beams(const GenerateOptions& options) : options_(options), running_(1) {}

  /// log_probabilities: of the running hypotheses one after another [running, words]. Returns the
  /// hypothesis that each new running one continues; empty when the search has ended.
  std::vector<size_t> advance(const double* log_probabilities, int64_t words, int64_t length) {
    const std::vector<Continuation> best = best_continuations(log_probabilities, words);
    const size_t beams = static_cast<size_t>(options_.beams);
    std::vector<Hypothesis> next;
    std::vector<size_t> from;
    bool all_end = true;
    for (size_t i = 0; i < best.size(); ++i) {
      Hypothesis hypothesis{running_[best[i].beam].ids, best[i].score};
      hypothesis.ids.push_back(best[i].token);
      const bool ends = length == options_.max_new_tokens || is_end(best[i].token);
      all_end = all_end && ends;
      if (ends) {
        // Those behind the first `beams` are there only so that enough run on.
        if (i < beams) finish(std::move(hypothesis), length);
      } else if (next.size() < beams) {
        next.push_back(std::move(hypothesis));
        from.push_back(best[i].beam);
      }
    }
    running_ = std::move(next);
    if (all_end || !can_improve(length)) running_.clear();
    return running_.empty() ? std::vector<size_t>() : from;
  }
  const std::vector<Hypothesis>& running() const { return running_; }
  Ids result() const { return finished_.front().ids; }

 private:
  bool is_end(int32_t token) const {
    return std::count(options_.eos.begin(), options_.eos.end(), token) > 0;
  }
  double penalised(double score, int64_t length) const {
    return score / std::pow(static_cast<double>(length), options_.length_penalty);
  }

  std::vector<Continuation> best_continuations(const double* log_probabilities,
                                               int64_t words) const {
    const int64_t count = static_cast<int64_t>(running_.size()) * words;
    const auto score = [&](int64_t i) {
      return running_[static_cast<size_t>(i / words)].score + log_probabilities[i];
    };
    const int64_t ends = static_cast<int64_t>(options_.eos.size());
    const int64_t kept = std::min(count, std::max<int64_t>(2, 1 + ends) * options_.beams);
    std::vector<int64_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int64_t a, int64_t b) {
      return score(a) != score(b) ? score(a) > score(b) : a < b;
    });
    std::vector<Continuation> result;
    for (int64_t i = 0; i < kept; ++i) {
      const int64_t place = order[static_cast<size_t>(i)];
      result.push_back(
          {static_cast<size_t>(place / words), static_cast<int32_t>(place % words), score(place)});
    }
    return result;
  }

  /// Among the finished, best first; only `beams` are kept.
  void finish(Hypothesis hypothesis, int64_t length) {
    hypothesis.score = penalised(hypothesis.score, length);
    std::vector<Hypothesis>::iterator place = finished_.begin();
    while (place != finished_.end() && place->score >= hypothesis.score) ++place;
    finished_.insert(place, std::move(hypothesis));
    if (finished_.size() > static_cast<size_t>(options_.beams)) finished_.pop_back();
  }

  bool can_improve(int64_t length) const {
    if (running_.empty()) return false;
    if (finished_.size() < static_cast<size_t>(options_.beams)) return true;
    return penalised(running_.front().score, length) > finished_.back().score;
  }

  const GenerateOptions& options_;
  std::vector<Hypothesis> running_, finished_;
};

}  // namespace

std::vector<Ids> beam_search(Decoding& decoding, size_t prompts, const GenerateOptions& options) {
  std::vector<Beams> beams(prompts, Beams(options));
  for (int64_t length = 1; decoding.size() > 0; ++length) {
    const Tensor scores = decoding.next_logits().to(at::kDouble).log_softmax(-1).contiguous();
    const double* values = static_cast<const double*>(scores.data_ptr());
    const int64_t words = scores.size(1);
    std::vector<int64_t> from;
    Ids tokens;
    // The sequences of a prompt stand one after another.
    for (size_t begin = 0; begin < decoding.size();) {
      Beams& own = beams[static_cast<size_t>(decoding.prompt_of(begin))];
      const size_t count = own.running().size();
      const std::vector<size_t> continued =
          own.advance(values + static_cast<int64_t>(begin) * words, words, length);
      for (size_t i = 0; i < continued.size(); ++i) {
        from.push_back(static_cast<int64_t>(begin + continued[i]));
        tokens.push_back(own.running()[i].ids.back());
      }
      begin += count;
    }
    decoding.go_on(from, tokens);
  }
  std::vector<Ids> results;
  for (const Beams& own : beams) results.push_back(own.result());
  return results;
}

}  // namespace attune
