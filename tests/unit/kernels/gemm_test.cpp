#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "kernel_test_util.h"
#include "kernels/detail/runtime.h"
#include "kernels/gemm_blocks.h"
#include "kernels/gemm_turned.h"

namespace attune::kernels {
namespace gemm_test {
using namespace test;

/// Stored bytes of a matrix of some type, and its values in double.
struct Stored {
  std::vector<float> f;
  std::vector<bf16> h;
  std::vector<double> d;
  DType type;
  Stored(uint64_t seed, int64_t count, DType t) : type(t) {
    if (t == DType::F32) f = randoms<float>(seed, count);
    if (t == DType::BF16) h = randoms<bf16>(seed, count);
    if (t == DType::F64) d = randoms<double>(seed, count);
  }
  void* data() {
    return type == DType::F32    ? static_cast<void*>(f.data())
           : type == DType::BF16 ? static_cast<void*>(h.data())
                                 : d.data();
  }
  double at(int64_t i) const {
    return type == DType::F32 ? f[i] : type == DType::BF16 ? value_of(h[i]) : d[i];
  }
};

struct Case {
  int64_t m, k, n;
  DType in, out;
  bool ta, tb, bias, accumulate, packed;
};

std::string text(const Case& c) {
  return fmt::format("m={} k={} n={} in={} out={} ta={} tb={} bias={} acc={} packed={}", c.m, c.k,
                     c.n, int(c.in), int(c.out), c.ta, c.tb, c.bias, c.accumulate, c.packed);
}

void check(const Case& s) {
  SCOPED_TRACE(text(s));
  Stored a(1, s.m * s.k, s.in), b(2, s.k * s.n, s.in), c(3, s.m * s.n, s.out);
  Stored bias(4, s.n, s.in == DType::F64 ? DType::F64 : DType::F32);
  const Stored old = c;
  const Matrix ma{a.data(), s.in, s.ta ? s.k : s.m, s.ta ? s.m : s.k, s.ta};
  const Matrix mb{b.data(), s.in, s.tb ? s.n : s.k, s.tb ? s.k : s.n, s.tb};
  const MutableMatrix mc{c.data(), s.out, s.m, s.n};
  const void* pb = s.bias ? bias.data() : nullptr;
  if (s.packed)
    gemm(ma, PackedMatrix(mb, s.in), mc, pb, s.accumulate);
  else
    gemm(ma, mb, mc, pb, s.accumulate);
  if (s.k > 0) {
    EXPECT_NE(std::string(last_gemm_implementation()).substr(0, 3), "ref");
  }
  double worst = 0;
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = (s.bias ? bias.at(j) : 0) + (s.accumulate ? old.at(i * s.n + j) : 0),
             size = std::abs(sum);
      for (int64_t p = 0; p < s.k; ++p) {
        const double x =
            a.at(s.ta ? p * s.m + i : i * s.k + p) * b.at(s.tb ? j * s.k + p : p * s.n + j);
        sum += x;
        size += std::abs(x);
      }
      const double relative = s.out == DType::F64 ? 1e-14 : s.out == DType::F32 ? 1e-6 : 1.0 / 128;
      const double allowed = s.out == DType::BF16
                                 ? relative * (std::abs(sum) + std::abs(old.at(i * s.n + j)) + 0.1)
                                 : relative * (size + 1);
      worst = std::max(worst, std::abs(c.at(i * s.n + j) - sum) / allowed);
    }
  EXPECT_LT(worst, 1.0) << last_gemm_implementation();
}

TEST(Gemm, MatchesPlainSumsForEveryTypeTransposeAndEpilogue) {
  const std::vector<std::pair<DType, DType>> types{{DType::F32, DType::F32},
                                                   {DType::BF16, DType::BF16},
                                                   {DType::BF16, DType::F32},
                                                   {DType::F64, DType::F64}};
  const int64_t sizes[][3] = {{1, 1, 1},    {1, 7, 5},    {3, 1, 4},    {5, 33, 1},
                              {17, 19, 23}, {64, 48, 96}, {37, 130, 67}};
  for (const auto& [in, out] : types)
    for (const auto& size : sizes)
      for (int bits = 0; bits < 32; ++bits)
        check({size[0], size[1], size[2], in, out, (bits & 1) != 0, (bits & 2) != 0,
               (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0});
}

TEST(Gemm, OfABatchMultipliesEachPair) {
  const int64_t count = 5, m = 7, k = 12, n = 33;
  for (const DType type : {DType::F32, DType::BF16, DType::F64})
    for (int bits = 0; bits < 4; ++bits) {
      const bool ta = (bits & 1) != 0, tb = (bits & 2) != 0;
      SCOPED_TRACE(fmt::format("type={} ta={} tb={}", int(type), ta, tb));
      Stored a(1, count * m * k, type), b(2, count * k * n, type), c(3, count * m * n, type);
      gemm_batch(count, {a.data(), type, ta ? k : m, ta ? m : k, ta},
                 {b.data(), type, tb ? n : k, tb ? k : n, tb}, {c.data(), type, m, n});
      EXPECT_NE(std::string(last_gemm_implementation()).substr(0, 3), "ref");
      const double allowed = type == DType::F64 ? 1e-14 : type == DType::F32 ? 1e-6 : 1.0 / 128;
      for (int64_t x = 0; x < count; ++x)
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n; ++j) {
            double sum = 0, size = 1;
            for (int64_t p = 0; p < k; ++p) {
              const double term = a.at(x * m * k + (ta ? p * m + i : i * k + p)) *
                                  b.at(x * k * n + (tb ? j * k + p : p * n + j));
              sum += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(c.at((x * m + i) * n + j), sum, allowed * size);
          }
    }
}

TEST(Gemm, ThreadsShareTheRowsOfLargeProducts) {
  const int before = threads();
  set_threads(2);
  const int64_t rows = 2 * detail::kRowsToShare + detail::kRowsAPiece + 70;  // a rest, and a tail
  for (const DType type : {DType::F32, DType::BF16})
    for (int bits = 0; bits < 8; ++bits)
      check({rows, 24, 10, type, type, false, (bits & 4) != 0, (bits & 1) != 0, (bits & 2) != 0,
             (bits & 4) == 0});
  set_threads(before);
}

TEST(Gemm, APackedOperandTakesEveryNumberOfRowsInPieces) {
  const int before = threads();
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    const int64_t least = count * detail::kPackedRowsToShare;
    for (const int64_t rows : {least - 1, least, least + 1, least + 7, int64_t{261}, int64_t{837}})
      for (const DType type : {DType::F32, DType::BF16})
        for (const bool accumulate : {false, true})
          check({rows, 24, 10, type, type, false, true, !accumulate, accumulate, true});
  }
  set_threads(before);
}

TEST(RowPieces, CoverAllRowsInFewSizesAndGiveEveryThreadAsMany) {
  const int64_t step = isa() == Isa::AmxBf16 ? 16 : 8;
  for (const int64_t threads : {1, 2, 3, 16})
    for (int64_t rows = threads * detail::kPackedRowsToShare; rows < 3000; rows += 1) {
      SCOPED_TRACE(fmt::format("{} rows, {} threads", rows, threads));
      const std::vector<detail::RowPiece> pieces = detail::row_pieces(rows, threads);
      int64_t next = 0;
      for (const detail::RowPiece& piece : pieces) {
        ASSERT_EQ(piece.begin, next);
        ASSERT_GT(piece.rows, 0);
        ASSERT_LE(piece.rows, detail::kRowsAPiece);
        next += piece.rows;
        if (next < rows) {
          ASSERT_EQ(piece.rows % step, 0);
        }
      }
      ASSERT_EQ(next, rows);
      if (rows % step != 0) {
        ASSERT_LT(pieces.back().rows, detail::kRowBlock + step);
      }
      // What share_out gives to each thread at first.
      const int64_t count = static_cast<int64_t>(pieces.size());
      for (int64_t i = 0; i < threads; ++i) {
        int64_t own = 0;
        for (int64_t p = count * i / threads; p < count * (i + 1) / threads; ++p)
          own += pieces[static_cast<size_t>(p)].rows;
        ASSERT_LE(std::abs(own - rows / threads), 2 * step);
      }
    }
}

TEST(Gemm, AWeightsGradientNeedsItsRightOperandUntilItIsBegun) {
  const int64_t rows = 300, m = 130, n = 70;
  Stored a(1, rows * m, DType::BF16), b(2, rows * n, DType::BF16);
  std::vector<float> want(m * n, 0.5f), got = want;
  const Matrix left{a.data(), DType::BF16, rows, m, true};
  gemm(left, {b.data(), DType::BF16, rows, n, false}, {want.data(), DType::F32, m, n}, nullptr,
       true);
  const std::unique_ptr<TurnedProduct> begun =
      TurnedProduct::begin(left, {b.data(), DType::BF16, rows, n, false}, true);
  EXPECT_TRUE(begun != nullptr || isa() != Isa::Avx512Bf16);
  if (begun == nullptr) return;
  std::fill(b.h.begin(), b.h.end(), bf16{0x7fc0});
  begun->into({got.data(), DType::F32, m, n});
  EXPECT_EQ(got, want);
  EXPECT_EQ(TurnedProduct::begin({a.data(), DType::BF16, 127, m, true},
                                 {b.data(), DType::BF16, 127, n, false}, false),
            nullptr)
      << "few rows";
}

TEST(Gemm, GradientsOfWeightsOverManyRows) {
  const int before = threads();
  // Below and from the number of rows on where the left operand is turned; whole blocks and rests.
  const int64_t sizes[][3] = {{64, 127, 64}, {64, 128, 64},  {100, 129, 70},
                              {70, 200, 63}, {700, 191, 65}, {530, 1056, 130}};
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    for (const auto& size : sizes)
      for (const bool accumulate : {false, true})
        check({size[0], size[1], size[2], DType::BF16, DType::F32, true, false, false, accumulate,
               false});
  }
  set_threads(before);
}

