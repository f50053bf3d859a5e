// Adapter sets that train the same tensors of the base: their changes add up (theta0 + sum phi).
#include "methods.h"
#include "tensor/autograd.h"

namespace attune {
namespace summed_sets_test {

using namespace tiny;

const TunerSpec kBody{"full", Json{{"sites", {"enc.*"}}}};
const TunerSpec kQueries{"full", Json{{"sites", {"*.self.q", "enc.embed.*"}}}};

std::unique_ptr<Model> classifier() {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  return model_of("bert", head);
}

class SummedSets : public ::testing::Test {
 protected:
  SummedSets() : registry_(methods()), model_(classifier()), batch_(batch_of(*model_, {5, 1, 7})) {
    adaptation_ = std::make_unique<Adaptation>(*model_, registry_, 1);
    for (size_t i = 0; i < model_->slots(); ++i) model_->slot_at(i).fresh = false;
  }
  void add(const std::string& set, const TunerSpec& spec) { adaptation_->add(set, spec); }
  /// Logits of a model whose own tensors are theta0 + sum over sets of factor (theta_set - theta0).
  Tensor expected(const std::map<std::string, double>& factors) {
    const std::unique_ptr<Model> plain = classifier();
    for (const std::pair<const std::string, double>& factor : factors)
      for (const std::pair<std::string, Tensor>& entry : adaptation_->tensors(factor.first)) {
        const std::vector<std::string> parts = split(entry.first, '/');
        const Site& site = plain->site(parts[1]);
        const WeightSlot& base = model_->slot(model_->site(parts[1]));
        WeightSlot& slot = plain->slot(site);
        const bool weight = parts[2] == "weight";
        Tensor& value = weight ? slot.weight : slot.bias;
        value = value + (entry.second - (weight ? base.weight : base.bias)) * factor.second;
      }
    return logits(*plain, batch_);
  }

  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  Batch batch_;
  std::unique_ptr<Adaptation> adaptation_;
};

TEST_F(SummedSets, TheirChangesAddUpInAnyOrder) {
  add("a", kBody);
  add("b", kQueries);
  disturb(*adaptation_);
  const Tensor together = logits(*model_, batch_), sum = expected({{"a", 1}, {"b", 1}});
  EXPECT_LE(distance(together, sum), 1e-12);
  EXPECT_GT(distance(together, expected({{"a", 1}})), 1e-3);
  EXPECT_GT(distance(together, expected({{"b", 1}})), 1e-3);
  adaptation_->enable("a", false);
  EXPECT_LE(distance(logits(*model_, batch_), expected({{"b", 1}})), 1e-12);
  adaptation_->enable("a", true);
  disturb(*adaptation_);  // new values are seen
  EXPECT_LE(distance(logits(*model_, batch_), expected({{"a", 1}, {"b", 1}})), 1e-12);
  EXPECT_GT(distance(logits(*model_, batch_), together), 1e-3);
}

TEST_F(SummedSets, StrengthsScaleEachChange) {
  add("a", kBody);
  add("b", kQueries);
  disturb(*adaptation_);
  const Tensor sum = expected({{"a", 1}, {"b", 0.5}});
  adaptation_->scale("b", 0.5);
  EXPECT_LE(distance(logits(*model_, batch_), sum), 1e-12);
}

TEST_F(SummedSets, EachGetsItsGradient) {
  add("a", kBody);
  add("b", kQueries);
  disturb(*adaptation_);
  logits(*model_, batch_);  // without gradients before
  check_gradients(*model_, *adaptation_, batch_, 1);
}

TEST_F(SummedSets, MergedOneAfterTheOtherTheyAddUpTooAndComeApartExactly) {
  for (const TunerSpec& first :
       {kBody, TunerSpec{"lora", Json{{"rank", 2}, {"sites", {"*.self.q"}}}}}) {
    Adaptation adaptation(*model_, registry_, 1);
    const Values base = base_tensors(*model_);
    adaptation.add("a", first);
    adaptation.add("b", kQueries);
    disturb(adaptation);
    const Tensor unmerged = logits(*model_, batch_);
    adaptation.merge("a");
    EXPECT_LE(distance(logits(*model_, batch_), unmerged), 1e-12) << "b beside a merged a";
    adaptation.merge("b");
    EXPECT_LE(distance(logits(*model_, batch_), unmerged), 1e-12);
    adaptation.unmerge();
    EXPECT_TRUE(same(base_tensors(*model_), base));
    EXPECT_TRUE(same_bits(logits(*model_, batch_), unmerged));
  }
}

TEST_F(SummedSets, TheSameHeadInSeveralIsOneChange) {
  for (const char* set : {"a", "b"}) add(set, {"head", Json::object()});
  disturb(*adaptation_);
  const std::vector<std::pair<std::string, Tensor>> a = adaptation_->tensors("a"),
                                                    b = adaptation_->tensors("b");
  for (size_t i = 0; i < a.size(); ++i) {
    b[i].second.copy_(a[i].second);
    mark_changed(b[i].second);
  }
  const Tensor one = expected({{"a", 1}});
  EXPECT_LE(distance(logits(*model_, batch_), one), 1e-12);
  adaptation_->merge("a");
  adaptation_->merge("b");
  EXPECT_LE(distance(logits(*model_, batch_), one), 1e-12);
}

/// A tied output that one set lets part from the table, beside a set that trains the table.
TEST(SummedTiedSets, ActAndMergeAlikeInAnyOrder) {
  HeadRequest words;
  words.kind = HeadKind::Lm;
  const Registry<Tuner> registry = methods();
  const TunerSpec shared{"full", Json{{"sites", {"head.*", "*.embed.tok"}}}};
  for (const TunerSpec& apart : {TunerSpec{"full", Json{{"sites", {"head.*"}}, {"tied", false}}},
                                 TunerSpec{"lora", Json{{"rank", 2}, {"sites", {"head.proj"}}}}}) {
    for (const bool first : {true, false}) {
      const std::unique_ptr<Model> model =
          model_of("llama", words, kernels::DType::F64, Json{{"tie_word_embeddings", true}});
      for (size_t i = 0; i < model->slots(); ++i) model->slot_at(i).fresh = false;
      const Batch batch = batch_of(*model, {5, 1, 7});
      const Values base = base_tensors(*model);
      Adaptation adaptation(*model, registry, 1);
      adaptation.add("a", first ? apart : shared);
      adaptation.add("b", first ? shared : apart);
      disturb(adaptation);
      // By hand: the table moves with the shared set, the output with both.
      const std::unique_ptr<Model> plain =
          model_of("llama", words, kernels::DType::F64, Json{{"tie_word_embeddings", false}});
      WeightSlot &table = plain->slot(plain->site("dec.embed.tok")),
                 &output = plain->slot(plain->site("head.proj"));
      const Tensor before = model->slot(model->site("dec.embed.tok")).weight;
      const auto value = [&](const char* set, const std::string& part) {
        for (const std::pair<std::string, Tensor>& entry : adaptation.tensors(set))
          if (ends_with(entry.first, part)) return entry.second;
        return Tensor();
      };
      const char* const of_shared = first ? "b" : "a";
      const char* const of_apart = first ? "a" : "b";
      table.weight = value(of_shared, "/weight").clone();
      output.weight =
          table.weight +
          (apart.method == "full"
               ? value(of_apart, "/weight") - before
               : at::matmul(value(of_apart, "/up"), value(of_apart, "/down")) * (16.0 / 2));
      const Tensor expected = logits(*plain, batch);
      EXPECT_LE(distance(logits(*model, batch), expected), 1e-12) << apart.method << first;
      adaptation.merge("a");
      EXPECT_LE(distance(logits(*model, batch), expected), 1e-12) << apart.method << first;
      adaptation.merge("b");
      EXPECT_LE(distance(logits(*model, batch), expected), 1e-12) << apart.method << first;
      adaptation.unmerge();
      EXPECT_TRUE(same(base_tensors(*model), base));
      EXPECT_LE(distance(logits(*model, batch), expected), 1e-12) << apart.method << first;
    }
  }
}

}  // namespace summed_sets_test
}  // namespace attune
