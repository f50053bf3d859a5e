#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "e2e/program.h"

namespace attune {

/// A folder of its own with a tiny BERT in model/ and data files, removed with everything in it at
/// the end. The program runs in it, so names in recipes are relative.
class Workshop : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  bool exists(const std::string& name) const { return std::filesystem::exists(folder_ / name); }
  void write(const std::string& name, const std::string& content) const;
  std::string read(const std::string& name) const;
  Json json(const std::string& name) const;
  /// The records of a file of JSON lines.
  std::vector<Json> lines(const std::string& name) const;
  /// Files below a folder whose names are those of unfinished work.
  std::vector<std::string> left_overs(const std::string& name) const;

  Outcome attune(const std::vector<std::string>& args, const std::string& input = "") const {
    return run_program(folder_.string(), args, input);
  }
  /// The same, which has to succeed with exactly one JSON object on standard output.
  Json attune_json(std::vector<std::string> args) const;
  /// attune train recipe.yaml with these overrides, after writing the recipe: classification, LoRA,
  /// 60 steps.
  Outcome train(const std::vector<std::string>& sets) const;
  static std::vector<std::string> train_args(const std::vector<std::string>& sets);

  std::filesystem::path folder_;
};

/// Rows of a task that a tiny model can learn: what counts is which words occur.
std::string classify_rows(int count, int seed);
std::string multi_rows(int count, int seed);
std::string regress_rows(int count, int seed);
std::string pair_rows(int count, int seed);
std::string tag_rows(int count, int seed);

/// The recipe of Workshop::train.
extern const char* const kRecipe;

}  // namespace attune
