#include "train/signals.h"

#include <csignal>

namespace attune {

namespace {
volatile std::sig_atomic_t g_signal = 0;  // a handler can reach nothing else

extern "C" void note_signal(int signal) {
  if (g_signal != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  g_signal = signal;
}
}  // namespace

SignalWatch::SignalWatch() {
  g_signal = 0;
  std::signal(SIGINT, note_signal);
  std::signal(SIGTERM, note_signal);
}

SignalWatch::~SignalWatch() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

int SignalWatch::received() {
  return g_signal;
}

}  // namespace attune
