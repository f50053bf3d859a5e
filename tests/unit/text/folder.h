#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "text/tokenizer.h"

namespace attune {

/// A folder that vanishes at the end of the test.
class TestFolder {
 public:
  TestFolder() : path_(std::filesystem::temp_directory_path() / name()) {
    std::filesystem::create_directories(path_);
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  void write(const std::string& file, const std::string& content) const {
    std::ofstream(path_ / file, std::ios::binary) << content;
  }
  Tokenizer load() const { return Tokenizer::load(path_.string()); }
  std::string path() const { return path_.string(); }

 private:
  static std::string name() {
    static int count = 0;
    return "attune_text_" + std::to_string(getpid()) + "_" + std::to_string(++count);
  }
  std::filesystem::path path_;
};

/// The text of the error that `call` throws, without `folder` and the slash behind it.
inline std::string error_text(const std::function<void()>& call, ErrorCode code,
                              const std::string& folder = "") {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    std::string text = error.what();
    const size_t at = folder.empty() ? text.npos : text.find(folder);
    if (at != text.npos) text.erase(at, folder.size() + (text[at + folder.size()] == '/' ? 1 : 0));
    return text;
  }
  return "no error";
}

/// The error of loading a folder with this tokenizer.json.
inline std::string load_error(const nlohmann::json& value, ErrorCode code) {
  const TestFolder folder;
  folder.write("tokenizer.json", value.dump());
  return error_text([&] { folder.load(); }, code, folder.path());
}

inline Tokenizer load_json(const nlohmann::json& value) {
  const TestFolder folder;
  folder.write("tokenizer.json", value.dump());
  return folder.load();
}

inline std::string golden_file(const std::string& name) {
  std::ifstream file(std::filesystem::path(ATTUNE_TEST_DATA) / name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace attune
