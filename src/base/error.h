#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace attune {

/// What kind of failure ended a request. The program maps each code to one exit status
/// (exit_status).
enum class ErrorCode {
  BadInput,
  NotFound,
  Corrupt,
  Unsupported,
  OutOfMemory,
  Io,
  Diverged,
  ProofFailed,
  Locked,
  Internal,
};

/// The one exception type of the library. The text says what was attempted, what was found
/// (file:line:key), what was expected and what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// Throws Error with a formatted text.
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> text, Args&&... args) {
  throw Error(code, fmt::format(text, std::forward<Args>(args)...));
}

/// Exit status of the program for an error: 2 bad input, 3 missing, 4 corrupt, 5 unsupported, 6 out
/// of memory, 7 input/output, 8 diverged, 9 a proof failed, 10 locked, 70 our own bug.
int exit_status(ErrorCode code) noexcept;
/// Short name of a code, as printed before an error's text: "bad input", "not found", ...
const char* error_name(ErrorCode code) noexcept;

namespace detail {
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}

}  // namespace attune

/// For our own bugs only, never for input: throws Internal.
#define ATTUNE_ASSERT(condition) \
  ((condition) ? void(0) : ::attune::detail::assertion_failed(#condition, __FILE__, __LINE__))
