#include "e2e/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

#include "base/file.h"
#include "base/text.h"

namespace attune {

namespace {

std::string output_base() {
  static std::atomic<int> count{0};
  return format("{}/attune-e2e-{}-{}", std::filesystem::temp_directory_path().string(), ::getpid(),
                count++);
}

std::vector<std::string> command_line(const std::vector<std::string>& args, int64_t memory_kib) {
  std::vector<std::string> line = {ATTUNE_PROGRAM};
  if (memory_kib > 0)
    line = {"/bin/sh", "-c", format("ulimit -v {}; exec \"$0\" \"$@\"", memory_kib),
            ATTUNE_PROGRAM};
  line.insert(line.end(), args.begin(), args.end());
  return line;
}

}  // namespace

Child::Child(const std::string& directory, const std::vector<std::string>& args,
             const std::string& input, int64_t memory_kib)
    : base_(output_base()) {
  write_file_atomic(base_ + ".in", input);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, (base_ + ".in").c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, (base_ + ".out").c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, (base_ + ".err").c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
  std::vector<std::string> line = command_line(args, memory_kib);
  std::vector<char*> pointers;
  for (std::string& word : line) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const int error =
      ::posix_spawn(&process_, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    process_ = -1;
    ADD_FAILURE() << "starting " << line[0] << " failed with error " << error;
  }
}

Child::~Child() {
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  for (const char* ending : {".in", ".out", ".err"}) ::unlink((base_ + ending).c_str());
}

void Child::kill(int signal) {
  if (process_ > 0) ::kill(process_, signal);
}

bool Child::running() {
  if (process_ > 0 && ::waitpid(process_, &wait_status_, WNOHANG) == process_) process_ = -1;
  return process_ > 0;
}

Outcome Child::wait() {
  if (process_ > 0) ::waitpid(process_, &wait_status_, 0);
  process_ = -1;
  Outcome outcome;
  if (WIFEXITED(wait_status_)) outcome.status = WEXITSTATUS(wait_status_);
  if (WIFSIGNALED(wait_status_)) outcome.signal = WTERMSIG(wait_status_);
  outcome.out = read_file(base_ + ".out");
  outcome.err = read_file(base_ + ".err");
  return outcome;
}

Outcome run_program(const std::string& directory, const std::vector<std::string>& args,
                    const std::string& input, int64_t memory_kib) {
  Child child(directory, args, input, memory_kib);
  return child.wait();
}

void expect_refused(const Outcome& outcome, int status, const std::vector<std::string>& parts) {
  EXPECT_EQ(outcome.status, status) << outcome.err;
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_EQ(outcome.out, "");
  for (const std::string& part : parts)
    EXPECT_NE(outcome.err.find(part), std::string::npos) << "\"" << part << "\" is not in:\n"
                                                         << outcome.err;
  for (const char* mark :
       {"terminate called", "Exception raised from", "frame #", "internal error", "std::"})
    EXPECT_EQ(outcome.err.find(mark), std::string::npos) << outcome.err;
  size_t blocks = 0;
  for (const std::string& line : split(outcome.err, '\n'))
    blocks += line.rfind("attune ", 0) == 0 ? 1 : 0;
  EXPECT_EQ(blocks, 1U) << outcome.err;
}

}  // namespace attune
