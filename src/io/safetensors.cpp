#include "io/safetensors.h"

#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "io/fp8.h"
#include "tensor/torch.h"

namespace attune {

namespace {

/// The tensor type that holds a stored dtype bit by bit; Undefined for those that are decoded.
at::ScalarType stored_type(std::string_view dtype) {
  if (dtype == "BOOL") return at::kBool;
  if (dtype == "U8") return at::kByte;
  if (dtype == "I8") return at::kChar;
  if (dtype == "I16") return at::kShort;
  if (dtype == "I32") return at::kInt;
  if (dtype == "I64") return at::kLong;
  if (dtype == "F16") return at::kHalf;
  if (dtype == "BF16") return at::kBFloat16;
  if (dtype == "F32") return at::kFloat;
  if (dtype == "F64") return at::kDouble;
  if (dtype == "C64") return at::kComplexFloat;
  return at::ScalarType::Undefined;
}

at::Tensor decode_fp8(std::string_view bytes, const TensorInfo& info) {
  const std::array<float, 256> values = fp8_values(info.dtype);
  at::Tensor result = at::empty(info.shape, at::kFloat);
  float* out = result.data_ptr<float>();
  for (size_t i = 0; i < bytes.size(); ++i) out[i] = values[static_cast<uint8_t>(bytes[i])];
  return result;
}

template <class T>
at::Tensor widen(std::string_view bytes, const TensorInfo& info, const std::string& path) {
  at::Tensor result = at::empty(info.shape, at::kLong);
  int64_t* out = result.data_ptr<int64_t>();
  for (size_t i = 0; i < bytes.size() / sizeof(T); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    if (static_cast<uint64_t>(value) > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(ErrorCode::Unsupported,
           "{}: tensor {}: element {} is {}; unsigned values from 2^63 cannot be held", path,
           info.name, i, value);
    out[i] = static_cast<int64_t>(value);
  }
  return result;
}

at::Tensor decoded(std::string_view bytes, const TensorInfo& info, const std::string& path) {
  if (info.dtype == "U16") return widen<uint16_t>(bytes, info, path);
  if (info.dtype == "U32") return widen<uint32_t>(bytes, info, path);
  if (info.dtype == "U64") return widen<uint64_t>(bytes, info, path);
  if (safetensors_bits(info.dtype) == 8) return decode_fp8(bytes, info);
  fail(ErrorCode::Unsupported,
       "{}: tensor {}: dtype {} is not supported; convert the file to F16, BF16 or F32", path,
       info.name, info.dtype);
}

}  // namespace

// Writable pages: an operation in place on a weight changes this process's copy instead of
// crashing.
SafetensorsFile::SafetensorsFile(const std::string& path)
    : path_(path), file_(std::make_shared<MappedFile>(path, true)) {
  header_ = parse_safetensors_header(file_->view(), path);
  for (size_t i = 0; i < header_.tensors.size(); ++i) places_.emplace(header_.tensors[i].name, i);
}

bool SafetensorsFile::has(std::string_view name) const {
  return places_.count(std::string(name)) > 0;
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto found = places_.find(std::string(name));
  if (found != places_.end()) return header_.tensors[found->second];
  std::vector<std::string> names;
  for (const TensorInfo& tensor : header_.tensors) names.push_back(tensor.name);
  fail(ErrorCode::NotFound, "{}: there is no tensor \"{}\";{}", path_, name,
       suggestion(name, names));
}

std::string_view SafetensorsFile::bytes(const TensorInfo& tensor) const {
  return file_->view().substr(header_.data_begin + tensor.begin, tensor.end - tensor.begin);
}

void SafetensorsFile::read(const TensorInfo& tensor,
                           const std::function<void(std::string_view)>& see) const {
  read_pieces(path_, header_.data_begin + tensor.begin, tensor.end - tensor.begin, see);
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const TensorInfo& tensor = info(name);
  const std::string_view data = bytes(tensor);
  const at::ScalarType type = stored_type(tensor.dtype);
  if (type == at::ScalarType::Undefined) return decoded(data, tensor, path_);
  if (type == at::kBool)
    for (const char byte : data)
      if (static_cast<uint8_t>(byte) > 1)
        fail(ErrorCode::Corrupt, "{}: tensor {}: a BOOL byte is {}; only 0 and 1 are allowed",
             path_, tensor.name, static_cast<uint8_t>(byte));
  char* const begin = file_->writable() + header_.data_begin + tensor.begin;
  const size_t alignment = type == at::kComplexFloat ? sizeof(float) : c10::elementSize(type);
  if (data.empty() || reinterpret_cast<uintptr_t>(begin) % alignment != 0) {
    at::Tensor copy = at::empty(tensor.shape, type);
    if (!data.empty()) std::memcpy(copy.data_ptr(), data.data(), data.size());
    return copy;
  }
  const std::shared_ptr<MappedFile> keep = file_;
  return at::from_blob(
      begin, tensor.shape, [keep](void*) {}, at::TensorOptions(type));
}

}  // namespace attune
