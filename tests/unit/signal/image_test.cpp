// Images against what Pillow reads and makes of them (tests/golden/images.py).
#include "signal/image.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "signal/image_processor.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace image_test {

const std::string kFolder = std::string(ATTUNE_TEST_DATA) + "/images/";

Json golden() {
  return parse_json(read_file(kFolder + "expected.json"), "expected.json");
}

void expect_is(const Image& image, const Json& expected, const std::string& what) {
  EXPECT_EQ(image.height, expected["height"]) << what;
  EXPECT_EQ(image.width, expected["width"]) << what;
  const std::vector<uint8_t> first(image.pixels.begin(), image.pixels.begin() + 12);
  EXPECT_EQ(first, expected["first"].get<std::vector<uint8_t>>()) << what;
  const std::string bytes(image.pixels.begin(), image.pixels.end());
  EXPECT_EQ(sha256_hex(bytes), expected["sha256"]) << what;
}

TEST(ReadImage, GivesThePixelsOfPillow) {
  const Json expected = golden();
  for (const auto& [name, record] : expected["read"].items())
    expect_is(read_image(kFolder + name), record, name);
}

/// photo.jpg with an EXIF marker that asks for a turn.
std::string asking(int orientation, bool big) {
  const auto number = [&](uint32_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) {
      const int byte = big ? bytes - 1 - i : i;
      text += static_cast<char>(value >> (8 * byte) & 0xff);
    }
    return text;
  };
  const std::string entry = number(0x0112, 2) + number(3, 2) + number(1, 4) +
                            number(static_cast<uint32_t>(orientation), 2);
  const std::string other = number(0x0100, 2) + number(4, 2) + number(1, 4) + number(640, 4);
  const std::string exif = std::string("Exif\0\0", 6) + (big ? "MM" : "II") + number(42, 2) +
                           number(8, 4) + number(2, 2) + other + entry + number(0, 2) +
                           number(0, 4);
  std::string marker = "\xff\xe1";
  marker += static_cast<char>((exif.size() + 2) >> 8);
  marker += static_cast<char>((exif.size() + 2) & 0xff);
  std::string photo = read_file(kFolder + "photo.jpg");
  return photo.insert(2, marker + exif);
}

TEST(ReadImage, TurnsAPhotoAsItsExifAsks) {
  // Where the stored first row and first column are to be seen (EXIF 2.32, 4.6.4 A).
  const char* const kSides[8][2] = {{"top", "left"},     {"top", "right"},  {"bottom", "right"},
                                    {"bottom", "left"},  {"left", "top"},   {"right", "top"},
                                    {"right", "bottom"}, {"left", "bottom"}};
  const Image stored = read_image(kFolder + "photo.jpg");
  const TempFolder folder;
  for (int turn = 1; turn <= 8; ++turn) {
    const Image seen = read_image(folder.write("turned.jpg", asking(turn, turn % 2 == 0)));
    const std::string row_side = kSides[turn - 1][0], column_side = kSides[turn - 1][1];
    ASSERT_EQ(seen.height, turn < 5 ? stored.height : stored.width) << turn;
    ASSERT_EQ(seen.width, turn < 5 ? stored.width : stored.height) << turn;
    for (int64_t r = 0; r < stored.height; ++r)
      for (int64_t c = 0; c < stored.width; ++c) {
        int64_t x = 0, y = 0;
        const auto place = [&](const std::string& side, int64_t distance) {
          if (side == "top") y = distance;
          if (side == "bottom") y = seen.height - 1 - distance;
          if (side == "left") x = distance;
          if (side == "right") x = seen.width - 1 - distance;
        };
        place(row_side, r);
        place(column_side, c);
        for (int64_t k = 0; k < 3; ++k)
          ASSERT_EQ(seen.pixels[static_cast<size_t>((y * seen.width + x) * 3 + k)],
                    stored.pixels[static_cast<size_t>((r * stored.width + c) * 3 + k)])
              << turn;
      }
  }
  EXPECT_EQ(read_image(folder.write("turned.jpg", asking(9, true))).height, stored.height);
}

TEST(Resize, GivesThePixelsOfPillowForEveryFilter) {
  const Image image = read_image(kFolder + "rgb.png");
  for (const Json& record : golden()["resize"])
    expect_is(resize(image, record["height"], record["width"],
                     static_cast<Resample>(record["filter"].get<int>())),
              record, record.dump().substr(0, 60));
}

TEST(Grey, GivesTheLumaOfPillow) {
  expect_is(grey(read_image(kFolder + "rgb.png")), golden()["grey"], "grey");
}

TEST(Crop, FillsWhatIsOutsideWithZeros) {
  const Image image{2, 2, 1, {1, 2, 3, 4}};
  EXPECT_EQ(crop(image, 1, 0, 1, 2).pixels, (std::vector<uint8_t>{3, 4}));
  EXPECT_EQ(crop(image, -1, 1, 3, 2).pixels, (std::vector<uint8_t>{0, 0, 2, 0, 4, 0}));
}

