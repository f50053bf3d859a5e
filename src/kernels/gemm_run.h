#pragma once
#include <functional>
#include <vector>

#include "kernels/gemm_plan.h"

/// How products run: what gemm.cpp, packed_matrix.cpp and gemm_turned.cpp share.
namespace attune::kernels::detail {

const char* type_name(DType type);
int64_t size_of(DType type);
/// Throws Internal when shapes or types do not fit.
void check_product(int64_t m, int64_t k, DType a, int64_t k_b, int64_t n, DType b,
                   const MutableMatrix& c);
/// False where bf16 operands must go through f32 (no AVX-512).
bool bf16_products();
/// The values as f32.
std::vector<float> widened(const void* data, DType type, int64_t count);
/// A value that is equal for equal layouts, so that operands of one shape share primitives.
uint64_t layout_hash(const dnnl::memory::desc& layout);
/// True for the layout of detail/pack.h, which oneDNN likes for bf16.
bool pairs_in_blocks(const dnnl::memory::desc& layout);
[[noreturn]] void product_failed(const GemmKey& key, const dnnl::error& error);
/// run(0), run(1), ... by detail::share_out; what one of them throws comes out at the end.
void share_pieces(int64_t pieces, const std::function<void(int64_t piece)>& run);
GemmKey key_of(const Matrix& a, int64_t n, const MutableMatrix& c, const void* bias,
               bool accumulate);
/// The product of a key; `packed` as for gemm_plan. Throws Internal when oneDNN fails.
void run_key(const GemmKey& key, const dnnl::memory::desc* packed, const void* a, const void* b,
             const void* bias, void* c);
/// The product of a packed operand's key with at least kPackedRowsToShare rows for each thread.
void run_packed_rows(GemmKey key, const dnnl::memory::desc& packed, const void* a, const void* b,
                     const void* bias, void* c);

}  // namespace attune::kernels::detail
