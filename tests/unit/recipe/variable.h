#pragma once
#include <cstdlib>
#include <string>
#include <utility>

namespace attune {

/// Sets or unsets an environment variable for the length of a test.
class Variable {
 public:
  Variable(std::string name, const char* value) : name_(std::move(name)) {
    const char* old = std::getenv(name_.c_str());
    had_ = old != nullptr;
    if (had_) old_ = old;
    if (value != nullptr)
      ::setenv(name_.c_str(), value, 1);
    else
      ::unsetenv(name_.c_str());
  }
  ~Variable() {
    if (had_)
      ::setenv(name_.c_str(), old_.c_str(), 1);
    else
      ::unsetenv(name_.c_str());
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  std::string name_, old_;
  bool had_ = false;
};

}  // namespace attune
