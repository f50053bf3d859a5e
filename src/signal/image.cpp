#include "signal/image.h"

// jpeglib.h needs size_t and FILE before it.
#include <jpeglib.h>
#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace attune {

namespace {

constexpr int64_t kMostPixels = int64_t{1} << 28;

void check_size(int64_t height, int64_t width, const std::string& path) {
  if (height < 1 || width < 1 || height > kMostPixels / width)
    fail(ErrorCode::Unsupported,
         "reading the image {}: it has {} x {} pixels; at most 2^28 together are read", path, width,
         height);
}

Image read_png(const std::string& bytes, const std::string& path) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const auto damaged = [&] {
    const std::string why = png.message;
    png_image_free(&png);
    fail(ErrorCode::Corrupt, "reading the image {}: damaged PNG: {}", path, why);
  };
  if (png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) == 0) damaged();
  check_size(png.height, png.width, path);
  // With alpha, so that it can be dropped rather than mixed with a background.
  const bool alpha = (png.format & PNG_FORMAT_FLAG_ALPHA) != 0;
  png.format = alpha ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB;
  Image image{png.height, png.width, 3, std::vector<uint8_t>(PNG_IMAGE_SIZE(png))};
  if (png_image_finish_read(&png, nullptr, image.pixels.data(), 0, nullptr) == 0) damaged();
  if (!alpha) return image;
  const size_t count = static_cast<size_t>(image.height * image.width);
  for (size_t i = 0; i < count; ++i)
    for (size_t c = 0; c < 3; ++c) image.pixels[3 * i + c] = image.pixels[4 * i + c];
  image.pixels.resize(3 * count);
  return image;
}

/// What libjpeg's C code returns to when it gives up.
struct JpegFailure {
  jpeg_error_mgr manager;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void jpeg_gives_up(j_common_ptr info) {
  JpegFailure* failure = reinterpret_cast<JpegFailure*>(info->err);
  (*info->err->format_message)(info, failure->message);
  std::longjmp(failure->back, 1);
}

/// A warning means that data is missing or wrong: what was made up for it is no image.
void jpeg_warns(j_common_ptr info, int level) {
  if (level < 0) jpeg_gives_up(info);
}

/// False: `failure.message` says why. Holds nothing with a destructor, for longjmp passes by.
bool decode_jpeg(const std::string& bytes, JpegFailure& failure, jpeg_decompress_struct& jpeg,
                 Image& image) {
  if (setjmp(failure.back) != 0) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&jpeg, TRUE);
  image.height = jpeg.image_height;
  image.width = jpeg.image_width;
  image.channels = jpeg.num_components;
  if (image.channels > 3 || image.height > kMostPixels / image.width) return true;
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  image.pixels.resize(static_cast<size_t>(image.height * image.width * 3));
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = image.pixels.data() +
                   static_cast<size_t>(jpeg.output_scanline) * static_cast<size_t>(image.width * 3);
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

Image read_jpeg(const std::string& bytes, const std::string& path) {
  JpegFailure failure{};
  jpeg_decompress_struct jpeg{};
  jpeg.err = jpeg_std_error(&failure.manager);
  failure.manager.error_exit = jpeg_gives_up;
  failure.manager.emit_message = jpeg_warns;
  Image image;
  const bool read = decode_jpeg(bytes, failure, jpeg, image);
  jpeg_destroy_decompress(&jpeg);
  if (!read)
    fail(ErrorCode::Corrupt, "reading the image {}: damaged JPEG: {}", path, failure.message);
  check_size(image.height, image.width, path);
  if (image.channels > 3)
    fail(ErrorCode::Unsupported,
         "reading the image {}: a JPEG of {} channels (CMYK); convert it to RGB", path,
         image.channels);
  image.channels = 3;
  return image;
}

}  // namespace

Image read_image(const std::string& path) {
  if (!file_exists(path))
    fail(ErrorCode::NotFound, "reading the image {}: there is no such file", path);
  const std::string bytes = read_file(path);
  if (bytes.compare(0, 8, "\x89PNG\r\n\x1a\n") == 0) return read_png(bytes, path);
  if (bytes.compare(0, 3, "\xff\xd8\xff") == 0) return read_jpeg(bytes, path);
  fail(ErrorCode::Unsupported, "reading the image {}: it is neither PNG nor JPEG; convert it",
       path);
}

Image grey(const Image& image) {
  Image result{image.height, image.width, 1, {}};
  for (size_t i = 0; i + 2 < image.pixels.size(); i += 3)
    result.pixels.push_back(
        static_cast<uint8_t>((image.pixels[i] * 19595U + image.pixels[i + 1] * 38470U +
                              image.pixels[i + 2] * 7471U + 0x8000U) >>
                             16));
  return result;
}

Image crop(const Image& image, int64_t top, int64_t left, int64_t height, int64_t width) {
  Image result{height, width, image.channels,
               std::vector<uint8_t>(static_cast<size_t>(height * width * image.channels))};
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const int64_t from_y = top + y, from_x = left + x;
      if (from_y < 0 || from_y >= image.height || from_x < 0 || from_x >= image.width) continue;
      std::memcpy(
          &result.pixels[static_cast<size_t>((y * width + x) * image.channels)],
          &image.pixels[static_cast<size_t>((from_y * image.width + from_x) * image.channels)],
          static_cast<size_t>(image.channels));
    }
  return result;
}

}  // namespace attune
