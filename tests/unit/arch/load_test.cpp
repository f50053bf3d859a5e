#include "arch/load.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "core/storage.h"
#include "nn/transformer.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace load_test {

const std::string kGolden = std::string(ATTUNE_TEST_DATA) + "/bert/";

LoadOptions with_dropout(double dropout) {
  LoadOptions options;
  options.own_head = true;
  options.head = {HeadKind::Sequence, 3, "mean", dropout};
  return options;
}

double head_dropout(const LoadedModel& loaded) {
  return dynamic_cast<const Transformer&>(*loaded.model).spec().head.dropout;
}

TEST(LoadModel, TheHeadsDropoutIsTheCheckpointsUnlessOneIsAsked) {
  const double own = read_json(kGolden + "base/config.json").value("hidden_dropout_prob", 0.1);
  EXPECT_EQ(head_dropout(load_model(kGolden + "base", with_dropout(-1))), own);
  EXPECT_EQ(head_dropout(load_model(kGolden + "base", with_dropout(0.37))), 0.37);
  EXPECT_EQ(head_dropout(load_model(kGolden + "base", with_dropout(0))), 0);
}

TEST(WriteModel, MakesItsDirectory) {
  const TempFolder folder;
  const LoadedModel loaded = load_model(kGolden + "base", {});
  const std::string directory = folder.file("a/b/c");
  write_model(*loaded.model, kGolden + "base", directory, Json::object());
  EXPECT_TRUE(file_exists(directory + "/config.json"));
  EXPECT_EQ(checkpoint_fingerprint(directory), checkpoint_fingerprint(kGolden + "base"));
}

TEST(WriteModel, ADirectoryThatCannotBeMadeIsNamed) {
  const TempFolder folder;
  const LoadedModel loaded = load_model(kGolden + "base", {});
  const std::string directory = folder.write("file", "x") + "/model";
  const std::string text =
      error_text(ErrorCode::Io, [&] { write_model(*loaded.model, "", directory, Json::object()); });
  EXPECT_EQ(text.substr(0, text.rfind(':')),
            "writing a checkpoint: the directory " + directory + " cannot be made");
}

/// Bytes of this process's mapped files that are in memory.
int64_t resident_file_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("RssFile:", 0) == 0) return 1024 * std::stoll(line.substr(8));
  return -1;
}

TEST(Store, GivesTheCheckpointsPagesBackOnceTheyAreCodes) {
  Json config = read_json(kGolden + "base/config.json");
  config["hidden_size"] = 768;
  config["intermediate_size"] = 6144;  // 47 MB of projections
  config["num_hidden_layers"] = 1;
  const TempFolder folder;
  write_model(*init_model(config, "wide", {}), "", folder.file("wide"), Json::object());
  const LoadedModel loaded = load_model(folder.file("wide"), {});
  const int64_t before = resident_file_bytes();
  StorageOptions nf4;
  nf4.kind = "nf4";
  const StorageReport report = store(*loaded.model, nf4);
  EXPECT_GT(report.before, 32 << 20);
  EXPECT_LT(resident_file_bytes() - before, report.before / 4);
}

}  // namespace load_test
}  // namespace attune
