#pragma once
#include "base/json.h"

namespace attune {

/// What the engine does for each command of the front end: `args` holds every argument of the
/// command's declaration (commands.cpp), null where it was not given. Each returns the exit status;
/// errors are thrown.

int run_train(const Json& args);
int run_resume(const Json& args);
int run_eval(const Json& args);
int run_predict(const Json& args);
int run_generate(const Json& args);
int run_forward(const Json& args);
int run_tokenize(const Json& args);
int run_init(const Json& args);
int run_compare(const Json& args);
int run_check(const Json& args);
int run_inspect(const Json& args);
int run_merge(const Json& args);
int run_export(const Json& args);
int run_doctor(const Json& args);

}  // namespace attune
