// The verbs that change rows, look inside attention or make mixtures, and adapter sets by sequence:
// each against the same thing computed another way.
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tiny.h"

namespace attune {
namespace verbs_test {

using namespace tiny;

std::unique_ptr<Model> classifier(kernels::DType type = kernels::DType::F64) {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  return model_of("bert", head, type);
}

class RowVerbs : public ::testing::Test {
 protected:
  RowVerbs() : model_(classifier()), batch_(batch_of(*model_, {5, 1, 7, 3})) {}
  std::unique_ptr<Model> model_;
  Batch batch_;
};

Edits at_site(Model& model, const std::string& name, const Edit& edit) {
  return Edits(model,
               [&](Attachment& attachment) { attachment.add(attachment.sites(name)[0], edit); });
}

/// A batch whose texts begin with the given tokens.
Batch with_tokens_in_front(const Batch& batch, const std::vector<int32_t>& tokens) {
  const Stream& stream = batch.streams.at("enc");
  Stream longer;
  std::vector<int32_t> ids;
  std::vector<int64_t> lengths;
  const int32_t* given = static_cast<const int32_t*>(stream.ids.data_ptr());
  for (int64_t b = 0; b < stream.rows.sequences(); ++b) {
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    ids.insert(ids.end(), given + stream.rows.begin(b), given + stream.rows.end(b));
    lengths.push_back(stream.rows.length(b) + static_cast<int64_t>(tokens.size()));
  }
  longer.ids = int32_tensor(ids);
  longer.rows = RowIndex::from_lengths(lengths);
  Batch result = batch;
  result.streams["enc"] = longer;
  return result;
}

Batch without_types(Batch batch) {
  batch.streams["enc"].types = Tensor();
  return batch;
}

TEST_F(RowVerbs, PromptRowsOfTokensEqualThoseTokens) {
  const std::vector<int32_t> tokens{7, 3, 11};
  const Tensor rows = model_->slot(model_->site("enc.embed.tok"))
                          .weight.index_select(0, int32_tensor(tokens).to(at::kLong));
  const Batch plain = without_types(batch_);
  const Batch longer = with_tokens_in_front(plain, tokens);
  const Tensor expected = logits(*model_, longer);
  const Values inside = everything(*model_, longer);
  Extend extend;
  extend.rows = rows;
  extend.pooled = true;  // the head of the longer text pools its first row
  Edits edits = at_site(*model_, "enc.embed.rows", extend);
  EXPECT_LE(distance(logits(*model_, plain), expected), 1e-13);
  // What is captured has no added rows, and the others are those of the longer texts.
  const Tensor got = everything(*model_, plain).at("enc.1.resid.out");
  const Tensor whole = inside.at("enc.1.resid.out");
  ASSERT_EQ(got.size(0), plain.streams.at("enc").rows.rows());
  const RowIndex& long_rows = longer.streams.at("enc").rows;
  EXPECT_LE(distance(got.narrow(0, 0, 5), whole.narrow(0, long_rows.begin(0) + 3, 5)), 1e-13);
  EXPECT_LE(distance(got.narrow(0, 6, 7), whole.narrow(0, long_rows.begin(2) + 3, 7)), 1e-13);
}

TEST_F(RowVerbs, ACutInFrontOfTheBlocksSeesThePromptsAndTheHeadDoesNot) {
  Extend extend;
  extend.rows = noise("prompt", {2, 16}, 1);
  const Tensor plain = logits(*model_, batch_);
  Edits edits = at_site(*model_, "enc.1.resid.in", extend);
  const Tensor changed = logits(*model_, batch_);
  EXPECT_GT(distance(changed, plain), 1e-6);
  for (int64_t b = 0; b < 4; ++b)
    EXPECT_LE(distance(logits(*model_, single(*model_, batch_, b)), changed.narrow(0, b, 1)),
              1e-13);
}

TEST_F(RowVerbs, NoPromptRowsChangeNothing) {
  Extend rows, keys;
  rows.rows = at::zeros({0, 16}, at::kDouble);
  keys.keys = keys.values = at::zeros({0, 16}, at::kDouble);
  const Tensor plain = logits(*model_, batch_);
  {
    Edits edits = at_site(*model_, "enc.embed.out", rows);
    EXPECT_TRUE(same_bits(logits(*model_, batch_), plain));
  }
  Edits edits = at_site(*model_, "enc.0.self.kv", keys);
  EXPECT_TRUE(same_bits(logits(*model_, batch_), plain));
}

/// Softmax attention of one block with prefixes, by a plain loop over heads.
Tensor prefixed_heads(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& prefix_k,
                      const Tensor& prefix_v) {
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < 2; ++h) {
    const Tensor keys = at::cat({prefix_k, k}).narrow(1, h * 8, 8);
    const Tensor values = at::cat({prefix_v, v}).narrow(1, h * 8, 8);
    const Tensor scores =
        (q.narrow(1, h * 8, 8).unsqueeze(1) * keys.unsqueeze(0)).sum(-1) / std::sqrt(8.0);
    const Tensor probs = scores.softmax(-1);
    heads.push_back((probs.unsqueeze(-1) * values.unsqueeze(0)).sum(1));
  }
  return at::cat(heads, 1);
}

TEST_F(RowVerbs, PrefixesJoinTheKeysAndValuesOfEverySequence) {
  Extend extend;
  extend.keys = noise("k", {3, 16}, 1);
  extend.values = noise("v", {3, 16}, 1);
  extend.shift = false;
  const Tensor x = everything(*model_, batch_).at("enc.0.self.in");
  const auto projected = [&](const char* name) {
    const WeightSlot& slot = model_->slot(model_->site(name));
    return attune::matmul(x, slot.weight, false, true) + slot.bias;
  };
  const Tensor q = projected("enc.0.self.q"), k = projected("enc.0.self.k"),
               v = projected("enc.0.self.v");
  Edits edits = at_site(*model_, "enc.0.self.kv", extend);
  const Tensor heads = everything(*model_, batch_).at("enc.0.self.heads").reshape({-1, 16});
  const RowIndex& rows = batch_.streams.at("enc").rows;
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    const int64_t begin = rows.begin(b), count = rows.length(b);
    EXPECT_LE(distance(heads.narrow(0, begin, count),
                       prefixed_heads(q.narrow(0, begin, count), k.narrow(0, begin, count),
                                      v.narrow(0, begin, count), extend.keys, extend.values)),
              1e-12);
  }
}

