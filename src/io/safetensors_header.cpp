#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace attune {

namespace {

/// In the order of the format's own list.
constexpr std::array<std::pair<std::string_view, int>, 22> kDtypes{{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};

/// Reads the header's JSON event by event: a tree would silently drop duplicate keys.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(SafetensorsHeader& header, const std::string& where)
      : header_(header), where_(where) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override { return unexpected(text); }
  bool binary(binary_t&) override { return unexpected("binary data"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool key(string_t& key) override;
  bool start_object(std::size_t) override;
  bool end_object() override;
  bool start_array(std::size_t) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    fail(ErrorCode::Corrupt, "{}: byte {} of the header is not valid JSON: {}", where_, position,
         std::string_view(error.what())
             .substr(0, 300));  // it quotes the text so far, which may be long
  }

 private:
  enum class At { Start, Top, Metadata, Entry, Shape, Offsets };

  bool unexpected(std::string_view found) const {
    const char* expected = "an object";
    if (at_ == At::Metadata) expected = "a string";
    if (at_ == At::Shape || at_ == At::Offsets) expected = "a whole number from 0";
    if (at_ == At::Entry) expected = key_ == "dtype" ? "a string" : "an array";
    fail(ErrorCode::Corrupt, "{}: header, {}: expected {}, found {}", where_, place(), expected,
         found);
  }
  std::string place() const {
    if (at_ == At::Start || (at_ == At::Top && key_.empty())) return "at its start";
    if (at_ == At::Metadata) return format("__metadata__.{}", key_);
    if (at_ == At::Top) return key_;
    return format("tensor {}, {}", entry_.name, key_);
  }
  void check_entry() const;

  SafetensorsHeader& header_;
  const std::string& where_;
  At at_ = At::Start;
  std::string key_;
  bool metadata_seen_ = false;
  std::unordered_set<std::string> names_;
  TensorInfo entry_;
  std::vector<uint64_t> offsets_;
  bool dtype_seen_ = false, shape_seen_ = false, offsets_seen_ = false;
};

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (at_ == At::Shape) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(ErrorCode::Corrupt, "{}: tensor {}: dimension {} does not fit a 64-bit size", where_,
           entry_.name, value);
    entry_.shape.push_back(static_cast<int64_t>(value));
    return true;
  }
  if (at_ == At::Offsets) {
    offsets_.push_back(value);
    return true;
  }
  return unexpected(std::to_string(value));
}

bool HeaderReader::string(string_t& value) {
  if (at_ == At::Metadata) {
    if (!header_.metadata.emplace(key_, value).second)
      fail(ErrorCode::Corrupt, "{}: header, __metadata__: key \"{}\" is given twice", where_, key_);
    return true;
  }
  if (at_ != At::Entry || key_ != "dtype") return unexpected(format("\"{}\"", value));
  if (safetensors_bits(value) == 0)
    fail(ErrorCode::Corrupt,
         "{}: tensor {}: unknown dtype \"{}\"; the file is damaged or newer than this reader",
         where_, entry_.name, value);
  entry_.dtype = value;
  return true;
}

bool HeaderReader::key(string_t& key) {
  key_ = key;
  if (at_ == At::Top) {
    const bool repeated =
        key == "__metadata__" ? std::exchange(metadata_seen_, true) : !names_.insert(key).second;
    if (repeated) fail(ErrorCode::Corrupt, "{}: header: key \"{}\" is given twice", where_, key);
  }
  if (at_ == At::Entry) {
    bool* seen = nullptr;
    if (key == "dtype") seen = &dtype_seen_;
    if (key == "shape") seen = &shape_seen_;
    if (key == "data_offsets") seen = &offsets_seen_;
    if (seen == nullptr)
      fail(ErrorCode::Corrupt,
           "{}: tensor {}: unknown key \"{}\"; expected dtype, shape and data_offsets", where_,
           entry_.name, key);
    if (std::exchange(*seen, true))
      fail(ErrorCode::Corrupt, "{}: tensor {}: key \"{}\" is given twice", where_, entry_.name,
           key);
  }
  return true;
}

bool HeaderReader::start_object(std::size_t) {
  if (at_ == At::Start) {
    at_ = At::Top;
    return true;
  }
  if (at_ != At::Top) return unexpected("an object");
  at_ = key_ == "__metadata__" ? At::Metadata : At::Entry;
  if (at_ == At::Entry) {
    entry_ = TensorInfo{};
    entry_.name = key_;
    offsets_.clear();
    dtype_seen_ = shape_seen_ = offsets_seen_ = false;
  }
  return true;
}

bool HeaderReader::end_object() {
  if (at_ == At::Entry) {
    check_entry();
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    header_.tensors.push_back(std::move(entry_));
  }
  at_ = At::Top;
  return true;
}

bool HeaderReader::start_array(std::size_t) {
  if (at_ == At::Entry && key_ == "shape")
    at_ = At::Shape;
  else if (at_ == At::Entry && key_ == "data_offsets")
    at_ = At::Offsets;
  else
    return unexpected("an array");
  return true;
}

bool HeaderReader::end_array() {
  at_ = At::Entry;
  return true;
}

void HeaderReader::check_entry() const {
  const char* missing = nullptr;
  if (!offsets_seen_) missing = "data_offsets";
  if (!shape_seen_) missing = "shape";
  if (!dtype_seen_) missing = "dtype";
  if (missing != nullptr)
    fail(ErrorCode::Corrupt, "{}: tensor {}: {} is missing", where_, entry_.name, missing);
  if (offsets_.size() != 2 || offsets_[0] > offsets_[1])
    fail(ErrorCode::Corrupt, "{}: tensor {}: data_offsets [{}] are not a begin and an end", where_,
         entry_.name, fmt::join(offsets_, ", "));
}

