#pragma once
#include <string>
#include <vector>

#include "recipe/recipe.h"
#include "train/loader.h"

namespace attune {

/// Opens the files of data.train, data.eval or one set of eval_on as one data set: each with its
/// own limit, and its own names of columns read under those of the recipe. Bad rows that were
/// skipped are listed in the log, the first of many. Errors: as Dataset::open.
Dataset open_files(const std::vector<DataFile>& files, const Recipe& recipe);

/// The weighted sources of a training view, empty when the files state no weights. Errors: BadInput
/// for a file none of whose rows are left for training.
std::vector<MixtureSource> mixture_of(const DataView& train, const std::vector<DataFile>& files);

}  // namespace attune