TEST_F(RowVerbs, AGateMultipliesAPrefixBySequence) {
  Extend gated, plain;
  gated.keys = plain.keys = noise("k", {3, 16}, 1);
  gated.values = plain.values = noise("v", {3, 16}, 1);
  gated.gate = [](const View& view) {
    return at::full({view.rows.sequences(), 1}, 0.25, view.x.options());
  };
  plain.keys = plain.keys * 0.25;
  plain.values = plain.values * 0.25;
  Tensor expected;
  {
    Edits edits = at_site(*model_, "enc.0.self.kv", plain);
    expected = logits(*model_, batch_);
  }
  Edits edits = at_site(*model_, "enc.0.self.kv", gated);
  EXPECT_LE(distance(logits(*model_, batch_), expected), 1e-13);
}

TEST_F(RowVerbs, RowsThatLeaveAreNoLongerAttendedTo) {
  // Leaving before the first block equals never having been there, at the others' positions.
  const Keep keep{[](const View& view) {
                    Tensor mask = at::ones({view.x.size(0)}, at::kBool);
                    for (int64_t b = 0; b < view.rows.sequences(); ++b)
                      for (int64_t r = view.rows.begin(b) + 1; r < view.rows.end(b); r += 2)
                        mask[r] = false;
                    return mask;
                  },
                  {}};
  const Stream& all = batch_.streams.at("enc");
  std::vector<int32_t> ids, types, positions;
  std::vector<int64_t> lengths;
  const int32_t* given = static_cast<const int32_t*>(all.ids.data_ptr());
  for (int64_t b = 0; b < all.rows.sequences(); ++b) {
    lengths.push_back((all.rows.length(b) + 1) / 2);
    for (int64_t r = all.rows.begin(b); r < all.rows.end(b); r += 2) {
      ids.push_back(given[r]);
      types.push_back(all.types.defined() ? static_cast<const int32_t*>(all.types.data_ptr())[r]
                                          : 0);
      positions.push_back(static_cast<int32_t>(r - all.rows.begin(b)));
    }
  }
  Batch fewer = batch_;
  fewer.streams["enc"] = Stream{int32_tensor(ids), Tensor(), int32_tensor(types),
                                int32_tensor(positions), RowIndex::from_lengths(lengths)};
  const Tensor expected = logits(*model_, fewer);
  Edits edits = at_site(*model_, "enc.0.resid.in", keep);
  EXPECT_LE(distance(logits(*model_, batch_), expected), 1e-13);
}