/// Bits of a tensor's data. A zero dimension counts as one in the check for overflow, because
/// strides are such products.
uint64_t checked_bits(const TensorInfo& tensor, const std::string& where) {
  uint64_t bits = static_cast<uint64_t>(safetensors_bits(tensor.dtype));
  bool empty = false;
  for (const int64_t dimension : tensor.shape) {
    empty = empty || dimension == 0;
    const uint64_t factor = std::max<uint64_t>(1, static_cast<uint64_t>(dimension));
    if (__builtin_mul_overflow(bits, factor, &bits) ||
        bits > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(ErrorCode::Corrupt, "{}: tensor {}: shape [{}] of {} overflows a 64-bit size", where,
           tensor.name, fmt::join(tensor.shape, ", "), tensor.dtype);
  }
  return empty ? 0 : bits;
}

void check_size(const TensorInfo& tensor, uint64_t data_bytes, const std::string& where) {
  const uint64_t bits = checked_bits(tensor, where);
  if (tensor.end > data_bytes)
    fail(ErrorCode::Corrupt,
         "{}: tensor {} ends at byte {} of the data, which has {} bytes; the file is cut off or "
         "damaged, "
         "fetch it again",
         where, tensor.name, tensor.end, data_bytes);
  if (bits % 8 != 0)
    fail(ErrorCode::Corrupt, "{}: tensor {}: shape [{}] of {} does not end on a whole byte", where,
         tensor.name, fmt::join(tensor.shape, ", "), tensor.dtype);
  if (bits / 8 != tensor.end - tensor.begin)
    fail(ErrorCode::Corrupt,
         "{}: tensor {}: shape [{}] of {} takes {} bytes, its data_offsets [{}, {}] hold {}", where,
         tensor.name, fmt::join(tensor.shape, ", "), tensor.dtype, bits / 8, tensor.begin,
         tensor.end, tensor.end - tensor.begin);
}

/// The data must be covered exactly once.
void check_cover(const std::vector<TensorInfo>& tensors, uint64_t data_bytes,
                 const std::string& where) {
  std::vector<const TensorInfo*> order;
  order.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t covered = 0;
  std::string_view last = "the header";
  for (const TensorInfo* tensor : order) {
    if (tensor->begin > covered)
      fail(ErrorCode::Corrupt, "{}: data bytes {} to {}, before tensor {}, belong to no tensor",
           where, covered, tensor->begin, tensor->name);
    if (tensor->begin < covered)
      fail(ErrorCode::Corrupt, "{}: tensors {} and {} overlap in data bytes {} to {}", where, last,
           tensor->name, tensor->begin, covered);
    covered = tensor->end;
    last = tensor->name;
  }
  if (covered != data_bytes)
    fail(ErrorCode::Corrupt, "{}: the tensors end at data byte {}, but the file goes on to {}",
         where, covered, data_bytes);
}

uint64_t header_length(std::string_view file) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | static_cast<uint8_t>(file[static_cast<size_t>(i)]);
  return length;
}

/// The JSON text inside a file, without padding.
std::string_view header_text(std::string_view file, const std::string& where) {
  if (starts_with(file, "version https://git-lfs"))
    fail(ErrorCode::Corrupt,
         "{}: this is a Git LFS pointer, not the tensors; run `git lfs pull` in its repository",
         where);
  if (file.size() < 8)
    fail(ErrorCode::Corrupt, "{}: {} bytes are too few for a safetensors file; fetch it again",
         where, file.size());
  const uint64_t length = header_length(file);
  if (length > kMaxSafetensorsHeader)
    fail(ErrorCode::Corrupt,
         "{}: a header of {} bytes is claimed, {} is the limit; this is not a safetensors file, or "
         "it is "
         "damaged",
         where, length, kMaxSafetensorsHeader);
  if (length > file.size() - 8)
    fail(ErrorCode::Corrupt,
         "{}: the header takes {} bytes, but only {} follow; the file is cut off, fetch it again",
         where, length, file.size() - 8);
  std::string_view text = file.substr(8, length);
  if (text.empty() || text.front() != '{')
    fail(ErrorCode::Corrupt,
         "{}: the header does not begin with {{; this is not a safetensors file", where);
  while (text.back() == ' ') text.remove_suffix(1);
  // The JSON reader takes a zero byte for the end of its input.
  if (text.back() != '}' || text.find('\0') != std::string_view::npos)
    fail(ErrorCode::Corrupt, "{}: the header is not one JSON object with spaces after it", where);
  return text;
}

}  // namespace

int safetensors_bits(std::string_view dtype) {
  for (const std::pair<std::string_view, int>& entry : kDtypes)
    if (entry.first == dtype) return entry.second;
  return 0;
}

int safetensors_rank(std::string_view dtype) {
  for (size_t i = 0; i < kDtypes.size(); ++i)
    if (kDtypes[i].first == dtype) return static_cast<int>(i);
  return -1;
}

SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& where) {
  const std::string_view text = header_text(file, where);
  SafetensorsHeader header;
  HeaderReader reader(header, where);
  Json::sax_parse(text.begin(), text.end(), &reader);
  header.data_begin = 8 + header_length(file);
  const uint64_t data_bytes = file.size() - header.data_begin;
  for (const TensorInfo& tensor : header.tensors) check_size(tensor, data_bytes, where);
  check_cover(header.tensors, data_bytes, where);
  return header;
}

}  // namespace attune
