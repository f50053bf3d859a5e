#include "io/safetensors_header.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "base/text.h"
#include "unit/io/python_bytes.h"
#include "unit/io/safetensors_bytes.h"

namespace attune {
namespace safetensors_header_test {

std::string refusal(std::string_view file) {
  try {
    parse_safetensors_header(file, "f");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Corrupt) << error.what();
    return error.what();
  }
  return "accepted";
}

std::string refusal(std::string_view header, size_t data_bytes) {
  return refusal(safetensors_bytes(header, std::string(data_bytes, '\0')));
}

/// Two F32 values between two given pieces of an entry.
std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return format(R"({{"a":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
}

TEST(SafetensorsHeader, PaddingOrderAndMissingMetadataAreLegal) {
  const SafetensorsHeader header = parse_safetensors_header(
      safetensors_bytes(R"({"b":{"shape":[],"data_offsets":[8,10],"dtype":"F16"},)"
                        R"("e":{"dtype":"I64","shape":[3,0],"data_offsets":[8,8]},)"
                        R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   )",
                        std::string(10, '\0')),
      "f");
  ASSERT_EQ(header.tensors.size(), 3U);
  EXPECT_EQ(header.tensors[0].name, "b");
  EXPECT_TRUE(header.tensors[0].shape.empty());
  EXPECT_EQ(header.tensors[1].shape, (std::vector<int64_t>{3, 0}));
  EXPECT_EQ(header.tensors[2].end, 8U);
  EXPECT_TRUE(header.metadata.empty());
}

TEST(SafetensorsHeader, NoTensorsAtAllIsLegal) {
  EXPECT_TRUE(parse_safetensors_header(safetensors_bytes("{}", ""), "f").tensors.empty());
}

TEST(SafetensorsHeader, ShortAndForeignFilesAreRefused) {
  EXPECT_EQ(refusal(""), "f: 0 bytes are too few for a safetensors file; fetch it again");
  EXPECT_EQ(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
            "f: this is a Git LFS pointer, not the tensors; run `git lfs pull` in its repository");
  EXPECT_EQ(refusal(safetensors_bytes("[]", "")),
            "f: the header does not begin with {; this is not a safetensors file");
  EXPECT_EQ(refusal(safetensors_bytes("", "{}")),
            "f: the header does not begin with {; this is not a safetensors file");
  EXPECT_EQ(refusal(safetensors_bytes(" {}", "")),
            "f: the header does not begin with {; this is not a safetensors file");
}

TEST(SafetensorsHeader, OversizedHeadersAreRefusedBeforeAnyReading) {
  EXPECT_EQ(refusal(from_hex("01e1f50500000000") + "{}"),
            "f: a header of 100000001 bytes is claimed, 100000000 is the limit; this is not a "
            "safetensors file, or it is "
            "damaged");
  EXPECT_EQ(refusal(from_hex("ffffffffffffffff") + "{}"),
            "f: a header of 18446744073709551615 bytes is claimed, 100000000 is the limit; this is "
            "not a safetensors "
            "file, or it is damaged");
  EXPECT_EQ(refusal(from_hex("0300000000000000") + "{}"),
            "f: the header takes 3 bytes, but only 2 follow; the file is cut off, fetch it again");
}

TEST(SafetensorsHeader, OnlySpacesMayFollowTheObject) {
  const std::string text = "f: the header is not one JSON object with spaces after it";
  EXPECT_EQ(refusal("{}\n", 0), text);
  EXPECT_EQ(refusal(std::string_view("{}\0 ", 4), 0), text);
  EXPECT_EQ(refusal(std::string_view("{}\0}", 4), 0), text);
  EXPECT_TRUE(starts_with(refusal("{}}", 0), "f: byte 3 of the header is not valid JSON: "))
      << refusal("{}}", 0);
  EXPECT_TRUE(
      starts_with(refusal("{\"\xff\":1}", 0), "f: byte 3 of the header is not valid JSON: "));
}