TEST(TokenHead, RowsThatLeftComeBackAsTheyWere) {
  HeadRequest head;
  head.kind = HeadKind::Token;
  head.labels = 4;
  const std::unique_ptr<Model> model = model_of("bert", head);
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const Keep keep{[](const View& view) {
                    Tensor mask = at::zeros({view.x.size(0)}, at::kBool);
                    for (int64_t b = 0; b < view.rows.sequences(); ++b)
                      mask[view.rows.begin(b)] = true;
                    return mask;
                  },
                  {}};
  const Tensor before = everything(*model, batch).at("enc.0.resid.out");
  Edits edits = at_site(*model, "enc.1.resid.in", keep);
  const Values values = everything(*model, batch);
  const Tensor last = values.at("final");
  ASSERT_EQ(last.size(0), before.size(0));
  EXPECT_TRUE(same_bits(last.narrow(0, 1, 4), before.narrow(0, 1, 4)));
  EXPECT_FALSE(same_bits(last.narrow(0, 0, 1), before.narrow(0, 0, 1)));
  EXPECT_EQ(values.at("logits").size(0), before.size(0));
}

TEST_F(RowVerbs, KeepingNothingOfASequenceIsRefused) {
  const Keep none{[](const View& view) { return at::zeros({view.x.size(0)}, at::kBool); }, {}};
  Edits edits = at_site(*model_, "enc.0.resid.in", none);
  try {
    logits(*model_, batch_);
    FAIL() << "it was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("Keep must leave every sequence at least one row"),
              std::string::npos)
        << error.what();
  }
}

class InsideAttention : public RowVerbs {};

TEST_F(InsideAttention, TheReferenceFormEqualsTheFusedKernel) {
  const Tensor fused = logits(*model_, batch_);
  Edits edits(*model_, [](Attachment& attachment) {
    for (const Site& site : attachment.sites("*.self.probs"))
      attachment.add(site, Observe{[](const View&) {}, {}});
  });
  EXPECT_LE(distance(logits(*model_, batch_), fused), 1e-13);
}

TEST_F(InsideAttention, ProbabilitiesAreThoseOfOneSequenceAndSumToOne) {
  std::vector<Tensor> seen;
  Edits edits = at_site(*model_, "enc.1.self.probs",
                        Observe{[&](const View& view) { seen.push_back(view.x); }, {}});
  logits(*model_, batch_);
  ASSERT_EQ(seen.size(), 4U);
  EXPECT_EQ(seen[2].sizes().vec(), (std::vector<int64_t>{2, 7, 7}));
  EXPECT_LE((seen[2].sum(-1) - 1).abs().max().item<double>(), 1e-12);
}

TEST_F(InsideAttention, AMaskOnScoresHidesTheKeyAsIfItWereNotThere) {
  // Hiding the last key of every sequence in both blocks: the other rows are as without that token.
  Edits edits(*model_, [](Attachment& attachment) {
    for (const Site& site : attachment.sites("*.self.scores"))
      attachment.add(site, Apply{[](const View& view) {
                                   Tensor hidden = at::zeros_like(view.x);
                                   if (view.x.size(2) > 1)
                                     hidden.select(2, view.x.size(2) - 1).fill_(-1e300);
                                   return view.x + hidden;
                                 },
                                 {}});
  });
  const Tensor masked = logits(*model_, single(*model_, batch_, 0));
  const Batch alone = single(*model_, batch_, 0);
  Batch shorter = alone;
  Stream& stream = shorter.streams["enc"];
  stream.ids = stream.ids.narrow(0, 0, 4).contiguous();
  if (stream.types.defined()) stream.types = stream.types.narrow(0, 0, 4).contiguous();
  stream.rows = RowIndex::from_lengths({4});
  edits->enable("default", false);
  EXPECT_LE(distance(masked, logits(*model_, shorter)), 1e-12);
}

