#include "kernels/detail/decode.h"

namespace attune::kernels::detail {

namespace {
void put(float value, float* to) {
  *to = value;
}
void put(float value, double* to) {
  *to = static_cast<double>(value);
}
void put(float value, bf16* to) {
  convert(&value, to, 1);
}
}  // namespace

template <class T>
void decode_runs_ref(const float* levels, const uint8_t* codes, const float* scales, int64_t runs,
                     T* out) {
  for (int64_t r = 0; r < runs; ++r)
    for (int64_t j = 0; j < 32; ++j) {
      const uint8_t both = codes[r * 32 + j];
      put(levels[both & 15] * scales[r], out + r * 64 + j);
      put(levels[both >> 4] * scales[r], out + r * 64 + 32 + j);
    }
}

template void decode_runs_ref(const float*, const uint8_t*, const float*, int64_t, float*);
template void decode_runs_ref(const float*, const uint8_t*, const float*, int64_t, double*);
template void decode_runs_ref(const float*, const uint8_t*, const float*, int64_t, bf16*);

}  // namespace attune::kernels::detail
