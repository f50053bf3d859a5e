#include "base/log.h"

#include <mutex>

namespace attune {

namespace {
struct Target {
  std::mutex mutex;
  LogSink sink;
};
Target& target() {
  static Target instance;  // where messages go is a property of the process
  return instance;
}
}  // namespace

void set_log_sink(LogSink sink) {
  const std::lock_guard<std::mutex> hold(target().mutex);
  target().sink = std::move(sink);
}

void log_message(LogLevel level, const std::string& text) {
  const std::lock_guard<std::mutex> hold(target().mutex);
  if (target().sink) target().sink(level, text);
}

}  // namespace attune
