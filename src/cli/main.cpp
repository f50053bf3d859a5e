// The front end: reads the command line, and loads the engine (libattune.so) only when there is
// work for it.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/schema.h"

namespace {

using RunFunction = int (*)(const char*);

/// A thread that waits for the others spins before it sleeps: some 50 microseconds instead of
/// OpenMP's several milliseconds, in which nothing else could run on its processor. On an idle
/// machine steps take the same time, beside another busy process 0.76 to 0.89 of it
/// (docs/performance.md). OpenMP reads this when the engine is loaded; what the user has set stays.
void limit_spinning() {
  if (::getenv("OMP_WAIT_POLICY") == nullptr) ::setenv("GOMP_SPINCOUNT", "3000", 0);
}

/// The engine beside this executable, or in ../lib. On failure `problem` says what was tried.
RunFunction load_engine(std::string& problem) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    problem = "reading /proc/self/exe: " + error.message();
    return nullptr;
  }
  const std::filesystem::path folder = self.parent_path();
  std::vector<std::string> tried;
  for (const std::filesystem::path& path :
       {folder / "libattune.so", folder.parent_path() / "lib" / "libattune.so"}) {
    tried.push_back(path.string());
    if (!std::filesystem::exists(path, error)) continue;
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      problem = attune::format("loading {}: {}", path.string(), ::dlerror());
      return nullptr;
    }
    void* symbol = ::dlsym(library, "attune_run");
    if (symbol == nullptr)
      problem =
          attune::format("{} has no attune_run; it belongs to another version", path.string());
    return reinterpret_cast<RunFunction>(symbol);
  }
  problem = attune::format("there is no libattune.so; looked at {}; build or install Attune again",
                           attune::join(tried, ", "));
  return nullptr;
}

int run(int count, char** values) {
  const attune::ParsedCommand command = attune::parse_command_line(
      std::vector<std::string>(values + std::min(count, 1), values + count));
  switch (command.kind) {
    case attune::ParsedCommand::Kind::Print:
      std::fputs(command.text.c_str(), stdout);
      return 0;
    case attune::ParsedCommand::Kind::Refuse:
      std::fputs(command.text.c_str(), stderr);
      return command.status;
    case attune::ParsedCommand::Kind::Run:
      break;
  }
  if (const std::optional<attune::Answer> answer = attune::schema_answer(command.request)) {
    std::fputs(answer->out.c_str(), stdout);
    std::fputs(answer->err.c_str(), stderr);
    return answer->status;
  }
  limit_spinning();
  std::string problem;
  const RunFunction attune_run = load_engine(problem);
  if (attune_run == nullptr) {
    std::fprintf(stderr, "attune: not found: %s\n", problem.c_str());
    return 3;
  }
  return attune_run(command.request.dump().c_str());
}

}  // namespace

int main(int count, char** values) {
  int status = 70;
  try {
    status = run(count, values);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attune: internal error: %s\n", error.what());
  }
  // Output that could not be written (a full disk, a closed pipe) is a failure of the command.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0) status = 7;
  std::fflush(stderr);
  // Worker threads of the libraries may still be alive: their destructors are not waited for.
  ::_exit(status);
}