/// Text of the error of reading a file with this content.
std::string error_of(const std::string& content, ErrorCode code) {
  const TempFolder folder;
  const std::string path = folder.write("x.png", content);
  try {
    read_image(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    const std::string text = error.what();
    EXPECT_NE(text.find(path), std::string::npos) << text;
    return text;
  }
  return "";
}

TEST(ReadImage, RefusesWhatItCannotRead) {
  EXPECT_NE(error_of("GIF89a", ErrorCode::Unsupported).find("it is neither PNG nor JPEG"),
            std::string::npos);
  EXPECT_NE(error_of(read_file(kFolder + "cmyk.jpg"), ErrorCode::Unsupported)
                .find("a JPEG of 4 channels (CMYK)"),
            std::string::npos);
  try {
    read_image(kFolder + "absent.png");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::NotFound);
    EXPECT_NE(std::string(error.what()).find("there is no such file"), std::string::npos);
  }
}

TEST(ReadImage, FilesCutAnywhereAreErrors) {
  for (const char* name : {"rgb.png", "photo.jpg", "palette.png"}) {
    const std::string whole = read_file(kFolder + name);
    for (size_t length = 9; length + 12 < whole.size(); length += 7)
      EXPECT_NE(error_of(whole.substr(0, length), ErrorCode::Corrupt).find("damaged"),
                std::string::npos)
          << name << " " << length;
  }
}

class Processor : public ::testing::Test {
 protected:
  ImageProcessor load(const Json& config, const Json& preprocessor) {
    folder_.write("config.json", config.dump());
    if (!preprocessor.is_null()) folder_.write("preprocessor_config.json", preprocessor.dump());
    return ImageProcessor::load(folder_.path());
  }
  TempFolder folder_;
};

TEST_F(Processor, GivesTheValuesOfViTImageProcessor) {
  const Json expected = golden();
  const ImageProcessor processor =
      load(Json{{"image_size", 8}, {"patch_size", 4}}, expected["settings"]);
  const at::Tensor found = processor.pixels(read_image(kFolder + "rgb.png")).reshape({-1});
  const std::vector<double> values = expected["pixel_values"].get<std::vector<double>>();
  ASSERT_EQ(found.numel(), static_cast<int64_t>(values.size()));
  for (int64_t i = 0; i < found.numel(); ++i)
    EXPECT_NEAR(found[i].item<double>(), values[static_cast<size_t>(i)], 2e-6) << i;
}

TEST_F(Processor, ReadsTheNewerFileToo) {
  const Image image = read_image(kFolder + "rgb.png");
  const Json expected = golden();
  folder_.write("processor_config.json", Json{{"image_processor", expected["settings"]}}.dump());
  const at::Tensor found =
      load(Json{{"image_size", 8}, {"patch_size", 4}}, Json()).pixels(image).reshape({-1});
  EXPECT_NEAR(found[7].item<double>(), expected["pixel_values"][7].get<double>(), 2e-6);
}

TEST_F(Processor, PatchesStandRowByRow) {
  const ImageProcessor processor =
      load(Json{{"image_size", Json{4, 6}}, {"patch_size", Json{2, 3}}, {"num_channels", 1}},
           Json{{"do_resize", false}, {"do_rescale", false}, {"do_normalize", false}});
  Image image{4, 6, 1, {}};
  for (int i = 0; i < 24; ++i) image.pixels.push_back(static_cast<uint8_t>(i));
  const at::Tensor patches = processor.patches(image);
  ASSERT_EQ(patches.sizes().vec(), (std::vector<int64_t>{4, 6}));
  const std::vector<double> second{3, 4, 5, 9, 10, 11};
  for (int64_t i = 0; i < 6; ++i)
    EXPECT_EQ(patches[1][i].item<double>(), second[static_cast<size_t>(i)]);
}

TEST_F(Processor, CropsTheMiddleOfTheShortestEdge) {
  const ImageProcessor processor =
      load(Json{{"image_size", 4}, {"patch_size", 2}},
           Json{{"size", {{"shortest_edge", 6}}}, {"do_center_crop", true}, {"crop_size", 4}});
  EXPECT_EQ(processor.pixels(read_image(kFolder + "rgb.png")).sizes().vec(),
            (std::vector<int64_t>{3, 4, 4}));
}

TEST_F(Processor, RefusesSettingsThatAreNone) {
  const auto refused = [&](const Json& preprocessor) {
    try {
      load(Json{{"image_size", 4}, {"patch_size", 2}}, preprocessor)
          .pixels(read_image(kFolder + "rgb.png"));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refused(Json{{"resample", 9}}).find("\"resample\" is 9; a filter from 0"),
            std::string::npos);
  EXPECT_NE(refused(Json{{"size", "big"}}).find("a positive whole number was expected"),
            std::string::npos);
  EXPECT_NE(refused(Json{{"do_resize", 1}}).find("true or false was expected"), std::string::npos);
  EXPECT_NE(refused(Json{{"image_mean", Json{1, 2}}}).find("a number for each channel"),
            std::string::npos);
  EXPECT_NE(refused(Json{{"image_std", "x"}}).find("a list of numbers was expected"),
            std::string::npos);
  EXPECT_NE(refused(Json{{"do_resize", false}})
                .find("an image has 31 x 23 pixels after preprocessing and the model reads 4 x 4"),
            std::string::npos);
}

}  // namespace image_test
}  // namespace attune
