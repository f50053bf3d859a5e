#include "signal/resize.h"

#include <algorithm>
#include <cmath>

namespace attune {

namespace {

constexpr int kBits = 32 - 8 - 2;  // 8 bits of pixel and two of headroom remain

double sinc(double x) {
  constexpr double kPi = 3.14159265358979323846;
  return x == 0 ? 1 : std::sin(kPi * x) / (kPi * x);
}

/// How far the filter reaches at size 1.
double reach(Resample filter) {
  switch (filter) {
    case Resample::Lanczos:
      return 3;
    case Resample::Bicubic:
      return 2;
    case Resample::Box:
      return 0.5;
    default:
      return 1;
  }
}

double weight(Resample filter, double x) {
  if (filter == Resample::Box) return x > -0.5 && x <= 0.5 ? 1 : 0;
  x = std::abs(x);
  switch (filter) {
    case Resample::Lanczos:
      return x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case Resample::Bicubic: {
      constexpr double kA = -0.5;
      if (x < 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * kA : 0;
    }
    case Resample::Hamming:
      return x < 1 ? sinc(x) * (0.54 + 0.46 * std::cos(3.14159265358979323846 * x)) : 0;
    default:
      return x < 1 ? 1 - x : 0;
  }
}

/// The source pixels of one target pixel and their weights.
struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

std::vector<Taps> taps_of(int64_t from, int64_t to, Resample filter) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(1.0, scale), support = reach(filter) * stretch;
  std::vector<Taps> result;
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    Taps taps;
    taps.first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t end = std::min(from, static_cast<int64_t>(center + support + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int64_t x = taps.first; x < end; ++x) {
      weights.push_back(weight(filter, (static_cast<double>(x) - center + 0.5) / stretch));
      sum += weights.back();
    }
    for (const double w : weights) {
      const double fixed = (sum != 0 ? w / sum : w) * (1 << kBits);
      taps.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
    result.push_back(std::move(taps));
  }
  return result;
}

/// Resizes lines of pixels: `lines` of them, `step` apart; pixels `stride` apart.
struct Axis {
  int64_t lines, from_step, to_step, from_stride, to_stride;
};

void resize_axis(const Image& from, Image& to, const std::vector<Taps>& taps, const Axis& axis) {
  for (int64_t line = 0; line < axis.lines; ++line)
    for (size_t i = 0; i < taps.size(); ++i)
      for (int64_t c = 0; c < from.channels; ++c) {
        int32_t sum = 1 << (kBits - 1);
        for (size_t k = 0; k < taps[i].weights.size(); ++k) {
          const int64_t at = line * axis.from_step +
                             (taps[i].first + static_cast<int64_t>(k)) * axis.from_stride + c;
          sum += from.pixels[static_cast<size_t>(at)] * taps[i].weights[k];
        }
        const int64_t at = line * axis.to_step + static_cast<int64_t>(i) * axis.to_stride + c;
        to.pixels[static_cast<size_t>(at)] =
            static_cast<uint8_t>(std::clamp<int32_t>(sum >> kBits, 0, 255));
      }
}

Image blank(int64_t height, int64_t width, int64_t channels) {
  return {height, width, channels,
          std::vector<uint8_t>(static_cast<size_t>(height * width * channels))};
}

Image nearest(const Image& image, int64_t height, int64_t width) {
  Image result = blank(height, width, image.channels);
  const auto source = [](int64_t i, int64_t from, int64_t to) {
    return static_cast<int64_t>((static_cast<double>(i) + 0.5) * static_cast<double>(from) /
                                static_cast<double>(to));
  };
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const int64_t at =
          source(y, image.height, height) * image.width + source(x, image.width, width);
      for (int64_t c = 0; c < image.channels; ++c)
        result.pixels[static_cast<size_t>((y * width + x) * image.channels + c)] =
            image.pixels[static_cast<size_t>(at * image.channels + c)];
    }
  return result;
}

}  // namespace

Image resize(const Image& image, int64_t height, int64_t width, Resample filter) {
  if (height == image.height && width == image.width) return image;
  if (filter == Resample::Nearest) return nearest(image, height, width);
  const int64_t channels = image.channels;
  Image across = width == image.width ? image : blank(image.height, width, channels);
  if (width != image.width)
    resize_axis(image, across, taps_of(image.width, width, filter),
                {image.height, image.width * channels, width * channels, channels, channels});
  if (height == image.height) return across;
  Image result = blank(height, width, channels);
  resize_axis(across, result, taps_of(image.height, height, filter),
              {width, channels, channels, width * channels, width * channels});
  return result;
}

}  // namespace attune
