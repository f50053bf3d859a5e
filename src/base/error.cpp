#include "base/error.h"

namespace attune {

int exit_status(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::BadInput:
      return 2;
    case ErrorCode::NotFound:
      return 3;
    case ErrorCode::Corrupt:
      return 4;
    case ErrorCode::Unsupported:
      return 5;
    case ErrorCode::OutOfMemory:
      return 6;
    case ErrorCode::Io:
      return 7;
    case ErrorCode::Diverged:
      return 8;
    case ErrorCode::ProofFailed:
      return 9;
    case ErrorCode::Locked:
      return 10;
    case ErrorCode::Internal:
      return 70;
  }
  return 70;
}

const char* error_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::BadInput:
      return "bad input";
    case ErrorCode::NotFound:
      return "not found";
    case ErrorCode::Corrupt:
      return "corrupt file";
    case ErrorCode::Unsupported:
      return "unsupported";
    case ErrorCode::OutOfMemory:
      return "out of memory";
    case ErrorCode::Io:
      return "input/output";
    case ErrorCode::Diverged:
      return "diverged";
    case ErrorCode::ProofFailed:
      return "proof failed";
    case ErrorCode::Locked:
      return "locked";
    case ErrorCode::Internal:
      return "internal error";
  }
  return "internal error";
}

namespace detail {
void assertion_failed(const char* condition, const char* file, int line) {
  fail(ErrorCode::Internal,
       "{}:{}: a condition that must hold does not: {}. This is a bug in attune; please report it "
       "with the command "
       "you ran.",
       file, line, condition);
}
}  // namespace detail

}  // namespace attune
