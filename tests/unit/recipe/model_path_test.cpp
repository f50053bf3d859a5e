#include "recipe/model_path.h"

#include <gtest/gtest.h>

#include "support/temp_folder.h"
#include "variable.h"

namespace attune {
namespace model_path_test {

TEST(FindModel, LooksAtDirectoriesThenModelsThenTheCache) {
  const TempFolder folder;
  folder.write("models/org/m/config.json", "{}");
  folder.write("hf/hub/models--org--m/snapshots/abc/config.json", "{}");
  folder.write("hf/hub/models--org--m/snapshots/def/config.json", "{}");
  folder.write("hf/hub/models--org--m/refs/main", "abc\n");
  const Variable home("HF_HOME", folder.file("hf").c_str());
  EXPECT_EQ(find_model(folder.file("models/org/m")), folder.file("models/org/m"));
  {
    const Variable models("ATTUNE_MODELS", nullptr);
    EXPECT_EQ(find_model("org/m"), folder.file("hf/hub/models--org--m/snapshots/abc"));
  }
  const Variable models("ATTUNE_MODELS", folder.file("models").c_str());
  EXPECT_EQ(find_model("org/m"), folder.file("models/org/m"));
}

TEST(FindModel, TheCacheIsUnderTheHomeFolderByDefault) {
  const TempFolder folder;
  folder.write(".cache/huggingface/hub/models--m/snapshots/r1/config.json", "{}");
  const Variable hf("HF_HOME", nullptr), models("ATTUNE_MODELS", nullptr),
      home("HOME", folder.path().c_str());
  EXPECT_EQ(find_model("m"), folder.file(".cache/huggingface/hub/models--m/snapshots/r1"));
}

TEST(FindModel, WhatIsNotThereIsReportedWithThePlaces) {
  const TempFolder folder;
  const Variable hf("HF_HOME", folder.file("hf").c_str()), models("ATTUNE_MODELS", nullptr);
  EXPECT_EQ(error_text(ErrorCode::NotFound, [] { find_model("org/none"); }),
            "looking for the model \"org/none\": no such directory; looked at org/none, " +
                folder.file("hf/hub/models--org--none/snapshots") +
                " ($ATTUNE_MODELS is not set). Nothing is downloaded: put the model in a directory "
                "and pass its path");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [] { find_model(""); }),
            "looking for a model: its name is empty; pass a directory or a name");
}

}  // namespace model_path_test
}  // namespace attune
