#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/ops/low_rank.h"
#include "kernels/quantized.h"

namespace attune {

/// Bytes that count in a sum of the process for as long as this lives.
class CountedBytes {
 public:
  CountedBytes() = default;
  explicit CountedBytes(int64_t bytes) : bytes_(bytes) { all_ += bytes; }
  CountedBytes(CountedBytes&& other) noexcept : bytes_(std::exchange(other.bytes_, 0)) {}
  CountedBytes& operator=(CountedBytes&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~CountedBytes() { all_ -= bytes_; }
  static int64_t all() { return all_; }

 private:
  static inline std::atomic<int64_t> all_ = 0;
  int64_t bytes_ = 0;
};

/// Compute copies of one weight [out, in]: packed for the forward product, remade when the weight
/// changes; the backward product's copy too once a product has few rows or where the model is
/// small, as long as there is room, else it is turned out of that for each product where the
/// instruction set can (a tenth of a LoRA step of 128 rows through BERT-base, a hundredth at
/// 2,048). Only bf16 keeps copies; float and
/// double multiply the weight in place. A weight that trains keeps none either: each would serve
/// one product of a micro-batch.
class WeightCopies {
 public:
  /// Fewer rows than this are few: what they activate is small, and turning costs them most.
  static constexpr int64_t kFewRows = 1024;
  /// Bytes that all backward copies of the process may take.
  static constexpr int64_t kRoom = int64_t{256} << 20;
  /// A model whose copies take no more is small.
  static constexpr int64_t kSmallModel = int64_t{32} << 20;

  WeightCopies() = default;
  /// W^T as right operand [in, out].
  const kernels::PackedMatrix& forward(const at::Tensor& weight);
  /// W as right operand [out, in] of a product of so many rows; holds until the next product by a
  /// weight of that shape.
  const kernels::PackedMatrix& backward(const at::Tensor& weight, int64_t rows);
  /// Frees the copies; they are made again when they are asked for.
  void drop() { *this = WeightCopies(mapped_, small_); }
  /// The weight stands in a mapped file: once it is copied its pages may go (base/file.h).
  void weight_is_mapped(bool mapped) { mapped_ = mapped; }
  bool weight_is_mapped() const { return mapped_; }
  void model_is_small() { small_ = true; }

 private:
  WeightCopies(bool mapped, bool small) : mapped_(mapped), small_(small) {}
  struct Copy {
    const void* data = nullptr;
    int64_t version = -1;
    std::optional<kernels::PackedMatrix> packed;
  };
  const kernels::PackedMatrix& refresh(Copy& copy, const at::Tensor& weight, bool transposed);
  Copy forward_, backward_;
  CountedBytes kept_;  // of backward_
  bool mapped_ = false, small_ = false;
};

/// What a projection multiplies by, [out, in]: a tensor in the master type, with or without packed
/// copies, a frozen one in half precision with them, or frozen codes (then `dense` is undefined).
struct WeightSource {
  at::Tensor dense;
  WeightCopies* copies = nullptr;  // may be null
  std::shared_ptr<const kernels::QuantizedMatrix> codes = nullptr;
  int64_t out() const { return codes != nullptr ? codes->rows() : dense.size(0); }
  int64_t in() const { return codes != nullptr ? codes->cols() : dense.size(1); }
};
/// The values of codes as a tensor of that type.
at::Tensor decoded(const kernels::QuantizedMatrix& codes, at::ScalarType type);

/// One projection of several at one input.
struct Projection {
  WeightSource weight;
  at::Tensor bias;  // [out] or undefined
};

/// y_i = x W_i^T + b_i plus the low-rank terms, by projection, as one node. x [rows, in] in the
/// compute type; W [out, in], b [out] and the terms (sorted by LowRankTerm::output) in the master
/// type (float, or double with double). Gradients come in the master type, and only for what wants
/// one; codes are decoded for each product, to the compute type. `row_keys` int64 [rows] for
/// dropout on the terms' input; undefined: no dropout. Cost: 2 rows in out multiply-adds a
/// projection forward, plus 2 rows rank (in + out) a term. Reference: Hu et al. 2021, "LoRA:
/// Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, equation 3.
std::vector<at::Tensor> linear(const at::Tensor& x, const std::vector<Projection>& projections,
                               const std::vector<LowRankTerm>& terms, const at::Tensor& row_keys);
/// One projection.
at::Tensor linear(const at::Tensor& x, const WeightSource& weight, const at::Tensor& bias,
                  const std::vector<LowRankTerm>& terms, const at::Tensor& row_keys);

/// c = a W^T + bias, or with `transposed` false c = a W (+ c when `accumulate`), through the packed
/// copies where there are some. No gradients. a [n, in] or [n, out] in the compute type, c in that
/// or the master type.
void multiply_weight(const at::Tensor& a, const WeightSource& weight, bool transposed,
                     const at::Tensor& c, const at::Tensor& bias, bool accumulate = false);

}  // namespace attune
