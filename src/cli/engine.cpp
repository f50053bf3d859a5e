// The one entry point of libattune.so: runs a request of the front end.
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/engine_commands.h"

namespace attune {

namespace {

struct Command {
  const char* name;
  int (*run)(const Json&);
};

constexpr Command kCommands[] = {
    {"train", run_train},       {"resume", run_resume},     {"eval", run_eval},
    {"predict", run_predict},   {"generate", run_generate}, {"forward", run_forward},
    {"tokenize", run_tokenize}, {"compare", run_compare},   {"init", run_init},
    {"check", run_check},       {"inspect", run_inspect},   {"merge", run_merge},
    {"export", run_export},     {"doctor", run_doctor},
};

void set_up_log(bool quiet) {
  // On a terminal a progress line may stand at the cursor; it is cleared before a message takes its
  // place.
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  set_log_sink([terminal, quiet](LogLevel level, const std::string& text) {
    if (quiet && level == LogLevel::Info) return;
    std::fprintf(stderr, "%s%s%s\n", terminal ? "\r\033[K" : "",
                 level == LogLevel::Warning ? "warning: " : "", text.c_str());
  });
}

int report(const std::string& command, const char* kind, const std::string& text, int status) {
  std::fflush(stdout);
  std::fprintf(stderr, "attune %s: %s: %s\n", command.c_str(), kind, text.c_str());
  return status;
}

int out_of_memory(const std::string& command) {
  return report(command, error_name(ErrorCode::OutOfMemory),
                "the memory of this machine is used up; lower train.batch_tokens (or "
                "train.batch_size), data.max_length, "
                "take train.precision: bf16, or train.recompute: blocks",
                exit_status(ErrorCode::OutOfMemory));
}

/// LibTorch reports a failed allocation as an error of its own, with a stack trace in the text.
bool is_allocation_failure(const std::string& text) {
  for (const char* mark : {"not enough memory", "can't allocate memory", "out of memory"})
    if (text.find(mark) != std::string::npos) return true;
  return false;
}

int dispatch(const std::string& command, const Json& args) {
  for (const Command& known : kCommands)
    if (command == known.name) return known.run(args);
  fail(
      ErrorCode::Internal,
      "the engine does not know the command \"{}\"; front end and engine are of different versions",
      command);
}

int run_request(const char* request_text) {
  std::string command = "?";
  try {
    const Json request = parse_json(request_text, "the request");
    command = request.at("command").get<std::string>();
    const Json& args = request.at("args");
    set_up_log(args.value("quiet", false));
    return dispatch(command, args);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::OutOfMemory && std::string(error.what()).empty())
      return out_of_memory(command);
    return report(command, error_name(error.code()), error.what(), exit_status(error.code()));
  } catch (const std::bad_alloc&) {
    return out_of_memory(command);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    if (is_allocation_failure(text)) return out_of_memory(command);
    // Only the first line: what follows in LibTorch's errors is a stack trace.
    return report(command, "internal error", text.substr(0, text.find('\n')), 70);
  }
}

}  // namespace

}  // namespace attune

/// Runs {"command": "train", "args": {...}} and returns the exit status. Nothing is thrown across
/// this border.
extern "C" __attribute__((visibility("default"))) int attune_run(const char* request_json) {
  try {
    const int status = attune::run_request(request_json);
    attune::set_log_sink(nullptr);
    const bool flushed = std::fflush(stdout) == 0;
    std::fflush(stderr);
    return flushed || status != 0 ? status : 7;
  } catch (...) {
    std::fputs("attune: internal error: an error of unknown kind\n", stderr);
    return 70;
  }
}
