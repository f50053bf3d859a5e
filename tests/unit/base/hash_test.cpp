#include "base/hash.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/random.h"
#include "support/temp_folder.h"

namespace attune {
namespace hash_test {

// FIPS 180-4 example values.
TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesGiveTheSameDigestAsTheWhole) {
  const std::string text(1000, 'q');
  for (const size_t piece : {1u, 3u, 63u, 64u, 65u, 200u}) {
    Sha256 hash;
    for (size_t at = 0; at < text.size(); at += piece)
      hash.add(std::string_view(text).substr(at, piece));
    EXPECT_EQ(hash.hex(), sha256_hex(text)) << piece;
  }
}

TEST(Sha256, OfAFileIsThatOfItsContent) {
  const TempFolder folder;
  std::ofstream(folder.file("x")) << "abc";
  std::ofstream(folder.file("empty"));
  EXPECT_EQ(sha256_file(folder.file("x")), sha256_hex("abc"));
  EXPECT_EQ(sha256_file(folder.file("empty")), sha256_hex(""));
}

// RFC 3720, appendix B.4, and the masked form of TFRecord.
TEST(Crc32c, GivesThePublishedValues) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(masked_crc32c("123456789"), 0xc78ab0e5u);
}

// Known answers of the Random123 distribution, philox4x32-10.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox({ones, ones, ones, ones}, {ones, ones}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Stream64, DependsOnKeyAndIndexOnly) {
  const Stream64 a(7, "dropout"), b(7, "dropout"), c(7, "shuffle"), d(8, "dropout");
  EXPECT_EQ(a.bits(12), b.bits(12));
  EXPECT_NE(a.bits(12), c.bits(12));
  EXPECT_NE(a.bits(12), d.bits(12));
  EXPECT_NE(a.bits(12), a.bits(13));
  EXPECT_NE(a.with(1).key(), a.with(2).key());
  EXPECT_EQ(a.with("x").key(), b.with("x").key());
}

TEST(Stream64, UniformAndNormalHaveTheirMoments) {
  const Stream64 stream(1, "moments");
  constexpr int kCount = 200000;
  double sum = 0, square = 0, normal = 0, normal_square = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = stream.uniform(static_cast<uint64_t>(i)),
                 z = stream.normal(static_cast<uint64_t>(i));
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    square += u * u;
    normal += z;
    normal_square += z * z;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 0.003);
  EXPECT_NEAR(square / kCount, 1.0 / 3, 0.003);
  EXPECT_NEAR(normal / kCount, 0, 0.01);
  EXPECT_NEAR(normal_square / kCount, 1, 0.015);
}

TEST(Stream64, PermutationsHoldEveryIndexOnce) {
  std::vector<int64_t> order = Stream64(3, "order").permutation(1000);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  EXPECT_TRUE(Stream64(3, "order").permutation(0).empty());
  for (uint64_t i = 0; i < 1000; ++i) EXPECT_LT(Stream64(3, "below").below(i, 7), 7u);
}

}  // namespace hash_test
}  // namespace attune
