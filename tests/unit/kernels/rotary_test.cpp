#include <gtest/gtest.h>

#include "kernel_test_util.h"

namespace attune::kernels {
namespace rotary_test {
using namespace test;

template <class T>
class Rotary : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(Rotary, Types);

/// Index of the two elements of pair j in a head.
std::pair<int64_t, int64_t> pair_of(int64_t j, int64_t dims, bool interleaved) {
  if (interleaved) return {2 * j, 2 * j + 1};
  return {j, j + dims / 2};
}

TYPED_TEST(Rotary, EveryPairTurnsByItsRowsAngleAndTheRestStays) {
  using T = TypeParam;
  using A = acc_t<T>;
  const int64_t rows = 37, heads = 3;
  for (const int64_t size : {2, 6, 16, 34, 80})
    for (const int64_t dims : {size, size / 4 * 2})
      for (int bits = 0; bits < 4; ++bits) {
        const bool interleaved = (bits & 1) != 0, back = (bits & 2) != 0;
        const std::vector<T> x = randoms<T>(1, rows * heads * size);
        std::vector<A> cosines, sines;
        for (const A angle : randoms<A>(2, rows * dims / 2, 3)) {
          cosines.push_back(std::cos(angle));
          sines.push_back(std::sin(angle));
        }
        std::vector<double> expected = doubles(x);
        for (int64_t r = 0; r < rows * heads; ++r)
          for (int64_t j = 0; j < dims / 2; ++j) {
            const std::pair<int64_t, int64_t> at = pair_of(j, dims, interleaved);
            const double a = value_of(x[r * size + at.first]),
                         b = value_of(x[r * size + at.second]);
            const double c = cosines[r / heads * dims / 2 + j],
                         s = (back ? -1 : 1) * double(sines[r / heads * dims / 2 + j]);
            expected[r * size + at.first] = a * c - b * s;
            expected[r * size + at.second] = b * c + a * s;
          }
        const Rotation<T> rotation{cosines.data(), sines.data(), heads, size, dims, interleaved};
        for_each_isa([&](const char* set) {
          std::vector<T> y(x.size()), in_place = x;
          rotate<T>(rotation, x.data(), y.data(), rows, back);
          rotate<T>(rotation, in_place.data(), in_place.data(), rows, back);
          for (size_t i = 0; i < y.size(); ++i) {
            ASSERT_NEAR(value_of(y[i]), expected[i], tolerance<T>(expected[i], 3e-7))
                << set << " size " << size << " dims " << dims << " at " << i;
            ASSERT_EQ(value_of(y[i]), value_of(in_place[i]));
          }
        });
      }
}

}  // namespace rotary_test
}  // namespace attune::kernels
