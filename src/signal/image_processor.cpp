#include "signal/image_processor.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "tensor/torch.h"

namespace attune {

namespace {

[[noreturn]] void wrong(const std::string& path, const char* key, const Json& found,
                        const char* expected) {
  fail(ErrorCode::Corrupt, "{}: \"{}\" is {}; {} was expected", path, key, found.dump(), expected);
}

int64_t positive(const Json& value, const std::string& path, const char* key) {
  if (!value.is_number_integer() || value.get<int64_t>() < 1)
    wrong(path, key, value, "a positive whole number");
  return value.get<int64_t>();
}

bool flag(const Json& config, const std::string& path, const char* key, bool fallback) {
  const Json value = config.value(key, Json());
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) wrong(path, key, value, "true or false");
  return value.get<bool>();
}

/// A size given once, as [height, width], or as {"height", "width"}.
void read_size(const Json& value, const std::string& path, const char* key, int64_t& height,
               int64_t& width) {
  if (value.is_object() && value.contains("height") && value.contains("width")) {
    height = positive(value["height"], path, key);
    width = positive(value["width"], path, key);
  } else if (value.is_array() && value.size() == 2) {
    height = positive(value[0], path, key);
    width = positive(value[1], path, key);
  } else {
    height = width = positive(value, path, key);
  }
}

/// One number for all channels, or one a channel.
std::vector<double> by_channel(const Json& value, const std::string& path, const char* key,
                               int64_t channels) {
  if (value.is_number())
    return std::vector<double>(static_cast<size_t>(channels), value.get<double>());
  if (!value.is_array() || value.empty() ||
      !std::all_of(value.begin(), value.end(), [](const Json& x) { return x.is_number(); }))
    wrong(path, key, value, "a list of numbers");
  std::vector<double> numbers = value.get<std::vector<double>>();
  if (numbers.size() != 1 && static_cast<int64_t>(numbers.size()) != channels)
    wrong(path, key, value, "a number for each channel of the model");
  numbers.resize(static_cast<size_t>(channels), numbers.front());
  return numbers;
}

}  // namespace

ImageProcessor ImageProcessor::load(const std::string& directory) {
  ImageProcessor processor;
  const std::string config_path = directory + "/config.json";
  const Json config = read_json(config_path);
  processor.channels_ = config.contains("num_channels")
                            ? positive(config["num_channels"], config_path, "num_channels")
                            : 3;
  if (config.contains("image_size"))
    read_size(config["image_size"], config_path, "image_size", processor.height_, processor.width_);
  if (config.contains("patch_size"))
    read_size(config["patch_size"], config_path, "patch_size", processor.patch_height_,
              processor.patch_width_);
  processor.size_height_ = processor.height_;
  processor.size_width_ = processor.width_;
  processor.mean_ = processor.deviation_ =
      std::vector<double>(static_cast<size_t>(processor.channels_), 0.5);
  const std::string path = directory + "/preprocessor_config.json";
  const std::string newer = directory + "/processor_config.json";
  if (file_exists(path)) {
    processor.read(read_json(path), path);
  } else if (file_exists(newer)) {
    const Json parts = read_json(newer);
    if (parts.contains("image_processor") && parts["image_processor"].is_object())
      processor.read(parts["image_processor"], newer);
  }
  return processor;
}

void ImageProcessor::read(const Json& config, const std::string& path) {
  resize_ = flag(config, path, "do_resize", true);
  crop_ = flag(config, path, "do_center_crop", false);
  rescale_ = flag(config, path, "do_rescale", true);
  normalize_ = flag(config, path, "do_normalize", true);
  if (const Json size = config.value("size", Json());
      size.is_object() && size.contains("shortest_edge")) {
    shortest_edge_ = positive(size["shortest_edge"], path, "size");
  } else if (!size.is_null()) {
    read_size(size, path, "size", size_height_, size_width_);
  }
  crop_height_ = size_height_;
  crop_width_ = size_width_;
  if (const Json size = config.value("crop_size", Json()); !size.is_null())
    read_size(size, path, "crop_size", crop_height_, crop_width_);
  if (const Json filter = config.value("resample", Json()); !filter.is_null()) {
    if (!filter.is_number_integer() || filter.get<int64_t>() < 0 || filter.get<int64_t>() > 5)
      wrong(path, "resample", filter, "a filter from 0 (nearest) to 5 (Hamming)");
    filter_ = static_cast<Resample>(filter.get<int>());
  }
  if (const Json factor = config.value("rescale_factor", Json()); factor.is_number())
    factor_ = factor.get<double>();
  if (const Json mean = config.value("image_mean", Json()); !mean.is_null())
    mean_ = by_channel(mean, path, "image_mean", channels_);
  if (const Json deviation = config.value("image_std", Json()); !deviation.is_null())
    deviation_ = by_channel(deviation, path, "image_std", channels_);
}

at::Tensor ImageProcessor::pixels(const Image& given) const {
  Image image = channels_ == 1 && given.channels == 3 ? grey(given) : given;
  if (image.channels != channels_)
    fail(ErrorCode::Unsupported,
         "an image has {} channels and the model reads {}; models of 1 (grey) and 3 (RGB) are "
         "served",
         image.channels, channels_);
  if (resize_ && shortest_edge_ > 0) {
    const int64_t least = std::min(image.height, image.width);
    image = resize(image, shortest_edge_ * image.height / least,
                   shortest_edge_ * image.width / least, filter_);
  } else if (resize_) {
    image = resize(image, size_height_, size_width_, filter_);
  }
  if (crop_)
    image = crop(image, (image.height - crop_height_) / 2, (image.width - crop_width_) / 2,
                 crop_height_, crop_width_);
  if (image.height != height_ || image.width != width_)
    fail(ErrorCode::BadInput,
         "an image has {} x {} pixels after preprocessing and the model reads {} x {}; "
         "preprocessor_config.json must lead to that size",
         image.width, image.height, width_, height_);
  at::Tensor result = at::empty({channels_, height_, width_}, at::kFloat);
  float* out = static_cast<float*>(result.data_ptr());
  const int64_t area = height_ * width_;
  for (int64_t c = 0; c < channels_; ++c) {
    const size_t channel = static_cast<size_t>(c);
    for (int64_t i = 0; i < area; ++i) {
      double value = image.pixels[static_cast<size_t>(i * channels_ + c)];
      if (rescale_) value *= factor_;
      if (normalize_) value = (value - mean_[channel]) / deviation_[channel];
      out[c * area + i] = static_cast<float>(value);
    }
  }
  return result;
}

at::Tensor ImageProcessor::patches(const Image& image) const {
  return patch_rows(pixels(image), patch_height_, patch_width_);
}

at::Tensor patch_rows(const at::Tensor& pixels, int64_t patch_height, int64_t patch_width) {
  const int64_t channels = pixels.size(0);
  const int64_t down = pixels.size(1) / patch_height, across = pixels.size(2) / patch_width;
  return pixels.narrow(1, 0, down * patch_height)
      .narrow(2, 0, across * patch_width)
      .reshape({channels, down, patch_height, across, patch_width})
      .permute({1, 3, 0, 2, 4})
      .reshape({down * across, channels * patch_height * patch_width})
      .contiguous();
}

}  // namespace attune
