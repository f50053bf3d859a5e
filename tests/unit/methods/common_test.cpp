#include "methods/common.h"

#include "method_bench.h"

namespace attune {
namespace common_test {

std::vector<std::string> chosen(const std::vector<std::string>& globs) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  std::vector<std::string> names;
  for (const Site& site : projections(*bench, globs, "lora")) names.push_back(site.name);
  return names;
}

template <class F>
std::string text_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

using Names = std::vector<std::string>;

TEST(Projections, AreTakenOnceInModelOrderWithoutOtherSites) {
  EXPECT_EQ(chosen({"enc.1.ffn.*", "enc.[01].ffn.up"}),
            (Names{"enc.0.ffn.up", "enc.1.ffn.up", "enc.1.ffn.down"}));
  EXPECT_EQ(chosen({"enc.0.self.[on]*"}), (Names{"enc.0.self.o"}));
}

TEST(Projections, AGlobOfOtherSitesNamesTheMethodAndNearProjections) {
  EXPECT_EQ(text_of([] {
              chosen({"*.self.q", "enc.0.self.norm"});
            }),
            "lora: the site pattern \"enc.0.self.norm\" matches enc.0.self.norm, but no "
            "projection; this method adapts projections, the nearest of this model are "
            "enc.0.self.o, enc.0.self.q, enc.0.self.k, enc.0.self.v, enc.1.self.o");
}

TEST(Projections, AGlobThatMatchesNothingShowsNearNames) {
  EXPECT_NE(text_of([] { chosen({"enc.0.self.zz"}); }).find("matches nothing in this model"),
            std::string::npos);
}

TEST(CheckRank, ARankAboveTheSmallerSideIsRefused) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  check_rank("dora", 6, bench->site("enc.0.ffn.up"));
  EXPECT_EQ(text_of([&] { check_rank("dora", 7, bench->site("enc.0.ffn.up")); }),
            "dora: rank 7 at enc.0.ffn.up is larger than the matrix [8, 6]; give a rank of at "
            "most 6");
}

TEST(KaimingBound, IsThatOfTorchsLinearLayer) {
  EXPECT_DOUBLE_EQ(kaiming_bound(16), 0.25);
}

}  // namespace common_test
}  // namespace attune
