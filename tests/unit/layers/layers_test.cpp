// Checks the sources as text: which folder includes which, what is banned, how long files are.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace attune {
namespace layers_test {

namespace fs = std::filesystem;

const fs::path kRoot = ATTUNE_SOURCE_DIR;
constexpr int kMostLines = 800;

struct Source {
  std::string path;   // from src/: "io/checkpoint.cpp"
  std::string layer;  // "io", "kernels/ops"
  std::vector<std::string> lines;
};

std::vector<std::string> read_lines(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

/// The layer a path from src/ lies in: its first folder, but kernels/ops is a layer of its own.
std::string layer_of(const std::string& path) {
  if (path.rfind("kernels/ops/", 0) == 0) return "kernels/ops";
  return path.substr(0, path.find('/'));
}

/// layers.txt: "folder: folder folder", comments after #.
std::map<std::string, std::set<std::string>> read_layers() {
  std::map<std::string, std::set<std::string>> layers;
  for (const std::string& line : read_lines(kRoot / "cmake/layers.txt")) {
    const size_t colon = line.find(':');
    if (line.empty() || line[0] == '#' || colon == std::string::npos) continue;
    std::set<std::string>& allowed = layers[line.substr(0, colon)];
    std::string word;
    for (const char c : line.substr(colon + 1) + " ") {
      if (c != ' ') {
        word += c;
      } else if (!word.empty()) {
        allowed.insert(word);
        word.clear();
      }
    }
  }
  return layers;
}

std::vector<Source> read_sources() {
  std::vector<Source> sources;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / "src")) {
    const std::string extension = entry.path().extension().string();
    if (!entry.is_regular_file() || (extension != ".cpp" && extension != ".h")) continue;
    const std::string path = fs::relative(entry.path(), kRoot / "src").string();
    sources.push_back({path, layer_of(path), read_lines(entry.path())});
  }
  std::sort(sources.begin(), sources.end(),
            [](const Source& a, const Source& b) { return a.path < b.path; });
  return sources;
}

/// The name between the quotes or brackets of an #include line; empty for any other line.
std::string included(const std::string& line) {
  if (line.rfind("#include", 0) != 0) return "";
  const size_t begin = line.find_first_of("\"<");
  const size_t end = line.find_last_of("\">");
  return begin == std::string::npos || end <= begin ? "" : line.substr(begin + 1, end - begin - 1);
}

/// A line without its // comment. Good enough here: our sources hold no // inside the strings that
/// matter.
std::string code_of(const std::string& line) {
  return line.substr(0, line.find("//"));
}

std::string place(const Source& source, size_t line) {
  return "src/" + source.path + ":" + std::to_string(line + 1);
}

TEST(Layers, ThisTestSeesTheSources) {
  EXPECT_GT(read_sources().size(), 30U);
  EXPECT_EQ(read_layers().at("tensor"), (std::set<std::string>{"base", "kernels"}));
  EXPECT_EQ(included("#include \"io/checkpoint.h\""), "io/checkpoint.h");
  EXPECT_EQ(included("#include <vector>"), "vector");
  EXPECT_EQ(layer_of("kernels/ops/linear.h"), "kernels/ops");
  EXPECT_EQ(layer_of("kernels/avx2/rows.h"), "kernels");
}

TEST(Layers, EveryFolderHasALayer) {
  const std::map<std::string, std::set<std::string>> layers = read_layers();
  for (const Source& source : read_sources())
    EXPECT_TRUE(layers.count(source.layer))
        << "src/" << source.path << ": add " << source.layer << " to cmake/layers.txt";
  for (const auto& [layer, allowed] : layers)
    for (const std::string& other : allowed)
      EXPECT_TRUE(layers.count(other)) << "layers.txt: " << layer << ": " << other;
}

