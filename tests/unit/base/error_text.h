#pragma once
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace attune {

/// The text of the error that `body` throws; "" and a failed test when it throws none or one of
/// another code.
template <class Body>
std::string error_text(ErrorCode code, Body body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error_name(error.code()), std::string(error_name(code))) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace attune
