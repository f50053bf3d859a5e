#include "recipe/open_data.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace attune {

Dataset open_files(const std::vector<DataFile>& files, const Recipe& recipe) {
  ReadOptions options;
  options.header = recipe.header;
  options.skip_bad_rows = recipe.skip_bad_rows;
  std::vector<InputFile> inputs;
  for (const DataFile& file : files) {
    InputFile input{file.path, file.limit};
    for (const std::pair<const std::string, std::string>& entry : file.columns) {
      // Tasks look for the recipe's name of a role, or for the role itself.
      const std::map<std::string, std::string>::const_iterator known =
          recipe.columns.find(entry.first);
      const std::string name = known == recipe.columns.end() ? entry.first : known->second;
      if (name != entry.second) input.renamed[name] = entry.second;
    }
    inputs.push_back(std::move(input));
  }
  Dataset data = Dataset::open(inputs, options);
  if (!data.bad_rows().empty()) {
    constexpr size_t kShown = 10;  // a run lists all of them in its bad_rows.txt
    const size_t count = data.bad_rows().size(), shown = std::min(kShown, count);
    std::string text = format("skipped {} bad row(s):", count);
    for (size_t i = 0; i < shown; ++i) text += "\n  " + data.bad_rows()[i];
    if (count > shown) text += format("\n  and {} more", count - shown);
    log_warning("{}", text);
  }
  return data;
}

std::vector<MixtureSource> mixture_of(const DataView& train, const std::vector<DataFile>& files) {
  if (files.empty() || files.front().weight <= 0) return {};
  std::vector<MixtureSource> sources;
  for (size_t i = 0; i < files.size(); ++i)
    sources.push_back({{}, files[i].weight, format("data.train[{}] ({})", i, files[i].path)});
  for (int64_t i = 0; i < train.size(); ++i)
    sources[train.data.file_of(train.row(i))].examples.push_back(i);
  for (size_t i = 0; i < sources.size(); ++i)
    if (sources[i].examples.empty())
      fail(ErrorCode::BadInput,
           "data.train[{}]: none of the rows of {} are left for training; hold out fewer "
           "(data.eval), or leave the file out",
           i, files[i].path);
  return sources;
}

}  // namespace attune
