#include "kernels/self_check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/gemm.h"
#include "kernels/kernels.h"

namespace attune::kernels {
namespace self_check_test {

TEST(SelfCheck, EveryKernelOfEveryInstructionSetAgreesWithDoublePrecision) {
  for (const Isa limit : {Isa::Ref, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, kBestIsa}) {
    limit_isa(limit);
    const std::vector<CheckedKernel> checked = self_check();
    EXPECT_EQ(checked.size(), has_native_bf16() ? 20u : 11u);
    for (const CheckedKernel& kernel : checked) {
      EXPECT_TRUE(kernel.ok()) << kernel.name << " " << kernel.error << " " << isa_name(isa());
      EXPECT_GT(kernel.error, 0) << kernel.name;  // nothing is compared with itself
    }
  }
  limit_isa(kBestIsa);
}

TEST(SelfCheck, WhatIsNoNumberIsWrong) {
  EXPECT_FALSE((CheckedKernel{"x", std::nan(""), 1}).ok());
  EXPECT_FALSE((CheckedKernel{"x", 2, 1}).ok());
}

}  // namespace self_check_test
}  // namespace attune::kernels