TEST(Layers, AllowedFoldersHaveNoCycle) {
  const std::map<std::string, std::set<std::string>> layers = read_layers();
  std::set<std::string> done;
  // Each pass settles the layers that use settled ones only; a cycle never settles.
  for (size_t pass = 0; pass < layers.size(); ++pass)
    for (const auto& [layer, allowed] : layers)
      if (std::includes(done.begin(), done.end(), allowed.begin(), allowed.end()))
        done.insert(layer);
  for (const auto& [layer, allowed] : layers)
    EXPECT_TRUE(done.count(layer)) << layer << " is in a cycle, or uses one";
}

TEST(Layers, IncludesStayWithinTheAllowedFolders) {
  const std::map<std::string, std::set<std::string>> layers = read_layers();
  for (const Source& source : read_sources()) {
    const auto allowed = layers.find(source.layer);
    if (allowed == layers.end()) continue;  // reported by another test
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string name = included(source.lines[i]);
      if (name.find('/') == std::string::npos || !fs::exists(kRoot / "src" / name)) continue;
      const std::string layer = layer_of(name);
      EXPECT_TRUE(layer == source.layer || allowed->second.count(layer))
          << place(source, i) << ": " << source.layer << " may not include " << name
          << "; see cmake/layers.txt";
    }
  }
}

TEST(Sources, BannedHeadersAreNotIncluded) {
  const std::set<std::string> banned{"regex",      "iostream",      "torch/torch.h",
                                     "torch/nn.h", "torch/optim.h", "torch/all.h"};
  for (const Source& source : read_sources())
    for (size_t i = 0; i < source.lines.size(); ++i)
      EXPECT_FALSE(banned.count(included(source.lines[i])))
          << place(source, i) << ": " << source.lines[i];
}

TEST(Sources, HeavyHeadersAreIncludedByTensorTorchOnly) {
  for (const Source& source : read_sources()) {
    const bool header =
        source.path.size() > 2 && source.path.substr(source.path.size() - 2) == ".h";
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string name = included(source.lines[i]);
      const bool heavy = name == "ATen/ATen.h" || name.rfind("torch/csrc/", 0) == 0;
      EXPECT_TRUE(!heavy || source.layer == "tensor")
          << place(source, i) << ": include tensor/torch.h instead";
      EXPECT_FALSE(header && name == "tensor/torch.h")
          << place(source, i) << ": only .cpp files include tensor/torch.h";
    }
  }
}

TEST(Sources, KernelsSeeNoLibTorch) {
  for (const Source& source : read_sources()) {
    if (source.layer != "kernels") continue;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string name = included(source.lines[i]);
      EXPECT_FALSE(name.rfind("ATen/", 0) == 0 || name.rfind("torch/", 0) == 0 ||
                   name.rfind("c10/", 0) == 0)
          << place(source, i) << ": " << name;
    }
  }
}

TEST(Sources, MatrixProductsOfLibTorchAreNotCalled) {
  // They end in whatever BLAS is installed; attune::matmul is the way.
  const std::vector<std::string> banned{"at::matmul", "at::mm(",  "at::bmm", "at::linear(",
                                        "at::einsum", ".matmul(", ".mm(",    ".bmm("};
  for (const Source& source : read_sources())
    for (size_t i = 0; i < source.lines.size(); ++i)
      for (const std::string& call : banned)
        EXPECT_EQ(code_of(source.lines[i]).find(call), std::string::npos)
            << place(source, i) << ": " << call << " is banned; use attune::matmul";
}

TEST(Sources, FilesStayShort) {
  for (const Source& source : read_sources())
    EXPECT_LE(source.lines.size(), static_cast<size_t>(kMostLines))
        << "src/" << source.path << ": split this file";
}

TEST(Sources, HeadersAreGuarded) {
  for (const Source& source : read_sources()) {
    if (source.path.substr(source.path.size() - 2) != ".h") continue;
    EXPECT_NE(std::find(source.lines.begin(), source.lines.end(), "#pragma once"),
              source.lines.end())
        << "src/" << source.path << ": #pragma once is missing";
  }
}

}  // namespace layers_test
}  // namespace attune
