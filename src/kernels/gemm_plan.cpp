#include "kernels/gemm_plan.h"

#include <atomic>
#include <list>
#include <mutex>
#include <unordered_map>

#include "kernels/detail/runtime.h"
#include "kernels/kernels.h"

namespace attune::kernels::detail {
namespace {

using dnnl::memory;
constexpr size_t kMostPlans = 1024;  // packed row counts differ from step to step

struct KeyHash {
  size_t operator()(const GemmKey& key) const {
    uint64_t hash = 0xcbf29ce484222325ull;
    const auto add = [&](uint64_t x) {
      hash = (hash ^ x) * 0x9E3779B97F4A7C15ull, hash ^= hash >> 29;
    };
    add(static_cast<uint64_t>(key.m));
    add(static_cast<uint64_t>(key.k));
    add(static_cast<uint64_t>(key.n));
    add(static_cast<uint64_t>(key.in) | static_cast<uint64_t>(key.out) << 4 |
        uint64_t{key.a_transposed} << 8 | uint64_t{key.b_transposed} << 9 |
        uint64_t{key.bias} << 10 | uint64_t{key.accumulate} << 11 |
        static_cast<uint64_t>(key.threads) << 16);
    add(key.packed);
    return hash;
  }
};

/// Least recently used plans leave first. Plans are shared: one may still run while it leaves the
/// cache.
class PlanCache {
 public:
  std::shared_ptr<const GemmPlan> find(const GemmKey& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) return nullptr;
    order_.splice(order_.begin(), order_, found->second);
    return found->second->second;
  }
  void add(const GemmKey& key, std::shared_ptr<const GemmPlan> plan) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (index_.count(key) != 0) return;
    order_.emplace_front(key, std::move(plan));
    index_[key] = order_.begin();
    if (index_.size() <= kMostPlans) return;
    index_.erase(order_.back().first);
    order_.pop_back();
  }

 private:
  using Entry = std::pair<GemmKey, std::shared_ptr<const GemmPlan>>;
  std::mutex mutex_;
  std::list<Entry> order_;
  std::unordered_map<GemmKey, std::list<Entry>::iterator, KeyHash> index_;
};

PlanCache& cache() {
  // Never destroyed: worker threads may outlive static destruction.
  static PlanCache* value = new PlanCache;
  return *value;
}

/// A [rows, cols] operand as used, transposition told by strides.
memory::desc plain(int64_t rows, int64_t cols, DType type, bool transposed) {
  const memory::dims strides = transposed ? memory::dims{1, rows} : memory::dims{cols, 1};
  return memory::desc({rows, cols}, onednn_type(type), strides);
}

dnnl::primitive_attr attributes(bool accumulate) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops ops;
    ops.append_sum(1.0f);
    attr.set_post_ops(ops);
  }
  return attr;
}

dnnl::matmul::primitive_desc describe(const GemmKey& key, const memory::desc& b) {
  const memory::desc a = plain(key.m, key.k, key.in, key.a_transposed),
                     c = plain(key.m, key.n, key.out, false);
  const dnnl::primitive_attr attr = attributes(key.accumulate);
  if (!key.bias) return {dnnl::matmul::desc(a, b, c), attr, engine()};
  const memory::desc bias({1, key.n}, memory::data_type::f32, memory::dims{key.n, 1});
  return {dnnl::matmul::desc(a, b, bias, c), attr, engine()};
}

/// oneDNN asks for the number of threads while it makes a primitive, and keeps it.
class ThreadsMeanwhile {
 public:
  explicit ThreadsMeanwhile(int count) : before_(threads()) { set_threads(count); }
  ~ThreadsMeanwhile() { set_threads(before_); }
  ThreadsMeanwhile(const ThreadsMeanwhile&) = delete;
  ThreadsMeanwhile& operator=(const ThreadsMeanwhile&) = delete;

 private:
  int before_;
};

}  // namespace

dnnl::engine& engine() {
  static dnnl::engine value(dnnl::engine::kind::cpu, 0);
  return value;
}

memory::data_type onednn_type(DType type) {
  return type == DType::BF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

std::shared_ptr<const GemmPlan> gemm_plan(const GemmKey& key, const memory::desc* packed) {
  if (std::shared_ptr<const GemmPlan> found = cache().find(key)) return found;
  const ThreadsMeanwhile of_the_plan(key.threads);
  const memory::desc b =
      packed != nullptr ? *packed : plain(key.k, key.n, key.in, key.b_transposed);
  const dnnl::matmul::primitive_desc made = describe(key, b);
  static std::atomic<uint64_t> made_so_far{0};
  const std::shared_ptr<GemmPlan> plan = std::make_shared<GemmPlan>();
  plan->id = ++made_so_far;
  plan->primitive = dnnl::matmul(made);
  plan->a = made.src_desc();
  plan->b = made.weights_desc();
  plan->c = made.dst_desc();
  if (key.bias) plan->bias = made.bias_desc();
  plan->scratchpad_bytes = made.scratchpad_desc().get_size();
  plan->implementation = made.impl_info_str();
  cache().add(key, plan);
  return plan;
}

memory::desc preferred_layout(int64_t m, int64_t k, int64_t n, DType type) {
  GemmKey key;
  key.m = m, key.k = k, key.n = n, key.in = key.out = type;
  return describe(key, memory::desc({k, n}, onednn_type(type), memory::format_tag::any))
      .weights_desc();
}

namespace {

using Arguments = std::unordered_map<int, memory>;

Arguments arguments_of(const GemmPlan& plan) {
  const auto empty = [](const memory::desc& desc) { return memory(desc, engine(), nullptr); };
  Arguments arguments{{DNNL_ARG_SRC, empty(plan.a)},
                      {DNNL_ARG_WEIGHTS, empty(plan.b)},
                      {DNNL_ARG_DST, empty(plan.c)}};
  if (!plan.bias.is_zero()) arguments.emplace(DNNL_ARG_BIAS, empty(plan.bias));
  if (plan.scratchpad_bytes > 0)
    arguments.emplace(DNNL_ARG_SCRATCHPAD,
                      empty(memory::desc({static_cast<int64_t>(plan.scratchpad_bytes)},
                                         memory::data_type::u8, memory::format_tag::a)));
  return arguments;
}

}  // namespace

void run_plan(const GemmPlan& plan, const void* a, const void* b, const void* bias, void* c) {
  thread_local dnnl::stream stream(engine());  // a stream must not be shared between threads
  // Made once a thread: oneDNN aligns every such object, which leaves holes in a thread's heap.
  thread_local std::unordered_map<uint64_t, Arguments> known;
  std::unordered_map<uint64_t, Arguments>::iterator found = known.find(plan.id);
  if (found == known.end()) {
    if (known.size() >= kMostPlans) known.clear();
    found = known.emplace(plan.id, arguments_of(plan)).first;
  }
  Arguments& arguments = found->second;
  const auto place = [&](int which, const void* data) {
    arguments.at(which).set_data_handle(const_cast<void*>(data));
  };
  place(DNNL_ARG_SRC, a);
  place(DNNL_ARG_WEIGHTS, b);
  place(DNNL_ARG_DST, c);
  if (bias != nullptr) place(DNNL_ARG_BIAS, bias);
  if (plan.scratchpad_bytes > 0)
    place(DNNL_ARG_SCRATCHPAD, thread_scratch(2, plan.scratchpad_bytes));
  plan.primitive.execute(stream, arguments);
  stream.wait();
  set_last_implementation(plan.implementation.c_str());
}

}  // namespace attune::kernels::detail
