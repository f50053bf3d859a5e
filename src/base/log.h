#pragma once
#include <fmt/format.h>

#include <functional>
#include <string>
#include <utility>

namespace attune {

enum class LogLevel { Info, Warning };

/// Where messages for the user go. The library never prints by itself: without a sink, messages are
/// dropped. The program sets a sink that writes to standard error.
using LogSink = std::function<void(LogLevel, const std::string&)>;
void set_log_sink(LogSink sink);
void log_message(LogLevel level, const std::string& text);

template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::Info, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::Warning, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace attune