TEST(SafetensorsHeader, RepeatedKeysAreRefused) {
  const std::string one = R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]})";
  EXPECT_EQ(refusal("{" + one + "," + one + "}", 4), R"(f: header: key "a" is given twice)");
  EXPECT_EQ(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0),
            R"(f: header: key "__metadata__" is given twice)");
  EXPECT_EQ(refusal(R"({"__metadata__":{"x":"1","x":"1"}})", 0),
            R"(f: header, __metadata__: key "x" is given twice)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4),
            R"(f: tensor a: key "dtype" is given twice)");
}

TEST(SafetensorsHeader, ValuesOfTheWrongKindAreRefused) {
  EXPECT_EQ(refusal(R"({"__metadata__":{"x":1}})", 0),
            "f: header, __metadata__.x: expected a string, found 1");
  EXPECT_EQ(refusal(R"({"__metadata__":{"x":{}}})", 0),
            "f: header, __metadata__.x: expected a string, found an object");
  EXPECT_EQ(refusal(R"({"__metadata__":null})", 0),
            "f: header, __metadata__: expected an object, found null");
  EXPECT_EQ(refusal(R"({"a":[1]})", 0), "f: header, a: expected an object, found an array");
  EXPECT_EQ(refusal(R"({"a":{"dtype":true}})", 0),
            "f: header, tensor a, dtype: expected a string, found a boolean");
  EXPECT_EQ(refusal(R"({"a":{"shape":"x"}})", 0),
            "f: header, tensor a, shape: expected an array, found \"x\"");
  EXPECT_EQ(refusal(R"({"a":{"shape":[-1]}})", 0),
            "f: header, tensor a, shape: expected a whole number from 0, found a negative number");
  EXPECT_EQ(refusal(R"({"a":{"shape":[1.5]}})", 0),
            "f: header, tensor a, shape: expected a whole number from 0, found 1.5");
  EXPECT_EQ(refusal(R"({"a":{"shape":[[1]]}})", 0),
            "f: header, tensor a, shape: expected a whole number from 0, found an array");
}

TEST(SafetensorsHeader, EntriesMustBeComplete) {
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[]}})", 0),
            "f: tensor a: data_offsets is missing");
  EXPECT_EQ(refusal(R"({"a":{}})", 0), "f: tensor a: dtype is missing");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4),
            "f: tensor a: shape is missing");
  EXPECT_EQ(refusal(R"({"a":{"stride":[1]}})", 0),
            R"(f: tensor a: unknown key "stride"; expected dtype, shape and data_offsets)");
  EXPECT_EQ(refusal(entry("F33", "[1]", "[0,4]"), 4),
            R"(f: tensor a: unknown dtype "F33"; the file is damaged or newer than this reader)");
}

TEST(SafetensorsHeader, OffsetsMustFitDtypeShapeAndFile) {
  EXPECT_EQ(refusal(entry("F32", "[2]", "[0,8,9]"), 8),
            "f: tensor a: data_offsets [0, 8, 9] are not a begin and an end");
  EXPECT_EQ(refusal(entry("F32", "[2]", "[8,0]"), 8),
            "f: tensor a: data_offsets [8, 0] are not a begin and an end");
  EXPECT_EQ(refusal(entry("F32", "[2]", "[0,8]"), 7),
            "f: tensor a ends at byte 8 of the data, which has 7 bytes; the file is cut off or "
            "damaged, fetch it again");
  EXPECT_EQ(refusal(entry("F64", "[2]", "[0,8]"), 8),
            "f: tensor a: shape [2] of F64 takes 16 bytes, its data_offsets [0, 8] hold 8");
  EXPECT_EQ(refusal(entry("F4", "[3]", "[0,1]"), 1),
            "f: tensor a: shape [3] of F4 does not end on a whole byte");
  EXPECT_EQ(refusal(entry("F4", "[4]", "[0,2]"), 2), "accepted");
}

