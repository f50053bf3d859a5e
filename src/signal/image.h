#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace attune {

/// Pixels row by row, channels side by side, 0 to 255.
struct Image {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;  // [height, width, channels]
};

/// Reads a PNG or JPEG file as RGB (3 channels); what it is shows in its first bytes, not in its
/// name. Palettes and grey become RGB, 16 bits a channel become 8, alpha is dropped without mixing.
/// A turn that a JPEG's EXIF asks for is made, as transformers' load_image and datasets do.
/// Differs: PNG files whose gAMA is not sRGB's are converted to sRGB, which PIL does not do.
/// Errors: NotFound; Corrupt for damaged or cut files; Unsupported for other formats, CMYK JPEG and
/// images of more than 2^28 pixels; each names the file.
Image read_image(const std::string& path);

/// One channel of light: ITU-R 601-2 luma with 16-bit weights, as PIL's convert("L").
Image grey(const Image& image);

/// The part [top, top + height) x [left, left + width); outside the image: 0.
Image crop(const Image& image, int64_t top, int64_t left, int64_t height, int64_t width);

}  // namespace attune
