#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "io/safetensors.h"
#include "tensor/torch.h"

namespace attune {

namespace {

/// Name of a tensor's dtype in the format; null when it has none.
const char* dtype_of_type(at::ScalarType type) {
  switch (type) {
    case at::kBool:
      return "BOOL";
    case at::kByte:
      return "U8";
    case at::kChar:
      return "I8";
    case at::kShort:
      return "I16";
    case at::kInt:
      return "I32";
    case at::kLong:
      return "I64";
    case at::kHalf:
      return "F16";
    case at::kBFloat16:
      return "BF16";
    case at::kFloat:
      return "F32";
    case at::kDouble:
      return "F64";
    case at::kComplexFloat:
      return "C64";
    default:
      return nullptr;
  }
}

/// Memory a tensor reaches, from its first element to past its last.
struct Span {
  const char* begin = nullptr;
  const char* end = nullptr;
  const std::string* name = nullptr;
};

Span span_of(const std::pair<std::string, at::Tensor>& entry) {
  const at::Tensor& tensor = entry.second;
  int64_t last = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) last += (tensor.size(i) - 1) * tensor.stride(i);
  const char* begin = static_cast<const char*>(tensor.data_ptr());
  return {begin, begin + (last + 1) * static_cast<int64_t>(tensor.element_size()), &entry.first};
}

void check_sharing(const NamedTensors& tensors, const std::string& path) {
  std::vector<Span> spans;
  for (const std::pair<std::string, at::Tensor>& entry : tensors)
    if (entry.second.numel() > 0) spans.push_back(span_of(entry));
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  // Sorted and, up to here, apart: the span before is the one that ends last.
  for (size_t i = 1; i < spans.size(); ++i)
    if (spans[i].begin < spans[i - 1].end)
      fail(ErrorCode::Internal,
           "writing {}: tensors \"{}\" and \"{}\" share memory; drop or copy one of them", path,
           *spans[i - 1].name, *spans[i].name);
}

std::string header_of(const std::vector<const std::pair<std::string, at::Tensor>*>& order,
                      std::map<std::string, std::string> metadata) {
  metadata["format"] = "pt";  // some readers refuse a file without it
  Json header = Json::object();
  header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const std::pair<std::string, at::Tensor>* entry : order) {
    const uint64_t end = offset + entry->second.nbytes();
    Json& description = header[entry->first];
    description["dtype"] = dtype_of_type(entry->second.scalar_type());
    description["shape"] = entry->second.sizes().vec();
    description["data_offsets"] = {offset, end};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

void check_savable(const NamedTensors& tensors, const std::string& path) {
  std::set<std::string_view> names;
  for (const std::pair<std::string, at::Tensor>& entry : tensors) {
    const std::string& name = entry.first;
    if (name == "__metadata__" || invalid_utf8(name))
      fail(ErrorCode::Internal, "writing {}: \"{}\" cannot be a tensor's name", path, name);
    if (!names.insert(name).second)
      fail(ErrorCode::Internal, "writing {}: tensor \"{}\" is given twice", path, name);
    if (!entry.second.defined())
      fail(ErrorCode::Internal, "writing {}: tensor \"{}\" has no value", path, name);
    if (dtype_of_type(entry.second.scalar_type()) == nullptr)
      fail(ErrorCode::Internal,
           "writing {}: tensor \"{}\" is of type {}, which the format cannot hold", path, name,
           c10::toString(entry.second.scalar_type()));
  }
  check_sharing(tensors, path);
}

void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const std::map<std::string, std::string>& metadata) {
  check_savable(tensors, path);
  std::vector<const std::pair<std::string, at::Tensor>*> order;
  for (const std::pair<std::string, at::Tensor>& entry : tensors) order.push_back(&entry);
  const auto rank = [](const at::Tensor& tensor) {
    return safetensors_rank(dtype_of_type(tensor.scalar_type()));
  };
  std::sort(order.begin(), order.end(), [&](const auto* a, const auto* b) {
    const int left = rank(a->second), right = rank(b->second);
    return left != right ? left > right : a->first < b->first;
  });
  const std::string header = header_of(order, metadata);
  write_file_atomic(path, [&](const Sink& sink) {
    char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
    sink(length, sizeof length);
    sink(header.data(), header.size());
    for (const std::pair<std::string, at::Tensor>* entry : order) {
      const at::Tensor packed = entry->second.detach().to(at::kCPU).contiguous();
      if (packed.numel() > 0) sink(packed.data_ptr(), packed.nbytes());
    }
  });
}

}  // namespace attune
