#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/records.h"
#include "recipe/target.h"
#include "report/progress.h"

namespace attune {

/// Readings of a request's arguments; absent and null give the fallback.
std::string text_arg(const Json& args, const char* name, const std::string& fallback = "");
bool flag_arg(const Json& args, const char* name);
int64_t int_arg(const Json& args, const char* name, int64_t fallback);
std::vector<std::string> list_arg(const Json& args, const char* name);

/// Threads as asked with --threads, else all this process may use.
void use_threads(const Json& args);
/// The target of a command that takes RUN|MODEL, --adapter, --task, --columns, --precision.
std::unique_ptr<Target> target_of(const Json& args, bool need_task);
/// The progress line of a command: on standard error, none with --quiet.
std::unique_ptr<Progress> progress_of(const Json& args);
/// The value of an argument without which the command cannot work. Errors: BadInput, naming the
/// flag.
std::string needed_arg(const Json& args, const char* name, const char* flag);
/// -o DIR of a command that writes a directory. Errors: BadInput when it exists, unless --overwrite
/// is given and it holds a checkpoint or adapters. Without a slash at its end.
std::string output_directory(const Json& args);
/// The rows of --data or --input ("-": standard input); what they were read as goes to the log.
Dataset open_input(const std::string& path);
/// Prints to standard output: the object with --json, else the text.
void answer(const Json& args, const Json& object, const std::string& text);
/// Results one after another on standard output, so that any number of them needs no memory: a line
/// of JSON each, or with --json one object {"results": [...]}. Its last characters come from
/// finish(): output that an error cuts short is not JSON, so nobody takes it for the whole.
class ResultStream {
 public:
  explicit ResultStream(const Json& args) : json_(flag_arg(args, "json")) {}
  /// Errors: Io when standard output takes no more.
  void add(const Json& result);
  void finish();

 private:
  bool json_;
  int64_t count_ = 0;
};
/// {"text": "description"} from "text=description,label=section".
std::map<std::string, std::string> columns_of(const std::string& text);

}  // namespace attune
