#include "tensor/choose.h"

#include <cmath>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/random.h"
#include "kernels/kernels.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

using at::Tensor;

/// An unsigned number that orders as the score does.
uint64_t ordered(double score) {
  uint64_t bits = 0;
  std::memcpy(&bits, &score, sizeof bits);
  return (bits >> 63) != 0 ? ~bits : bits | (uint64_t{1} << 63);
}

/// Calls see(tensor, element, key) for every element in order.
using See = std::function<void(size_t tensor, int64_t element, uint64_t key)>;
using EachKey = std::function<void(const See& see)>;

/// The key of the `count`-th largest, and how many with exactly this key are among the `count`.
struct Threshold {
  uint64_t key = 0;
  int64_t ties = 0;
};

/// Radix selection, sixteen bits at a time from the highest.
Threshold threshold_of(const EachKey& each, int64_t count) {
  Threshold result{0, count};
  uint64_t known = 0;  // mask of the bits that are settled
  for (int shift = 48; shift >= 0; shift -= 16) {
    std::vector<int64_t> histogram(65536, 0);
    each([&](size_t, int64_t, uint64_t key) {
      if ((key & known) == result.key) ++histogram[(key >> shift) & 0xffff];
    });
    uint64_t digit = 65535;
    while (result.ties > histogram[digit]) result.ties -= histogram[digit--];
    result.key |= digit << shift;
    known |= uint64_t{0xffff} << shift;
  }
  return result;
}

std::vector<Tensor> chosen(const std::vector<Tensor>& like, int64_t count, const EachKey& each) {
  std::vector<Tensor> masks;
  int64_t total = 0;
  for (const Tensor& tensor : like) {
    masks.push_back(at::zeros(tensor.sizes(), at::kByte));
    total += tensor.numel();
  }
  if (count < 0 || count > total)
    fail(ErrorCode::Internal, "choosing {} of {} elements", count, total);
  if (count == 0) return masks;
  const Threshold threshold = threshold_of(each, count);
  int64_t ties = threshold.ties;
  each([&](size_t tensor, int64_t element, uint64_t key) {
    if (key < threshold.key || (key == threshold.key && ties-- <= 0)) return;
    pointer<uint8_t>(masks[tensor])[element] = 1;
  });
  return masks;
}

template <class T>
void drop(const Tensor& x, Tensor& y, const kernels::Dropout& dropout) {
  const int64_t rows = x.dim() > 1 ? x.size(0) : 1;
  kernels::dropout<T>(pointer<const T>(x), pointer<T>(y), rows, x.numel() / rows, dropout);
}

}  // namespace

std::vector<Tensor> largest_elements(const std::vector<Tensor>& scores, int64_t count) {
  std::vector<Tensor> dense;
  for (const Tensor& score : scores)
    dense.push_back(score.detach()
                        .to(score.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)
                        .contiguous());
  const auto visit = [](size_t tensor, const auto* values, int64_t elements, const See& see) {
    for (int64_t i = 0; i < elements; ++i) {
      if (std::isnan(values[i]))
        fail(ErrorCode::Internal, "choosing the largest elements: a score is not a number");
      see(tensor, i, ordered(static_cast<double>(values[i])));
    }
  };
  return chosen(dense, count, [&](const See& see) {
    for (size_t t = 0; t < dense.size(); ++t) {
      if (dense[t].scalar_type() == at::kDouble) {
        visit(t, pointer<const double>(dense[t]), dense[t].numel(), see);
      } else {
        visit(t, pointer<const float>(dense[t]), dense[t].numel(), see);
      }
    }
  });
}

std::vector<Tensor> random_elements(const std::vector<Tensor>& like, int64_t count, uint64_t key) {
  const Stream64 stream(key);
  return chosen(like, count, [&](const See& see) {
    uint64_t place = 0;
    for (size_t t = 0; t < like.size(); ++t)
      for (int64_t i = 0; i < like[t].numel(); ++i) see(t, i, stream.bits(place++));
  });
}

Tensor keep_at_random(const Tensor& x, double keep, uint64_t key) {
  ATTUNE_ASSERT(keep > 0 && keep <= 1);
  const Tensor dense = dense_as(x.detach(), x.scalar_type());
  if (keep == 1 || x.numel() == 0) return dense.clone();
  std::vector<uint64_t> keys(static_cast<size_t>(x.dim() > 1 ? x.size(0) : 1));
  for (size_t row = 0; row < keys.size(); ++row) keys[row] = mix(key, row);
  const kernels::Dropout dropout{static_cast<float>(1 - keep), keys.data(), 0};
  Tensor y = at::empty_like(dense);
  if (x.scalar_type() == at::kDouble) {
    drop<double>(dense, y, dropout);
  } else {
    drop<float>(dense, y, dropout);
  }
  return y;
}

}  // namespace attune
