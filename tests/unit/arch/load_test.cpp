#include "arch/load.h"

#include <gtest/gtest.h>

#include "base/file.h"
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

}  // namespace load_test
}  // namespace attune
