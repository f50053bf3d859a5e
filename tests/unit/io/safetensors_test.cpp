#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "base/file.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"
#include "unit/io/python_bytes.h"
#include "unit/io/safetensors_bytes.h"

namespace attune {
namespace safetensors_test {

/// The tensors that python_bytes.py writes.
NamedTensors every_dtype() {
  return {{"scalar", at::scalar_tensor(1.5, at::kFloat)},
          {"empty", at::zeros({0, 3})},
          {"f32", at::tensor({1.0f, -2.0f, 0.5f, 3.0f}).view({2, 2})},
          {"f64", at::tensor({1e-300, 2.0}, at::kDouble)},
          {"f16", at::tensor({1.0f, 65504.0f}).to(at::kHalf)},
          {"bf16", at::tensor({1.0f, -3.0f, 0.5f}).to(at::kBFloat16)},
          {"i8", at::tensor({-1, 2}).to(at::kChar)},
          {"u8", at::tensor({255, 0}).to(at::kByte)},
          {"i16", at::tensor({-300}).to(at::kShort)},
          {"i32", at::tensor({70000}).to(at::kInt)},
          {"i64", at::full({1}, -(int64_t{1} << 40), at::kLong)},
          {"bool", at::tensor({1, 0, 1}).to(at::kBool)},
          {"c64", at::full({1}, c10::complex<float>(1, 2), at::kComplexFloat)}};
}

void expect_same(const at::Tensor& a, const at::Tensor& b, const std::string& name) {
  EXPECT_EQ(a.scalar_type(), b.scalar_type()) << name;
  EXPECT_EQ(a.sizes().vec(), b.sizes().vec()) << name;
  EXPECT_TRUE(at::equal(a, b)) << name;
}

std::string file_error(ErrorCode code, const std::string& content, const std::string& tensor = "") {
  const TempFolder folder;
  const std::string path = folder.write("f.safetensors", content);
  return error_text(folder, code, [&] { SafetensorsFile(path).tensor(tensor); });
}

std::string save_error(const NamedTensors& tensors) {
  const TempFolder folder;
  const std::string text =
      error_text(folder, ErrorCode::Internal, [&] { save_safetensors(folder.file("f"), tensors); });
  EXPECT_FALSE(file_exists(folder.file("f")));
  return text;
}

TEST(SafetensorsFile, ReadsWhatPythonWrote) {
  const TempFolder folder;
  const SafetensorsFile file(folder.write("f.safetensors", from_hex(kEveryDtype)));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(file.tensors().size(), every_dtype().size());
  for (const auto& [name, value] : every_dtype()) {
    EXPECT_TRUE(file.has(name));
    expect_same(file.tensor(name), value, name);
  }
}

TEST(SafetensorsFile, UnsignedIntegersAreWidened) {
  const TempFolder folder;
  const SafetensorsFile file(folder.write("f.safetensors", from_hex(kUnsigned)));
  EXPECT_EQ(file.tensor("u16").item<int64_t>(), 65535);
  EXPECT_EQ(file.tensor("u32").item<int64_t>(), 4294967295);
  EXPECT_EQ(file.tensor("u64").item<int64_t>(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(file.tensor("u16").scalar_type(), at::kLong);
}

TEST(SafetensorsFile, EightBitFloatsAreDecoded) {
  const TempFolder folder;
  const SafetensorsFile file(folder.write(
      "f", safetensors_bytes(R"({"a":{"dtype":"F8_E4M3","shape":[2,1],"data_offsets":[0,2]}})",
                             "\x38\xb8")));
  expect_same(file.tensor("a"), at::tensor({1.0f, -1.0f}).view({2, 1}), "a");
}

TEST(SafetensorsFile, UnalignedTensorsAreCopied) {
  const std::string data("\x01\x00\x00\x80\x3f", 5);
  for (const std::string padding : {"", " ", "  ", "   "}) {
    const TempFolder folder;
    const SafetensorsFile file(folder.write(
        "f", safetensors_bytes(R"({"b":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]},)"
                               R"("a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})" +
                                   padding,
                               data)));
    const at::Tensor a = file.tensor("a");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data_ptr()) % 4, 0U);
    EXPECT_EQ(a.item<float>(), 1.0f);
    EXPECT_TRUE(file.tensor("b").item<bool>());
  }
}

