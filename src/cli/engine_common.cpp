#include "cli/engine_common.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "tensor/process.h"
#include "tensor/torch.h"

namespace attune {

std::string text_arg(const Json& args, const char* name, const std::string& fallback) {
  return args.contains(name) && args[name].is_string() ? args[name].get<std::string>() : fallback;
}

bool flag_arg(const Json& args, const char* name) {
  return args.contains(name) && args[name].is_boolean() && args[name].get<bool>();
}

int64_t int_arg(const Json& args, const char* name, int64_t fallback) {
  return args.contains(name) && args[name].is_number() ? args[name].get<int64_t>() : fallback;
}

std::vector<std::string> list_arg(const Json& args, const char* name) {
  if (!args.contains(name) || args[name].is_null()) return {};
  if (args[name].is_string()) return {args[name].get<std::string>()};
  return args[name].get<std::vector<std::string>>();
}

std::string needed_arg(const Json& args, const char* name, const char* flag) {
  const std::string value = text_arg(args, name);
  if (value.empty()) fail(ErrorCode::BadInput, "{} is missing; --help shows two examples", flag);
  return value;
}

namespace {

/// A checkpoint, an adapter, or the adapters of an export of several types, one a folder.
bool is_written_by_us(const std::string& output) {
  if (file_exists(output + "/config.json") || file_exists(output + "/adapter_config.json"))
    return true;
  for (const std::filesystem::directory_entry& entry :
       std::filesystem::directory_iterator(output)) {
    const std::string name = entry.path().filename().string();  // "1-lora"
    const size_t digits = name.find_first_not_of("0123456789");
    const bool numbered = digits != 0 && digits != std::string::npos && name[digits] == '-';
    if (!numbered || !file_exists(entry.path().string() + "/adapter_config.json")) return false;
  }
  return true;
}

}  // namespace

std::string output_directory(const Json& args) {
  const std::string output = without_end_slash(needed_arg(args, "output", "-o DIR"));
  if (file_exists(output))
    fail(ErrorCode::BadInput, "the output {} is a file; give a directory with -o", output);
  if (!directory_exists(output) || std::filesystem::is_empty(output)) return output;
  if (!flag_arg(args, "overwrite"))
    fail(ErrorCode::BadInput,
         "the output directory {} exists already; give another with -o, or --overwrite", output);
  if (!is_written_by_us(output))
    fail(ErrorCode::BadInput,
         "--overwrite: {} holds neither a checkpoint nor an adapter, so it is left alone; give "
         "another "
         "directory with -o",
         output);
  return output;
}

void use_threads(const Json& args) {
  start_threads(static_cast<int>(int_arg(args, "threads", 0)));
}

Dataset open_input(const std::string& path) {
  Dataset data = Dataset::open(path);
  log_info("{}: {} rows, read as {}", path == "-" ? "standard input" : path,
           with_thousands(data.size()), data.format_name());
  return data;
}

std::map<std::string, std::string> columns_of(const std::string& text) {
  std::map<std::string, std::string> columns;
  if (text.empty()) return columns;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos)
      fail(ErrorCode::BadInput,
           "--columns {}: expected role=column, as in text=description,label=section", text);
    columns[part.substr(0, equals)] = part.substr(equals + 1);
  }
  return columns;
}

std::unique_ptr<Target> target_of(const Json& args, bool need_task) {
  use_threads(args);
  TargetRequest request;
  request.name = text_arg(args, "target");
  request.adapters = list_arg(args, "adapter");
  request.task = text_arg(args, "task");
  request.columns = columns_of(text_arg(args, "columns"));
  request.precision = text_arg(args, "precision", "auto");
  request.need_task = need_task;
  return open_target(request);
}

std::unique_ptr<Progress> progress_of(const Json& args) {
  return std::make_unique<Progress>(stderr, Progress::mode_for(stderr, flag_arg(args, "quiet")));
}

namespace {

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
    fail(ErrorCode::Io, "writing to standard output failed: {}", std::strerror(errno));
}

void flush() {
  if (std::fflush(stdout) != 0)
    fail(ErrorCode::Io, "writing to standard output failed: {}", std::strerror(errno));
}

}  // namespace

void answer(const Json& args, const Json& object, const std::string& text) {
  print((flag_arg(args, "json") ? object.dump() : text) + "\n");
  flush();
}

void ResultStream::add(const Json& result) {
  if (json_) print(count_ == 0 ? "{\"results\":[" : ",");
  print(result.dump() + (json_ ? "" : "\n"));
  ++count_;
}

void ResultStream::finish() {
  if (json_) print(count_ == 0 ? "{\"results\":[]}\n" : "]}\n");
  flush();
}

}  // namespace attune