TEST(ShareOut, RunsEveryPieceOnce) {
  const int before = threads();
  for (const int count : {1, 2, 3, 70}) {
    set_threads(count);
    for (const int64_t pieces : {0, 1, 2, 7, 64, 1000})
      for (const int64_t grain : {1, 3, 64}) {
        std::vector<std::atomic<int>> runs(static_cast<size_t>(pieces));
        detail::share_out(pieces, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++runs[static_cast<size_t>(i)];
        });
        for (const std::atomic<int>& n : runs) ASSERT_EQ(n, 1) << count << " " << pieces;
      }
  }
  set_threads(before);
}

TEST(ShareOut, OthersTakeWhatASlowThreadLeaves) {
  const int before = threads();
  set_threads(2);
  std::atomic<std::thread::id> slow;
  std::atomic<int64_t> its_pieces{0}, all{0};
  detail::share_out(64, 1, [&](int64_t begin, int64_t end) {
    all += end - begin;
    if (begin == 0) {
      slow = std::this_thread::get_id();
      // The other finishes meanwhile; a minute is for one that never does.
      for (int i = 0; i < 60000 && all < 64; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      its_pieces = end - begin;
    } else if (slow.load() == std::this_thread::get_id()) {
      its_pieces += end - begin;
    }
  });
  EXPECT_EQ(all, 64);
  EXPECT_LE(its_pieces, 16);  // half of its own part at most
  set_threads(before);
}

TEST(Gemm, EmptyInnerDimensionGivesBiasOrOldValues) {
  for (const bool accumulate : {false, true})
    for (const bool bias : {false, true}) {
      check({3, 0, 5, DType::F32, DType::F32, false, false, bias, accumulate, false});
      check({3, 0, 5, DType::BF16, DType::BF16, false, false, bias, accumulate, true});
      check({3, 0, 5, DType::F64, DType::F64, false, false, bias, accumulate, true});
    }
  check({0, 4, 5, DType::F32, DType::F32, false, false, true, false, true});
}

TEST(Gemm, OnePackedWeightServesEveryRowCountWithoutTheReferenceCode) {
  for (const DType type : {DType::F32, DType::BF16})
    for (const int64_t n : {2, 30, 384, 1536}) {
      const int64_t k = 384;
      Stored b(5, k * n, type);
      const PackedMatrix packed({b.data(), type, n, k, true}, type);
      EXPECT_GE(packed.bytes(), k * n * (type == DType::F32 ? 4 : 2));
      for (const int64_t m : {1, 2, 3, 15, 16, 17, 64, 100, 333, 2048}) {
        Stored a(6, m * k, type);
        std::vector<float> c(static_cast<size_t>(m * n)), plain(c.size());
        gemm({a.data(), type, m, k, false}, packed, {c.data(), DType::F32, m, n}, nullptr, false);
        const std::string name = last_gemm_implementation();
        EXPECT_NE(name.substr(0, 3), "ref") << name << " m=" << m << " n=" << n;
        gemm({a.data(), type, m, k, false}, {b.data(), type, n, k, true},
             {plain.data(), DType::F32, m, n}, nullptr, false);
        for (size_t i = 0; i < c.size(); i += 7) ASSERT_NEAR(c[i], plain[i], 2e-4);
      }
    }
}

TEST(Gemm, WeightGradientsOfTrainingShapesAvoidTheReferenceCode) {
  for (const DType type : {DType::F32, DType::BF16})
    for (const int64_t rows : {1, 37, 2048}) {
      Stored dy(7, rows * 384, type), x(8, rows * 384, type);
      std::vector<float> dw(384 * 384);
      gemm({dy.data(), type, rows, 384, true}, {x.data(), type, rows, 384, false},
           {dw.data(), DType::F32, 384, 384}, nullptr, true);
      EXPECT_NE(std::string(last_gemm_implementation()).substr(0, 3), "ref") << rows;
    }
}

TEST(Gemm, PackingRoundsFloatWeightsToBf16) {
  const std::vector<float> b{1.00390625f, 3.0f};  // 1 + 2^-8: halfway, rounds to even 1
  const PackedMatrix packed({b.data(), DType::F32, 1, 2, false}, DType::BF16);
  const std::vector<bf16> a{to_type<bf16>(1)};
  std::vector<float> c(2);
  gemm({a.data(), DType::BF16, 1, 1, false}, packed, {c.data(), DType::F32, 1, 2}, nullptr, false);
  EXPECT_EQ(c[0], 1.0f);
  EXPECT_EQ(c[1], 3.0f);
}

TEST(Gemm, EitherOrientationPacksEqualValues) {
  const std::pair<int64_t, int64_t> shapes[] = {{64, 64}, {32, 64}, {384, 192}, {100, 70},
                                                {33, 5},  {1, 65},  {65, 33},   {97, 129}};
  for (const std::pair<int64_t, int64_t>& shape : shapes) {
    const int64_t k = shape.first, n = shape.second;
    const std::vector<float> w = randoms<float>(1, k * n);
    const std::vector<bf16> x = randoms<bf16>(2, 19 * n);
    const PackedMatrix forward({w.data(), DType::F32, n, k, true}, DType::BF16),  // w is [n, k]
        expected({w.data(), DType::F32, n, k, false}, DType::BF16);               // as used [n, k]
    std::vector<bf16> narrow(w.size());
    convert(w.data(), narrow.data(), k * n);
    const PackedMatrix from_narrow({narrow.data(), DType::BF16, n, k, false}, DType::BF16);
    PackedMatrix turned = PackedMatrix::unfilled(n, k, DType::BF16);
    const auto product = [&](const PackedMatrix& right) {
      std::vector<float> c(19 * k);
      gemm({x.data(), DType::BF16, 19, n, false}, right, {c.data(), DType::F32, 19, k}, nullptr,
           false);
      return c;
    };
    const std::vector<float> want = product(expected);
    for (int64_t r = 0; r < 19; ++r)
      for (int64_t c = 0; c < k; ++c) {
        double sum = 0;
        for (int64_t p = 0; p < n; ++p) sum += value_of(x[r * n + p]) * value_of(narrow[p * k + c]);
        ASSERT_NEAR(want[r * k + c], sum, 1e-4) << k << " x " << n;
      }
    EXPECT_EQ(product(from_narrow), want) << k << " x " << n;
    const bool quick = turned.fill_transposed(forward);
    EXPECT_EQ(quick, isa() >= Isa::Avx512Bf16) << k << " x " << n;
    EXPECT_TRUE(!quick || product(turned) == want) << k << " x " << n;
  }
}

TEST(Gemm, MismatchedShapesNameBothShapes) {
  std::vector<float> x(100);
  try {
    gemm({x.data(), DType::F32, 2, 3, false}, {x.data(), DType::F32, 4, 5, false},
         {x.data(), DType::F32, 2, 5}, nullptr, false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Internal);
    EXPECT_NE(std::string(error.what()).find("[2, 3] f32 times [4, 5] f32 into [2, 5] f32"),
              std::string::npos)
        << error.what();
  }
}

TEST(Gemm, PackingMixedDoubleAndFloatIsRefused) {
  const std::vector<double> x(4);
  try {
    const PackedMatrix packed({x.data(), DType::F64, 2, 2, false}, DType::F32);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("packing a [2, 2] f64 matrix for f32"),
              std::string::npos);
  }
}

TEST(Gemm, MeasuringGivesAPositiveRate) {
  EXPECT_GT(measure_gemm(64, 64, 64, DType::F32, 0.01), 0);
}

}  // namespace gemm_test
}  // namespace attune::kernels
