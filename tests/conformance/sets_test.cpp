// Mixtures of experts, and several adapter sets in one batch.
#include "methods.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tiny.h"

namespace attune {
namespace sets_test {

using namespace tiny;

std::unique_ptr<Model> classifier() {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  return model_of("bert", head);
}

class Mixtures : public ::testing::Test {
 protected:
  Mixtures() : model_(classifier()), batch_(batch_of(*model_, {5, 1, 7, 3})) {}
  std::unique_ptr<Model> model_;
  Batch batch_;
};

Fn fixed_gate(const std::vector<double>& weights) {
  return [weights](const View& view) {
    Tensor row = at::empty({1, static_cast<int64_t>(weights.size())}, at::kDouble);
    for (size_t i = 0; i < weights.size(); ++i) row[0][static_cast<int64_t>(i)] = weights[i];
    return row.expand({view.x.size(0), -1}).to(view.x.scalar_type());
  };
}

TEST_F(Mixtures, EqualCopiesWithWeightsThatSumToOneChangeNothing) {
  const Values plain = everything(*model_, batch_);
  for (const char* part : {"enc.0.ffn", "enc.1.self"}) {
    Edits edits(*model_, [&](Attachment& attachment) {
      attachment.route(attachment.sites(part)[0], Route{fixed_gate({0.3, 0.5, 0.2}), 3, 3});
    });
    EXPECT_LE(distance(everything(*model_, batch_).at("final"), plain.at("final")), 1e-13) << part;
  }
  EXPECT_TRUE(model_->plan().empty());
  EXPECT_TRUE(same(everything(*model_, batch_), plain));
}

TEST_F(Mixtures, EachCopyHasItsOwnEditsOnTopOfThoseOfThePart) {
  const Tensor first = noise("first", {16}, 0.3) + 1.0, second = noise("second", {16}, 0.3) + 1.0;
  const auto with = [&](const Tensor& by) {
    Edits edits(*model_, [&](Attachment& attachment) {
      attachment.add(attachment.sites("enc.0.ffn.down")[0], Shift{first});
      attachment.add(attachment.sites("enc.0.ffn.down")[0], Scale{Tensor(), by});
    });
    return everything(*model_, batch_).at("enc.0.ffn.out");
  };
  const Tensor expected = with(first) * 0.75 + with(second) * 0.25;
  Edits edits(*model_, [&](Attachment& attachment) {
    attachment.add(attachment.sites("enc.0.ffn.down")[0], Shift{first});
    const std::vector<std::vector<Site>> experts =
        attachment.route(attachment.sites("enc.0.ffn")[0], Route{fixed_gate({0.75, 0.25}), 2, 2});
    for (size_t e = 0; e < 2; ++e)
      for (const Site& site : experts[e])
        if (site.name.ends_with(".down"))
          attachment.add(site, Scale{Tensor(), e == 0 ? first : second});
    attachment.add(attachment.sites("enc.0.resid.out")[0], Observe{[](const View&) {}, {}});
  });
  std::vector<Tensor> sums;
  // resid.out = norm(ffn.out + resid.mid): compare through the sum the norm is given.
  const Values values = everything(*model_, batch_);
  const WeightSlot& norm = model_->slot(model_->site("enc.0.ffn.norm"));
  const Tensor sum = expected + values.at("enc.0.resid.mid");
  const Tensor centred = sum - sum.mean(-1, true);
  const Tensor normed =
      centred / (centred.square().mean(-1, true) + 1e-12).sqrt() * norm.weight + norm.bias;
  EXPECT_LE(distance(values.at("enc.0.resid.out"), normed), 1e-12);
}

TEST_F(Mixtures, OnlyTheTopCopiesOfARowRun) {
  int64_t rows_seen = 0;
  Edits edits(*model_, [&](Attachment& attachment) {
    const Fn gate = [](const View& view) {
      Tensor weights = at::zeros({view.x.size(0), 2}, view.x.options());
      for (int64_t r = 0; r < view.x.size(0); ++r) weights[r][r % 2] = 1.0;
      return weights;
    };
    const std::vector<std::vector<Site>> experts =
        attachment.route(attachment.sites("enc.0.ffn")[0], Route{gate, 2, 1});
    for (const Site& site : experts[1])
      if (site.name.ends_with(".hidden"))
        attachment.add(site, Observe{[&](const View& view) { rows_seen = view.x.size(0); }, {}});
  });
  logits(*model_, batch_);
  EXPECT_EQ(rows_seen, batch_.streams.at("enc").rows.rows() / 2);
}

TEST_F(Mixtures, TrainedCopiesKeepTheirOwnTensorsAndGradientsAreRight) {
  Edits edits(*model_, [&](Attachment& attachment) {
    const Site part = attachment.sites("enc.0.ffn")[0];
    const Tensor router = attachment.parameter(part, "router", noise("router", {2, 16}, 1));
    const Fn gate = [router](const View& view) {
      return attune::matmul(view.x, router, false, true).softmax(-1);
    };
    for (const std::vector<Site>& expert : attachment.route(part, Route{gate, 2, 2}))
      for (const Site& site : expert)
        if (site.name.ends_with(".down")) attachment.thaw(site);
  });
  EXPECT_EQ(edits->trainable().size(), 5U);
  disturb(*edits);
  check_gradients(*model_, *edits, batch_, 2);
}

TEST_F(Mixtures, TwoOfOnePartAreRefused) {
  try {
    Edits edits(*model_, [&](Attachment& attachment) {
      for (int i = 0; i < 2; ++i)
        attachment.route(attachment.sites("enc.0.ffn")[0], Route{fixed_gate({1, 0}), 2, 1});
    });
    FAIL() << "it was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("both make a mixture of enc.0.ffn"), std::string::npos)
        << error.what();
  }
}

TEST_F(Mixtures, MoreActiveCopiesThanCopiesAreRefused) {
  try {
    Edits edits(*model_, [&](Attachment& attachment) {
      attachment.route(attachment.sites("enc.0.ffn")[0], Route{fixed_gate({1, 0}), 2, 3});
    });
    FAIL() << "it was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("a mixture of 2 experts of which 3 act"),
              std::string::npos)
        << error.what();
  }
}

/// Sets of one batch: every method beside a low-rank set and none, mixed over the sequences.
class SetsInOneBatch : public MethodTest {};

TEST_P(SetsInOneBatch, EachSequenceIsAsWithItsSetAlone) {
  Adaptation adaptation(*model_, registry_, 1);
  adaptation.add("a", spec());
  adaptation.add("b", {"lora", Json{{"sites", {"*.self.[qv]", "*.ffn.down"}}, {"rank", 2}}});
  disturb(adaptation);
  std::map<int32_t, Tensor> alone;
  for (const int32_t set : {-1, 0, 1}) {
    adaptation.enable("a", set == 0);
    adaptation.enable("b", set == 1);
    alone[set] = logits(*model_, batch_);
  }
  const std::vector<int32_t> mixed{0, 1, -1, 0, 1, 0};
  Batch batch = batch_;
  batch.sets = int32_tensor(mixed);
  Tensor together;
  try {
    together = logits(*model_, batch);
  } catch (const Error& error) {
    ASSERT_EQ(error.code(), ErrorCode::Unsupported) << error.what();
    GTEST_SKIP() << error.what();
  }
  for (size_t b = 0; b < mixed.size(); ++b)
    EXPECT_LE(distance(together.narrow(0, static_cast<int64_t>(b), 1),
                       alone[mixed[b]].narrow(0, static_cast<int64_t>(b), 1)),
              1e-12)
        << "sequence " << b;
}

INSTANTIATE_TEST_SUITE_P(Every, SetsInOneBatch, ::testing::ValuesIn(every_case()), case_name);

}  // namespace sets_test
}  // namespace attune
