#pragma once

namespace attune {

/// While alive, SIGINT and SIGTERM are only noted, so that a step can finish; a second SIGINT ends
/// the process at once.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  /// 0, or the signal that came.
  static int received();
};

}  // namespace attune
