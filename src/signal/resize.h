#pragma once
#include <cstdint>

#include "signal/image.h"

namespace attune {

/// How a pixel is made from those around it, numbered as PIL numbers them.
enum class Resample : uint8_t {
  Nearest = 0,
  Lanczos = 1,
  Bilinear = 2,
  Bicubic = 3,
  Box = 4,
  Hamming = 5
};

/// The image in another size. When it gets smaller the filter grows with the step, so that every
/// pixel counts. Columns, then rows, rounded to 8 bits in between, in 22-bit fixed point.
/// Reference: the numbers are those of Pillow's Image.resize on 8-bit images, bit for bit.
Image resize(const Image& image, int64_t height, int64_t width, Resample filter);

}  // namespace attune
