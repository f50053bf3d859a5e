// compare: methods and seeds of one recipe, one table.
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "recipe/compare.h"

namespace attune {

int run_compare(const Json& args) {
  CompareRequest request;
  request.recipe = load_recipe(text_arg(args, "recipe"), list_arg(args, "set"), args);
  for (const std::string& list : list_arg(args, "methods")) {
    const bool options = list.find('{') != std::string::npos;  // commas belong to the options
    for (const std::string& name : options ? std::vector<std::string>{list} : split(list, ','))
      request.methods.push_back(name);
  }
  request.seeds = int_arg(args, "seeds", 3);
  request.output = without_end_slash(text_arg(args, "output", request.recipe.output + "-compare"));
  request.overwrite = flag_arg(args, "overwrite");
  request.program = std::filesystem::read_symlink("/proc/self/exe").string();
  const bool json = flag_arg(args, "json");
  Json rows;
  const int status = compare(
      request,
      [&](const Json& row) {
        if (json) return;
        const std::string table = compare_table(Json::array({row}));
        const size_t first = table.find('\n'), second = table.find('\n', first + 1);
        // The head of the table once, then a line as each method ends.
        std::fputs(rows.size() == 1 ? table.c_str() : table.c_str() + second + 1, stdout);
        std::fflush(stdout);
      },
      rows);
  if (status != 0) {
    log_warning("a run ended with status {}; what is finished is kept. Go on with the same command",
                status);
    return status;
  }
  if (json) answer(args, Json{{"rows", rows}, {"output", request.output}}, "");
  return 0;
}

}  // namespace attune
