#include "core/plan.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "core/edit.h"
#include "core/site.h"
#include "tensor/torch.h"

namespace attune {
namespace plan_test {

Site site_of(const std::string& name, SiteKind kind, WeightKind weight = WeightKind::None) {
  Site site;
  site.name = name;
  site.kind = kind;
  site.weight = weight;
  site.in = site.out = 4;
  return site;
}

TEST(Plan, ASiteThatNobodyNeedsIsNull) {
  Plan plan;
  EXPECT_TRUE(plan.empty());
  EXPECT_EQ(plan.at(3), nullptr);
  plan.need(5).read = true;
  EXPECT_FALSE(plan.empty());
  EXPECT_EQ(plan.at(4), nullptr);
  ASSERT_NE(plan.at(5), nullptr);
  EXPECT_TRUE(plan.at(5)->read);
  EXPECT_EQ(plan.at(600), nullptr);
  EXPECT_EQ(&plan.need(5), plan.at(5));
  plan.clear();
  EXPECT_TRUE(plan.empty());
}

TEST(Plan, OnlyLowRankHoldsWhenEveryEditIsOne) {
  const Edit low = LowRank{}, shift = Shift{};
  SitePlan plan;
  EXPECT_TRUE(plan.only_low_rank());
  plan.edits.push_back({&low, "lora", 0});
  EXPECT_TRUE(plan.only_low_rank());
  plan.edits.push_back({&shift, "bias", 0});
  EXPECT_FALSE(plan.only_low_rank());
}

/// Letters of the verbs a site admits, in the order of the variant.
std::string admitted(const Site& site) {
  const std::vector<std::pair<char, Edit>> verbs{{'L', LowRank{}},
                                                 {'S', Scale{Tensor(), at::ones({4})}},
                                                 {'i', Scale{at::ones({4}), Tensor()}},
                                                 {'+', Shift{}},
                                                 {'W', Reweight{}},
                                                 {'A', Apply{}},
                                                 {'O', Observe{}},
                                                 {'E', Extend{}},
                                                 {'K', Keep{}},
                                                 {'R', Route{}}};
  std::string letters;
  for (const std::pair<char, Edit>& verb : verbs)
    if (admits(site, verb.second)) letters += verb.first;
  return letters;
}

TEST(Admits, FollowsTheTableOfSites) {
  EXPECT_EQ(admitted(site_of("enc.0.self.q", SiteKind::Weight, WeightKind::Projection)), "LSi+W");
  EXPECT_EQ(admitted(site_of("enc.embed.tok", SiteKind::Weight, WeightKind::Table)), "LSi+W");
  EXPECT_EQ(admitted(site_of("enc.0.self.norm", SiteKind::Weight, WeightKind::Norm)), "S+W");
  EXPECT_EQ(admitted(site_of("head.bias", SiteKind::Weight, WeightKind::Vector)), "S+W");
  EXPECT_EQ(admitted(site_of("enc.0.ffn.hidden", SiteKind::Rows)), "S+AO");
  EXPECT_EQ(admitted(site_of("enc.embed.out", SiteKind::Rows)), "S+AOE");
  EXPECT_EQ(admitted(site_of("enc.0.resid.in", SiteKind::Rows)), "S+AOEK");
  EXPECT_EQ(admitted(site_of("enc.0.resid.mid", SiteKind::Rows)), "S+AOK");
  EXPECT_EQ(admitted(site_of("enc.0.self.heads", SiteKind::Heads)), "S+AO");
  EXPECT_EQ(admitted(site_of("enc.0.self.scores", SiteKind::Scores)), "AO");
  EXPECT_EQ(admitted(site_of("enc.0.self.kv", SiteKind::KeyValue)), "AOE");
  EXPECT_EQ(admitted(site_of("enc.0.ffn", SiteKind::Part)), "R");
}

TEST(Folds, OnlyAffineVerbsAtWeightsDoAndAShiftNeedsABias) {
  const Site projection = site_of("enc.0.self.q", SiteKind::Weight, WeightKind::Projection);
  EXPECT_TRUE(folds(projection, LowRank{}, false));
  EXPECT_TRUE(folds(projection, Scale{}, false));
  EXPECT_TRUE(folds(projection, Reweight{}, false));
  EXPECT_FALSE(folds(projection, Shift{}, false));
  EXPECT_TRUE(folds(projection, Shift{}, true));
  EXPECT_FALSE(folds(site_of("enc.0.resid.mid", SiteKind::Rows), Shift{}, true));
  EXPECT_FALSE(folds(site_of("enc.0.resid.mid", SiteKind::Rows), Apply{}, true));
}

TEST(Sites, AGlobSelectsInModelOrder) {
  const std::vector<Site> sites{site_of("enc.0.self.v", SiteKind::Weight),
                                site_of("enc.0.self.q", SiteKind::Weight),
                                site_of("enc.0.ffn.up", SiteKind::Weight)};
  const std::vector<Site> found = select_sites(sites, "*.self.[qv]");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].name, "enc.0.self.v");
  EXPECT_EQ(found[1].name, "enc.0.self.q");
}

TEST(Sites, AGlobThatMatchesNothingShowsNearNames) {
  const std::vector<Site> sites{site_of("enc.0.self.q", SiteKind::Weight),
                                site_of("enc.0.ffn.up", SiteKind::Weight)};
  try {
    select_sites(sites, "enc.0.self.qq");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_STREQ(error.what(),
                 "the site pattern \"enc.0.self.qq\" matches nothing in this model; near names: "
                 "enc.0.self.q, "
                 "enc.0.ffn.up. `attune inspect MODEL` lists every site");
  }
}

}  // namespace plan_test
}  // namespace attune