TEST_F(InsideAttention, FunctionsAtKeysAndValuesSeeBothSideBySide) {
  const Tensor plain = logits(*model_, batch_);
  const Tensor factor = noise("f", {32}, 0.2) + 1.0;
  Tensor expected;
  {
    Edits edits(*model_, [&](Attachment& attachment) {
      attachment.add(attachment.sites("enc.0.self.k")[0], Scale{Tensor(), factor.narrow(0, 0, 16)});
      attachment.add(attachment.sites("enc.0.self.v")[0],
                     Scale{Tensor(), factor.narrow(0, 16, 16)});
    });
    expected = logits(*model_, batch_);
  }
  Edits edits = at_site(*model_, "enc.0.self.kv",
                        Apply{[&](const View& view) { return view.x * factor; }, {}});
  EXPECT_LE(distance(logits(*model_, batch_), expected), 1e-13);
  EXPECT_GT(distance(expected, plain), 1e-6);
}

class Tables : public RowVerbs {};

TEST_F(Tables, EditsAtATableEqualTheEditedTable) {
  const Site site = model_->site("enc.embed.tok");
  const Tensor down = noise("down", {3, site.in}, 0.3), up = noise("up", {16, 3}, 0.3),
               out = noise("out", {16}, 0.3) + 1.0, by = noise("by", {16}, 0.5);
  WeightSlot& slot = model_->slot(site);
  const Tensor base = slot.weight;
  slot.weight = (base + attune::matmul(up, down).t() * 0.5) * out + by;
  const Tensor expected = logits(*model_, batch_);
  slot.weight = base;
  Edits edits(*model_, [&](Attachment& attachment) {
    attachment.add(site, LowRank{down, up, 0.5, 0});
    attachment.add(site, Scale{Tensor(), out});
    attachment.add(site, Shift{by});
  });
  EXPECT_LE(distance(logits(*model_, batch_), expected), 1e-13);
}

TEST_F(Tables, AReweightAtATableIsFoldedAndItsGradientsAreRight) {
  Edits edits(*model_, [&](Attachment& attachment) {
    const Site site = attachment.sites("enc.embed.pos")[0];
    const Tensor factor =
        attachment.parameter(site, "factor", noise("factor", {site.in, 1}, 0.2) + 1.0);
    attachment.add(site, Reweight{[factor](const Tensor& w) { return w * factor; }});
    const Site tokens = attachment.sites("enc.embed.tok")[0];
    const Tensor down = attachment.parameter(tokens, "down", noise("d", {2, tokens.in}, 0.3));
    const Tensor up = attachment.parameter(tokens, "up", noise("u", {16, 2}, 0.3));
    attachment.add(tokens, LowRank{down, up, 1, 0});
  });
  check_gradients(*model_, *edits, batch_, 3);
}

TEST_F(RowVerbs, GradientsReachPromptsPrefixesAndGates) {
  Edits edits(*model_, [&](Attachment& attachment) {
    const Site rows = attachment.sites("enc.embed.rows")[0],
               kv = attachment.sites("enc.0.self.kv")[0];
    Extend prompt, prefix;
    prompt.rows = attachment.parameter(rows, "prompt", noise("p", {2, 16}, 1));
    prefix.keys = attachment.parameter(kv, "keys", noise("k", {2, 16}, 1));
    prefix.values = attachment.parameter(kv, "values", noise("v", {2, 16}, 1));
    const Tensor gate = attachment.parameter(kv, "gate", noise("g", {16}, 0.3));
    prefix.gate = [gate](const View& view) {
      std::vector<Tensor> means;
      for (int64_t b = 0; b < view.rows.sequences(); ++b)
        means.push_back(view.x.narrow(0, view.rows.begin(b), view.rows.length(b)).mean(0));
      return (at::stack(means) * gate).sum(1).sigmoid();
    };
    attachment.add(rows, prompt);
    attachment.add(kv, prefix);
    attachment.add(attachment.sites("enc.1.resid.in")[0],
                   Keep{[](const View& view) {
                          Tensor mask = at::ones({view.x.size(0)}, at::kBool);
                          for (int64_t b = 0; b < view.rows.sequences(); ++b)
                            if (view.rows.length(b) > 3) mask[view.rows.end(b) - 1] = false;
                          return mask;
                        },
                        {}});
  });
  check_gradients(*model_, *edits, batch_, 3);
}

}  // namespace verbs_test
}  // namespace attune
