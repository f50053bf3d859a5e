#pragma once
#include <sys/types.h>

#include <string>
#include <vector>

namespace attune {

/// How a run of the program ended.
struct Outcome {
  int status = -1;  // exit status; -1 when a signal ended it
  int signal = 0;   // the signal that ended it, or 0
  std::string out, err;
};

/// The program in a process of its own, with its output in files of its working directory's parent.
class Child {
 public:
  /// Starts `attune ARGS` in `directory`. `input`: what it reads on standard input. `memory_kib`:
  /// limit of its address space; 0: none.
  Child(const std::string& directory, const std::vector<std::string>& args,
        const std::string& input = "", int64_t memory_kib = 0);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void kill(int signal);
  /// Whether it still runs.
  bool running();
  Outcome wait();

 private:
  std::string base_;  // of the names of its output files
  pid_t process_ = -1;
  int wait_status_ = 0;
};

/// Runs the program to its end.
Outcome run_program(const std::string& directory, const std::vector<std::string>& args,
                    const std::string& input = "", int64_t memory_kib = 0);

/// Fails the test unless the program refused with this status and one clear block on standard error
/// that contains every one of `parts`, and printed nothing on standard output.
void expect_refused(const Outcome& outcome, int status, const std::vector<std::string>& parts);

}  // namespace attune
