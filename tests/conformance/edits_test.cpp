// What each verb means, wherever it is carried out.
#include "base/text.h"
#include "methods.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"

namespace attune {
namespace edits_test {

using namespace tiny;

std::unique_ptr<Model> classifier(kernels::DType type = kernels::DType::F64) {
  return model_of("bert", {HeadKind::Sequence, 3, "pooler"}, type);
}

class Verbs : public ::testing::Test {
 protected:
  Verbs() : model_(classifier()), batch_(batch_of(*model_, {5, 1, 7, 3})) {}
  /// Runs `body` with one edit at a site.
  template <class Body>
  void with(const std::string& site, const Edit& edit, Body body) {
    const Edits edits(
        *model_, [&](Attachment& attachment) { attachment.add(attachment.sites(site)[0], edit); });
    body();
  }
  std::vector<Site> flow_sites() const {
    std::vector<Site> result;
    for (const Site& site : model_->sites())
      if (site.kind == SiteKind::Rows || site.kind == SiteKind::Heads) result.push_back(site);
    return result;
  }
  std::unique_ptr<Model> model_;
  Batch batch_;
};

TEST_F(Verbs, WhatObserveSeesIsWhatIsCaptured) {
  const Values captured = everything(*model_, batch_);
  Values seen;
  const Edits edits(*model_, [&](Attachment& attachment) {
    for (const Site& site : flow_sites())
      attachment.add(site, Observe{[&seen, name = site.name](const View& view) {
                                     seen[name] = view.x.clone();
                                   },
                                   {}});
  });
  EXPECT_EQ(logits(*model_, batch_).size(0), 4);
  EXPECT_EQ(seen.size(), flow_sites().size());
  EXPECT_TRUE(same(seen, captured));
}

TEST_F(Verbs, ARecomputedBlockRunsItsFunctionsAgainInTheBackwardPass) {
  for (const int recompute : {0, -1, 1}) {
    HeadRequest head;
    head.kind = HeadKind::Sequence;
    head.labels = 3;
    const std::unique_ptr<Model> model =
        model_of("bert", head, kernels::DType::F64, Json::object(), recompute);
    std::map<std::string, int> runs;
    const Edits edits(*model, [&](Attachment& attachment) {
      attachment.thaw(attachment.sites("enc.0.self.q")[0], {}, Part::Weight);
      for (const char* name : {"enc.0.ffn.out", "enc.1.ffn.out"})
        attachment.add(attachment.sites(name)[0], Apply{[&runs, name](const View& view) {
                                                          ++runs[name];
                                                          return view.x;
                                                        },
                                                        {}});
    });
    backward(loss(*model, training(batch_)), recompute != 0);
    EXPECT_EQ(runs["enc.0.ffn.out"], recompute == 0 ? 1 : 2) << recompute;
    EXPECT_EQ(runs["enc.1.ffn.out"], recompute == -1 ? 2 : 1) << recompute;
  }
}

TEST_F(Verbs, ASiteReadByAnotherArrivesUnchanged) {
  const Values captured = everything(*model_, batch_);
  Tensor read;
  const Edits edits(*model_, [&](Attachment& attachment) {
    attachment.add(attachment.sites("enc.1.ffn.out")[0],
                   Apply{[&read](const View& view) {
                           read = view.reads.at("enc.0.resid.mid");
                           return view.x;
                         },
                         {"enc.0.resid.mid"}});
  });
  const Values values = everything(*model_, batch_);
  EXPECT_TRUE(same_bits(read, captured.at("enc.0.resid.mid")));
  EXPECT_TRUE(same(values, captured));
}

TEST_F(Verbs, ApplyReplacesTheValueAtEverySite) {
  const Values before = everything(*model_, batch_);
  for (const Site& site : flow_sites()) {
    with(site.name, Apply{[](const View& view) { return view.x * 2.0 + 1.0; }, {}}, [&] {
      const Values after = everything(*model_, batch_);
      EXPECT_LE(distance(after.at(site.name), before.at(site.name) * 2.0 + 1.0), 1e-14)
          << site.name;
      EXPECT_GT(distance(after.at("logits"), before.at("logits")), 1e-6)
          << site.name << " leads nowhere";
    });
  }
}

TEST_F(Verbs, ApplySeesTheRowsOfItsSequences) {
  std::vector<int64_t> sequences, rows;
  const Edits edits(*model_, [&](Attachment& attachment) {
    for (const char* site : {"enc.0.resid.out", "head.in"})
      attachment.add(attachment.sites(site)[0],
                     Observe{[&](const View& view) {
                               sequences.push_back(view.rows.sequences());
                               rows.push_back(view.rows.rows());
                             },
                             {}});
  });
  logits(*model_, batch_);
  EXPECT_EQ(sequences, (std::vector<int64_t>{4, 4}));
  EXPECT_EQ(rows, (std::vector<int64_t>{16, 4}));
}

TEST_F(Verbs, AFunctionThatChangesTheShapeIsRefused) {
  with("enc.0.self.heads", Apply{[](const View& view) { return view.x.slice(0, 0, 1); }, {}}, [&] {
    const std::string text = error_text(ErrorCode::Internal, [&] { logits(*model_, batch_); });
    EXPECT_NE(text.find("enc.0.self.heads"), std::string::npos) << text;
  });
}

TEST_F(Verbs, ScaleAndShiftAtRowsAndHeadsAreElementwise) {
  const Values before = everything(*model_, batch_);
  for (const Site& site : flow_sites()) {
    std::vector<int64_t> shape{site.out};
    if (site.kind == SiteKind::Heads) shape = {site.heads, site.out / site.heads};
    const Tensor by = noise("by", shape, 1);
    const Tensor x = before.at(site.name);
    with(site.name, Scale{Tensor(), by}, [&] {
      EXPECT_LE(distance(everything(*model_, batch_).at(site.name), x * by), 1e-14) << site.name;
    });
    with(site.name, Shift{by}, [&] {
      EXPECT_LE(distance(everything(*model_, batch_).at(site.name), x + by), 1e-14) << site.name;
    });
    with(site.name, Shift{by.reshape({-1})}, [&] {
      EXPECT_LE(distance(everything(*model_, batch_).at(site.name), x + by), 1e-14) << site.name;
    });
    const Tensor rows = noise("rows", {x.size(0), site.out}, 1);
    with(site.name, Shift{rows}, [&] {
      EXPECT_LE(distance(everything(*model_, batch_).at(site.name), x + rows.reshape(x.sizes())),
                1e-14)
          << site.name;
    });
  }
}

TEST_F(Verbs, ScaleAndShiftAtAWeightActOnItsInputAndOutput) {
  const Site& site = model_->site("enc.1.ffn.down");
  const WeightSlot& slot = model_->slot(site);
  const Tensor in = noise("in", {site.in}, 1), out = noise("out", {site.out}, 1);
  const Values before = everything(*model_, batch_);
  const Tensor x = before.at("enc.1.ffn.hidden"), y = before.at("enc.1.ffn.out");
  with(site.name, Scale{in, out}, [&] {
    const Tensor expected = out * (attune::matmul(x * in, slot.weight, false, true) + slot.bias);
    EXPECT_LE(distance(everything(*model_, batch_).at("enc.1.ffn.out"), expected), 1e-13);
  });
  with(site.name, Scale{Tensor(), out}, [&] {
    EXPECT_LE(distance(everything(*model_, batch_).at("enc.1.ffn.out"), out * y), 1e-13);
  });
  with(site.name, Shift{out}, [&] {
    EXPECT_LE(distance(everything(*model_, batch_).at("enc.1.ffn.out"), y + out), 1e-13);
  });
  with(site.name, LowRank{noise("down", {2, site.in}, 1), noise("up", {site.out, 2}, 1), 0.5, 0},
       [&] {
         const Tensor inner = attune::matmul(x, noise("down", {2, site.in}, 1), false, true);
         const Tensor expected =
             y + attune::matmul(inner, noise("up", {site.out, 2}, 1), false, true) * 0.5;
         EXPECT_LE(distance(everything(*model_, batch_).at("enc.1.ffn.out"), expected), 1e-13);
       });
}

TEST_F(Verbs, EditsAtANormFoldIntoItsScaleAndBias) {
  const Tensor by = noise("by", {16}, 1);
  const Tensor y = everything(*model_, batch_).at("enc.0.resid.mid");
  with("enc.0.self.norm", Scale{Tensor(), by}, [&] {
    EXPECT_LE(distance(everything(*model_, batch_).at("enc.0.resid.mid"), y * by), 1e-13);
  });
  with("enc.0.self.norm", Shift{by}, [&] {
    EXPECT_LE(distance(everything(*model_, batch_).at("enc.0.resid.mid"), y + by), 1e-13);
  });
}

TEST_F(Verbs, GradientsReachWhatEveryVerbHolds) {
  Edits edits(*model_, [&](Attachment& attachment) {
    const Site q = attachment.sites("enc.0.self.q")[0],
               rows = attachment.sites("enc.0.resid.mid")[0],
               heads = attachment.sites("enc.1.self.heads")[0];
    const std::function<Tensor(const Site&, const char*, std::vector<int64_t>)> made =
        [&](const Site& site, const char* name, const std::vector<int64_t>& shape) {
          return attachment.parameter(site, name, noise(name, shape, 0.3) + 1.0);
        };
    attachment.add(q, Scale{made(q, "in", {16}), made(q, "out", {16})});
    attachment.add(q, LowRank{made(q, "down", {2, 16}), made(q, "up", {16, 2}), 0.5, 0});
    attachment.add(q, Shift{made(q, "by", {16})});
    const Tensor factor = made(q, "factor", {16, 16});
    attachment.add(q, Reweight{[factor](const Tensor& w) { return w * factor; }});
    attachment.add(q, LowRank{made(q, "down2", {2, 16}), made(q, "up2", {16, 2}), 0.5, 0});
    attachment.add(rows, Scale{Tensor(), made(rows, "scale", {16})});
    const Tensor mix = made(rows, "mix", {16, 16});
    attachment.add(rows,
                   Apply{[mix](const View& view) { return attune::matmul(view.x, mix); }, {}});
    attachment.add(heads, Shift{made(heads, "shift", {2, 8})});
    attachment.add(heads, Scale{Tensor(), made(heads, "heads", {2, 8})});
  });
  check_gradients(*model_, *edits, batch_, 2);
}

TEST(Fold, EqualsTheEditsRunOneAfterAnother) {
  const std::unique_ptr<Model> model = classifier();
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const Site site = model->site("enc.1.ffn.down");
  const Tensor x = everything(*model, batch).at("enc.1.ffn.hidden");
  for (int sequence = 0; sequence < 200; ++sequence) {
    const Stream64 stream(static_cast<uint64_t>(sequence), "edits");
    const int length = 1 + static_cast<int>(stream.below(0, 6));
    std::vector<Edit> list;
    for (int i = 0; i < length; ++i) {
      const std::string key = format("{}/{}", sequence, i);
      switch (stream.below(static_cast<uint64_t>(i + 1), 6)) {
        case 0:
        case 1:
          list.push_back(LowRank{noise(key + "down", {3, site.in}, 0.3),
                                 noise(key + "up", {site.out, 3}, 0.3), 0.7, 0});
          break;
        case 2:
          list.push_back(Scale{noise(key + "in", {site.in}, 0.3) + 1.0, Tensor()});
          break;
        case 3:
          list.push_back(Scale{noise(key + "in", {site.in}, 0.3) + 1.0,
                               noise(key + "out", {site.out}, 0.3) + 1.0});
          break;
        case 4:
          list.push_back(Shift{noise(key + "by", {site.out}, 0.5)});
          break;
        default: {
          const Tensor left = noise(key + "left", {site.out, site.out}, 0.3);
          list.push_back(Reweight{[left](const Tensor& w) { return attune::matmul(left, w); }});
        }
      }
    }
    Affine map{model->slot(site).weight, model->slot(site).bias};
    for (const Edit& edit : list) map = fold(map, edit);
    const Tensor expected = attune::matmul(x, map.weight, false, true) + map.bias;
    Edits edits(*model, [&](Attachment& attachment) {
      for (const Edit& edit : list) attachment.add(attachment.sites(site.name)[0], edit);
    });
    EXPECT_LE(distance(everything(*model, batch).at("enc.1.ffn.out"), expected), 1e-12)
        << "sequence " << sequence;
    const Tensor unmerged = logits(*model, batch);
    edits->merge("default");
    EXPECT_LE(distance(logits(*model, batch), unmerged), 1e-12) << "merge of sequence " << sequence;
  }
}

TEST_F(Verbs, ASiteThatDoesNotAdmitTheVerbRefusesIt) {
  const std::string text = error_text(ErrorCode::BadInput, [&] {
    with("enc.0.resid.mid", LowRank{noise("a", {2, 16}, 1), noise("b", {16, 2}, 1), 1, 0}, [] {});
  });
  EXPECT_NE(text.find("enc.0.resid.mid (rows) does not admit LowRank"), std::string::npos) << text;
  EXPECT_TRUE(model_->plan().empty());
}

TEST_F(Verbs, WhatDoesNotFoldKeepsTheWeightsAndIsNamed) {
  Edits edits(*model_, [&](Attachment& attachment) {
    attachment.add(attachment.sites("enc.0.self.q")[0], Shift{noise("by", {16}, 1)});
    attachment.add(attachment.sites("enc.0.resid.mid")[0],
                   Apply{[](const View& view) { return view.x; }, {}});
  });
  const Values before = base_tensors(*model_);
  const std::string text = error_text(ErrorCode::Unsupported, [&] { edits->merge("default"); });
  EXPECT_NE(text.find("Apply of edits at enc.0.resid.mid"), std::string::npos) << text;
  EXPECT_TRUE(same(base_tensors(*model_), before));
}

TEST_F(Verbs, WantingWhatHasNoValueIsRefused) {
  const std::string text = error_text(ErrorCode::Unsupported, [&] {
    model_->forward(batch_, {{"enc.0.self.q"}, true});
  });
  EXPECT_NE(text.find("capturing enc.0.self.q"), std::string::npos) << text;
  const std::string none = error_text(ErrorCode::BadInput, [&] {
    model_->forward(batch_, {{"enc.9.*"}, true});
  });
  EXPECT_NE(none.find("\"enc.9.*\" matches nothing"), std::string::npos) << none;
}

}  // namespace edits_test
}  // namespace attune
