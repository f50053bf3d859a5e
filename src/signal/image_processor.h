#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "signal/image.h"
#include "signal/resize.h"

namespace attune {

/// From an image file to what an image model reads: resized, cropped, scaled, normalised, as
/// preprocessor_config.json says, or the part image_processor of processor_config.json. Without:
/// the model's image size, bilinear, [-1, 1]. Reference: transformers' ViTImageProcessor; resizing
/// is that of its PIL backend bit for bit, and within one level of 255 of its torchvision backend.
class ImageProcessor {
 public:
  /// `directory`: of the checkpoint, with config.json. Errors: Corrupt for values of the wrong
  /// kind, naming file and key; Unsupported for a resample that is not known.
  static ImageProcessor load(const std::string& directory);
  /// float [channels, height, width].
  at::Tensor pixels(const Image& image) const;
  /// The same as rows of patches [rows, channels * patch height * patch width], from the top, each
  /// by channel, row, column.
  at::Tensor patches(const Image& image) const;

 private:
  void read(const Json& config, const std::string& path);

  int64_t channels_ = 3, height_ = 224, width_ = 224, patch_height_ = 16, patch_width_ = 16;
  bool resize_ = true, crop_ = false, rescale_ = true, normalize_ = true;
  int64_t shortest_edge_ = 0, size_height_ = 0, size_width_ = 0, crop_height_ = 0, crop_width_ = 0;
  Resample filter_ = Resample::Bilinear;
  double factor_ = 1.0 / 255;
  std::vector<double> mean_{0.5, 0.5, 0.5}, deviation_{0.5, 0.5, 0.5};
};

/// Pixels [channels, height, width] as rows of patches; what does not fill a patch is left out.
at::Tensor patch_rows(const at::Tensor& pixels, int64_t patch_height, int64_t patch_width);

}  // namespace attune
