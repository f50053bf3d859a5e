#include <cstring>

#include "kernels/detail/decode.h"

namespace attune::kernels::detail {

namespace {
void put(float value, float* to) {
  *to = value;
}
void put(float value, double* to) {
  *to = static_cast<double>(value);
}
/// Rounds a finite value to nearest even.
void put(float value, bf16* to) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  to->bits = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
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

template <class T>
void decode_bytes_ref(const int8_t* codes, float scale, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) put(static_cast<float>(codes[i]) * scale, out + i);
}

template void decode_bytes_ref(const int8_t*, float, int64_t, float*);
template void decode_bytes_ref(const int8_t*, float, int64_t, double*);
template void decode_bytes_ref(const int8_t*, float, int64_t, bf16*);
template void decode_runs_ref(const float*, const uint8_t*, const float*, int64_t, float*);
template void decode_runs_ref(const float*, const uint8_t*, const float*, int64_t, double*);
template void decode_runs_ref(const float*, const uint8_t*, const float*, int64_t, bf16*);

}  // namespace attune::kernels::detail