TEST(SafetensorsHeader, ProductsThatOverflowAreRefused) {
  EXPECT_EQ(refusal(entry("F32", "[4294967296,4294967296]", "[0,0]"), 0),
            "f: tensor a: shape [4294967296, 4294967296] of F32 overflows a 64-bit size");
  EXPECT_EQ(refusal(entry("U8", "[2305843009213693952]", "[0,0]"), 0),
            "f: tensor a: shape [2305843009213693952] of U8 overflows a 64-bit size");
  EXPECT_EQ(refusal(entry("F32", "[4294967296,4294967296,0]", "[0,0]"), 0),
            "f: tensor a: shape [4294967296, 4294967296, 0] of F32 overflows a 64-bit size");
  EXPECT_EQ(refusal(entry("U8", "[18446744073709551615]", "[0,0]"), 0),
            "f: tensor a: dimension 18446744073709551615 does not fit a 64-bit size");
  EXPECT_EQ(
      refusal(entry("U8", "[18446744073709551616]", "[0,0]"), 0),
      "f: header, tensor a, shape: expected a whole number from 0, found 18446744073709551616");
}

std::string two(std::string_view first, std::string_view second) {
  return format(
      R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
      first, second);
}

TEST(SafetensorsHeader, DataMustBeCoveredExactlyOnce) {
  EXPECT_EQ(refusal(two("[4,8]", "[0,4]"), 8), "accepted");
  EXPECT_EQ(refusal(two("[0,4]", "[3,7]"), 7), "f: tensors a and b overlap in data bytes 3 to 4");
  EXPECT_EQ(refusal(two("[0,4]", "[0,4]"), 4), "f: tensors a and b overlap in data bytes 0 to 4");
  EXPECT_EQ(refusal(two("[0,4]", "[5,9]"), 9),
            "f: data bytes 4 to 5, before tensor b, belong to no tensor");
  EXPECT_EQ(refusal(two("[5,9]", "[1,5]"), 9),
            "f: data bytes 0 to 1, before tensor b, belong to no tensor");
  EXPECT_EQ(refusal(two("[0,4]", "[4,8]"), 9),
            "f: the tensors end at data byte 8, but the file goes on to 9");
}

TEST(SafetensorsHeader, AFileCutAtAnyByteIsRefused) {
  for (const std::string_view digits : {kEveryDtype, kUnsigned}) {
    const std::string file = from_hex(digits);
    ASSERT_EQ(refusal(file), "accepted");
    for (size_t size = 0; size < file.size(); ++size)
      ASSERT_NE(refusal(std::string_view(file).substr(0, size)), "accepted") << size;
    EXPECT_NE(refusal(file + "x"), "accepted");
  }
}

/// Whatever is accepted must lie inside the file.
void check_safe(const std::string& file) {
  try {
    const SafetensorsHeader header = parse_safetensors_header(file, "f");
    uint64_t covered = 0;
    for (const TensorInfo& tensor : header.tensors) {
      ASSERT_LE(tensor.begin, tensor.end);
      ASSERT_LE(tensor.end, file.size() - header.data_begin);
      covered += tensor.end - tensor.begin;
    }
    ASSERT_EQ(covered, file.size() - header.data_begin);
  } catch (const Error& error) {
    ASSERT_EQ(error.code(), ErrorCode::Corrupt);
  }
}

TEST(SafetensorsHeader, TwentyThousandDamagedFilesNeverCrash) {
  const std::string whole = from_hex(kEveryDtype);
  const std::string pieces = "{}[]\":,0123456789 -eE.\\u";
  std::mt19937 random(20240607);
  for (int round = 0; round < 20000; ++round) {
    std::string file = whole;
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int change = 0; change < changes; ++change) {
      const size_t at = random() % file.size();
      switch (random() % 5) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = pieces[random() % pieces.size()];
          break;
        case 2:
          file.erase(at, 1 + random() % 8);
          break;
        case 3:
          file.insert(at, file.substr(random() % file.size(), random() % 24));
          break;
        default:
          file[random() % 8] = static_cast<char>(random());
          break;
      }
      if (file.empty()) file = "x";
    }
    check_safe(file);
    if (HasFatalFailure()) FAIL() << "round " << round;
  }
}

}  // namespace safetensors_header_test
}  // namespace attune
