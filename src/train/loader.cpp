#include "train/loader.h"

#include <pthread.h>
#include <signal.h>

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

Loader::~Loader() {
  stop();
}

void Loader::start() {
  // Signals are for the thread that trains.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  worker_ = std::thread([this] { work(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Loader::stop() {
  if (!worker_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  worker_.join();
  stopping_ = false;
  ready_.clear();
}

void Loader::work() {
  while (true) {
    Ahead ahead = make();
    const bool failed = ahead.error != nullptr;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return stopping_ || ready_.size() < kAhead; });
    if (stopping_) return;
    ready_.push_back(std::move(ahead));
    changed_.notify_all();
    if (failed) return;
  }
}

void Loader::seek(Sampler::Position position, int64_t cut_rows) {
  stop();
  window_.clear();
  sampler_.seek(position);
  std::fill(seen_.begin(), seen_.end(), false);
  sampler_.visit_given([this](int64_t example) { seen_[static_cast<size_t>(example)] = true; });
  position_ = position;
  cut_rows_ = cut_ahead_ = cut_rows;
}

Loader::Ahead Loader::make() {
  Ahead ahead;
  try {
    Item& item = ahead.item;
    for (const int64_t example : sampler_.next()) {
      const std::unordered_map<int64_t, Example>::iterator found = window_.find(example);
      if (found != window_.end()) {
        item.examples.push_back(std::move(found->second));
        window_.erase(found);
      } else {
        item.examples.push_back(encode(example));
      }
      const size_t row = static_cast<size_t>(example);
      if (item.examples.back().dropped > 0 && !seen_[row]) ++cut_ahead_;
      seen_[row] = true;
      item.tokens += item.examples.back().rows();
    }
    item.batch = task_.collate(item.examples);
  } catch (...) {
    ahead.error = std::current_exception();
  }
  ahead.position = sampler_.position();
  ahead.cut_rows = cut_ahead_;
  return ahead;
}

Loader::Item Loader::next() {
  if (!worker_.joinable()) start();
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty(); });
  if (ready_.front().error) std::rethrow_exception(ready_.front().error);
  Ahead ahead = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  position_ = ahead.position;
  cut_rows_ = ahead.cut_rows;
  return std::move(ahead.item);
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