TEST(SafetensorsFile, TensorsOutliveTheFileObjectAndNeverWriteToIt) {
  const TempFolder folder;
  const std::string path = folder.write("f.safetensors", from_hex(kEveryDtype));
  at::Tensor tensor = SafetensorsFile(path).tensor("f32");
  tensor.fill_(7);
  EXPECT_EQ(tensor.sum().item<float>(), 28.0f);
  EXPECT_EQ(read_file(path), from_hex(kEveryDtype));
}

TEST(SafetensorsFile, TensorsAreViewsOfOneMapping) {
  const TempFolder folder;
  const SafetensorsFile file(folder.write("f.safetensors", from_hex(kEveryDtype)));
  EXPECT_EQ(file.tensor("f32").data_ptr(), file.tensor("f32").data_ptr());
}

TEST(SafetensorsFile, RefusalsNameTheTensor) {
  EXPECT_EQ(file_error(ErrorCode::NotFound, from_hex(kEveryDtype), "f31").substr(0, 53),
            "f.safetensors: there is no tensor \"f31\"; did you mean");
  EXPECT_EQ(
      file_error(ErrorCode::Corrupt,
                 safetensors_bytes(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})",
                                   "\x01\x02"),
                 "a"),
      "f.safetensors: tensor a: a BOOL byte is 2; only 0 and 1 are allowed");
  EXPECT_EQ(
      file_error(ErrorCode::Unsupported,
                 safetensors_bytes(R"({"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}})",
                                   from_hex("0000000000000080")),
                 "a"),
      "f.safetensors: tensor a: element 0 is 9223372036854775808; unsigned values from 2^63 cannot "
      "be held");
  EXPECT_EQ(
      file_error(ErrorCode::Unsupported,
                 safetensors_bytes(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "x"),
                 "a"),
      "f.safetensors: tensor a: dtype F4 is not supported; convert the file to F16, BF16 or F32");
  EXPECT_EQ(file_error(ErrorCode::Corrupt, "{}"),
            "f.safetensors: 2 bytes are too few for a safetensors file; fetch it again");
  const TempFolder folder;
  EXPECT_EQ(error_text(folder, ErrorCode::NotFound, [&] { SafetensorsFile(folder.file("none")); }),
            "reading none: there is no such file");
}

TEST(SafetensorsFile, EveryTensorOfADamagedFileIsReadableOrRefused) {
  const std::string whole = from_hex(kEveryDtype);
  const TempFolder folder;
  std::mt19937 random(7);
  for (int round = 0; round < 1000; ++round) {
    std::string content = whole;
    content[8 + random() % (content.size() - 8)] = static_cast<char>(random());
    const std::string path = folder.write("f", content);
    try {
      const SafetensorsFile file(path);
      for (const TensorInfo& info : file.tensors())
        EXPECT_EQ(file.tensor(info.name).sizes().vec(), info.shape);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::Corrupt || error.code() == ErrorCode::Unsupported)
          << error.what();
    }
    std::filesystem::remove(path);
  }
}

TEST(SaveSafetensors, EqualsPythonByteForByte) {
  const TempFolder folder;
  save_safetensors(folder.file("f"), every_dtype());
  EXPECT_EQ(read_file(folder.file("f")), from_hex(kEveryDtype));
}

