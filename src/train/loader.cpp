#include "train/loader.h"

#include <algorithm>
#include <numeric>

namespace attune {

DataView DataView::all(Dataset data) {
  DataView view{std::move(data), {}};
  view.rows.resize(static_cast<size_t>(view.data.size()));
  std::iota(view.rows.begin(), view.rows.end(), int64_t{0});
  return view;
}

DataView DataView::of(const Task& task, Dataset data) {
  std::shared_ptr<const Windows> windows = task.windows(data);
  if (!windows) return all(std::move(data));
  DataView view{std::move(data), {}, std::move(windows)};
  view.rows.resize(static_cast<size_t>(view.windows->size()));
  std::iota(view.rows.begin(), view.rows.end(), int64_t{0});
  return view;
}

Example DataView::encode(const Task& task, int64_t i, bool with_labels) const {
  return windows ? windows->example(rows[static_cast<size_t>(i)]) : task.encode(at(i), with_labels);
}

Loader::Loader(const Task& task, DataView view, uint64_t seed, SamplerOptions options)
    : task_(task),
      view_(std::move(view)),
      seen_(view_.rows.size(), false),
      sampler_(
          view_.size(), seed,
          [this](int64_t example) {
            Example encoded = encode(example);
            const int64_t length = encoded.rows();
            window_[example] = std::move(encoded);
            return length;
          },
          options) {}

Example Loader::encode(int64_t example) const {
  Example encoded = view_.encode(task_, example, true);
  encoded.id = view_.rows[static_cast<size_t>(example)];
  return encoded;
}

void Loader::seek(Sampler::Position position, int64_t cut_rows) {
  window_.clear();
  sampler_.seek(position);
  std::fill(seen_.begin(), seen_.end(), false);
  sampler_.visit_given([this](int64_t example) { seen_[static_cast<size_t>(example)] = true; });
  cut_rows_ = cut_rows;
}

Loader::Item Loader::next() {
  Item item;
  for (const int64_t example : sampler_.next()) {
    const std::unordered_map<int64_t, Example>::iterator found = window_.find(example);
    if (found != window_.end()) {
      item.examples.push_back(std::move(found->second));
      window_.erase(found);
    } else {
      item.examples.push_back(encode(example));
    }
    const size_t row = static_cast<size_t>(example);
    if (item.examples.back().dropped > 0 && !seen_[row]) ++cut_rows_;
    seen_[row] = true;
    item.tokens += item.examples.back().rows();
  }
  item.batch = task_.collate(item.examples);
  return item;
}

void for_each_batch(const Task& task, int64_t count,
                    const std::function<Example(int64_t)>& example_at, int64_t batch_tokens,
                    const InferenceBody& body) {
  const int64_t held = task.reads_text() ? 1024 : kLargeExamples;
  for (int64_t begin = 0; begin < count; begin += held) {
    const int64_t end = std::min(count, begin + held);
    std::vector<Example> chunk;
    for (int64_t i = begin; i < end; ++i) {
      chunk.push_back(example_at(i));
      chunk.back().id = i;
    }
    std::vector<int64_t> order(chunk.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return chunk[static_cast<size_t>(a)].rows() > chunk[static_cast<size_t>(b)].rows();
    });
    for (size_t at = 0; at < order.size();) {
      std::vector<Example> examples;
      std::vector<int64_t> positions;
      int64_t tokens = 0;
      while (at < order.size()) {
        Example& example = chunk[static_cast<size_t>(order[at])];
        const int64_t length = example.rows();
        if (!examples.empty() && tokens + length > batch_tokens) break;
        tokens += length;
        positions.push_back(begin + order[at]);
        examples.push_back(std::move(example));
        ++at;
      }
      body(task.collate(examples), examples, positions);
    }
  }
}

}  // namespace attune
