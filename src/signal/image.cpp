#include "signal/image.h"

// jpeglib.h needs size_t and FILE before it.
#include <jpeglib.h>
#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <utility>

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

uint32_t number_at(const uint8_t* data, int bytes, bool big) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | data[big ? i : bytes - 1 - i];
  return value;
}

/// The turn (1 to 8) that an APP1 marker asks for; 1, none, when it says nothing.
/// Source: EXIF 2.32, 4.5.4 and 4.6.4 A (tag 0x0112), inside a TIFF 6.0 header.
int orientation_of(const uint8_t* data, size_t size) {
  if (size < 14 || std::memcmp(data, "Exif\0\0", 6) != 0) return 1;
  const uint8_t* tiff = data + 6;
  size -= 6;
  const bool big = tiff[0] == 'M';
  const size_t first = number_at(tiff + 4, 4, big);
  if (first > size || size - first < 2) return 1;
  const size_t entries = number_at(tiff + first, 2, big);
  for (size_t i = 0; i < entries && first + 2 + 12 * (i + 1) <= size; ++i) {
    const uint8_t* entry = tiff + first + 2 + 12 * i;
    if (number_at(entry, 2, big) != 0x0112) continue;
    const uint32_t turn = number_at(entry + 8, 2, big);
    return turn >= 1 && turn <= 8 ? static_cast<int>(turn) : 1;
  }
  return 1;
}

/// The image as it is to be seen. Rows and columns change places from 5 on.
Image turned(Image image, int orientation) {
  if (orientation == 1) return image;
  const bool swaps = orientation >= 5;
  Image result{swaps ? image.width : image.height, swaps ? image.height : image.width,
               image.channels, std::vector<uint8_t>(image.pixels.size())};
  const bool up = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool left = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const size_t pixel = static_cast<size_t>(image.channels);
  for (int64_t y = 0; y < result.height; ++y)
    for (int64_t x = 0; x < result.width; ++x) {
      const int64_t row = swaps ? x : y, column = swaps ? y : x;
      const int64_t from_y = up ? image.height - 1 - row : row;
      const int64_t from_x = left ? image.width - 1 - column : column;
      std::memcpy(&result.pixels[static_cast<size_t>(y * result.width + x) * pixel],
                  &image.pixels[static_cast<size_t>(from_y * image.width + from_x) * pixel], pixel);
    }
  return result;
}

/// False: `failure.message` says why. Holds nothing with a destructor, for longjmp passes by.
bool decode_jpeg(const std::string& bytes, JpegFailure& failure, jpeg_decompress_struct& jpeg,
                 Image& image, int& orientation) {
  if (setjmp(failure.back) != 0) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&jpeg, TRUE);
  image.height = jpeg.image_height;
  image.width = jpeg.image_width;
  image.channels = jpeg.num_components;
  for (jpeg_saved_marker_ptr marker = jpeg.marker_list; marker != nullptr && orientation == 1;
       marker = marker->next)
    orientation = orientation_of(marker->data, marker->data_length);
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
  int orientation = 1;
  const bool read = decode_jpeg(bytes, failure, jpeg, image, orientation);
  jpeg_destroy_decompress(&jpeg);
  if (!read)
    fail(ErrorCode::Corrupt, "reading the image {}: damaged JPEG: {}", path, failure.message);
  check_size(image.height, image.width, path);
  if (image.channels > 3)
    fail(ErrorCode::Unsupported,
         "reading the image {}: a JPEG of {} channels (CMYK); convert it to RGB", path,
         image.channels);
  image.channels = 3;
  return turned(std::move(image), orientation);
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