TEST(SaveSafetensors, SmallestFileIsAsSpecified) {
  const TempFolder folder;
  save_safetensors(folder.file("f"), {{"a", at::tensor({1.0f, -2.0f})}});
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  ASSERT_EQ(header.size(), 85U);
  EXPECT_EQ(read_file(folder.file("f")),
            from_hex("5800000000000000") + header + "   " + from_hex("0000803f000000c0"));
}

TEST(SaveSafetensors, AnyLayoutIsWrittenPackedAndReadBack) {
  const TempFolder folder;
  const at::Tensor base = at::arange(12, at::kFloat).view({3, 4});
  save_safetensors(folder.file("f"), {{"t", base.t()}, {"s", at::ones({5}).expand({2, 5})}},
                   {{"note", "quote \" and \xc3\xa9"}, {"format", "other"}});
  const SafetensorsFile file(folder.file("f"));
  expect_same(file.tensor("t"), base.t().contiguous(), "t");
  expect_same(file.tensor("s"), at::ones({2, 5}), "s");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.metadata().at("note"), "quote \" and \xc3\xa9");
  EXPECT_EQ(read_file(folder.file("f")).size() % 2, 0U);
}

TEST(SaveSafetensors, TensorsThatWantGradientsAreWritten) {
  const TempFolder folder;
  save_safetensors(folder.file("f"), {{"a", at::ones({2}).requires_grad_(true)}});
  expect_same(SafetensorsFile(folder.file("f")).tensor("a"), at::ones({2}), "a");
}

TEST(SaveSafetensors, NothingToSaveIsAFileWithoutTensors) {
  const TempFolder folder;
  save_safetensors(folder.file("f"), {});
  EXPECT_TRUE(SafetensorsFile(folder.file("f")).tensors().empty());
}

TEST(SaveSafetensors, WhatTheFormatCannotHoldIsRefused) {
  const at::Tensor x = at::zeros({4});
  EXPECT_EQ(save_error({{"a", x}, {"a", at::zeros({1})}}),
            "writing f: tensor \"a\" is given twice");
  EXPECT_EQ(save_error({{"a", at::Tensor()}}), "writing f: tensor \"a\" has no value");
  EXPECT_EQ(save_error({{"__metadata__", x}}),
            "writing f: \"__metadata__\" cannot be a tensor's name");
  EXPECT_EQ(save_error({{"\xff", x}}), "writing f: \"\xff\" cannot be a tensor's name");
  EXPECT_EQ(save_error({{"a", at::zeros({1}, at::kComplexDouble)}}),
            "writing f: tensor \"a\" is of type ComplexDouble, which the format cannot hold");
}

TEST(SaveSafetensors, TensorsThatShareMemoryAreRefused) {
  const at::Tensor x = at::zeros({4, 2});
  const std::string text = save_error({{"tied", x}, {"z", at::zeros({1})}, {"again", x}});
  EXPECT_NE(text.find("share memory; drop or copy one of them"), std::string::npos) << text;
  EXPECT_NE(text.find("\"tied\""), std::string::npos);
  EXPECT_NE(text.find("\"again\""), std::string::npos);
  EXPECT_NE(save_error({{"all", x}, {"row", x[2]}}).find("share memory"), std::string::npos);
}

TEST(SaveSafetensors, ApartPiecesOfOneStorageMayBeSaved) {
  const TempFolder folder;
  const at::Tensor joined = at::arange(6, at::kFloat).view({3, 2});
  save_safetensors(folder.file("f"), {{"q", joined[0]}, {"k", joined[1]}, {"v", joined[2]}});
  expect_same(SafetensorsFile(folder.file("f")).tensor("v"), joined[2], "v");
}

TEST(SaveSafetensors, AMissingFolderIsAnIoError) {
  const TempFolder folder;
  const std::string text = error_text(folder, ErrorCode::Io, [&] {
    save_safetensors(folder.file("none/f"), {{"a", at::zeros({1})}});
  });
  EXPECT_EQ(text, "writing none/f: No such file or directory");
}

}  // namespace safetensors_test
}  // namespace attune
