// The last block goes on with the rows that the head reads where nothing there looks at others:
// logits and gradients must be those of a pass that computes every row (it is asked for all of
// them).
#include <set>

#include "methods.h"
#include "tensor/autograd.h"

namespace attune {
namespace narrowed_rows_test {

using namespace tiny;

struct Result {
  Tensor logits;
  Values gradients;
  int64_t rows = 0;  // behind the last block (a decoder comes before its encoder)
};

/// `every_row`: the final rows are wanted, so that none is left out.
Result result_of(Model& model, const Batch& batch, Adaptation& adaptation, bool every_row) {
  Want want;
  if (every_row) want.sites = {"final"};
  const Output output = model.forward(batch, want);
  Result result;
  result.logits = output.head->logits(Tensor()).detach();
  result.rows = output.rows.begin()->second.rows();
  Tensor sum = output.head->cross_entropy(batch.fields.at("labels"), Tensor(), 0.1).sum;
  if (const Tensor penalty = adaptation.penalty(); penalty.defined())
    sum = sum + penalty.to(at::kDouble);
  backward(sum);
  for (Param& param : adaptation.trainable()) {
    const Tensor gradient = gradient_of(param.value);
    if (gradient.defined()) result.gradients[param.name] = gradient.clone();
    param.value.mutable_grad() = Tensor();
  }
  return result;
}

void expect_equal(const Result& narrow, const Result& whole) {
  EXPECT_LE(distance(narrow.logits, whole.logits), 1e-12);
  ASSERT_EQ(narrow.gradients.size(), whole.gradients.size());
  for (const Values::value_type& entry : whole.gradients)
    EXPECT_LE(distance(narrow.gradients.at(entry.first), entry.second), 1e-11) << entry.first;
}

class NarrowedRows : public MethodTest {};

TEST_P(NarrowedRows, GiveTheLogitsAndGradientsOfAllRows) {
  adapt(with_dropout());
  disturb(*adaptation_);
  for (const Batch& batch : {batch_, training(batch_)}) {
    const Result narrow = result_of(*model_, batch, *adaptation_, false),
                 whole = result_of(*model_, batch, *adaptation_, true);
    expect_equal(narrow, whole);
    EXPECT_GT(whole.rows, batch.streams.begin()->second.rows.sequences());
    const std::set<std::string> by_row{"full",    "lora",      "dora",   "ia3",     "bias",
                                       "adapter", "compacter", "layers", "propetl", "prompt"};
    if (by_row.count(method()) > 0) {
      EXPECT_EQ(narrow.rows, batch.streams.begin()->second.rows.sequences());
    }
    // A mean over a sequence, a convolution over it, a mixture whose load is that of all rows.
    const std::set<std::string> over_rows{"unipelt", "conv_adapter", "moe_adapter"};
    if (over_rows.count(method()) > 0) {
      EXPECT_EQ(narrow.rows, whole.rows);
    }
  }
}

/// The rows that enter the second block of the last stack.
Site last_input(const Model& model) {
  Site result;
  for (const Site& site : model.sites())
    if (site.name.ends_with(".1.resid.in")) result = site;
  return result;
}

INSTANTIATE_TEST_SUITE_P(Every, NarrowedRows, ::testing::ValuesIn(every_case()), case_name);

class NarrowedHeads : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> model_with(const std::string& pool,
                                    const Json& changes = Json::object()) const {
    HeadRequest head;
    head.kind = HeadKind::Sequence;
    head.labels = 3;
    head.pool = pool;
    return model_of(GetParam(), head, kernels::DType::F64, changes);
  }
  /// Narrow beside whole with LoRA at every projection; the rows behind the last block.
  int64_t rows_behind(Model& model, const Batch& batch) const {
    const Registry<Tuner> registry = methods();
    Adaptation adaptation(model, registry, 1);
    adaptation.add("default", {"lora", Json{{"rank", 2}, {"sites", {"*.self.*", "*.ffn.*"}}}});
    disturb(adaptation);
    const Result narrow = result_of(model, batch, adaptation, false);
    expect_equal(narrow, result_of(model, batch, adaptation, true));
    return narrow.rows;
  }
};

TEST_P(NarrowedHeads, AreThoseThatReadOneRowOfASequence) {
  for (const std::string pool : {"first", "last", "pooler", "eos", "mean", "max"}) {
    std::unique_ptr<Model> model;
    try {
      model = model_with(pool);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Unsupported);  // the family has no such head
      continue;
    }
    const Batch batch = batch_of(*model, {5, 1, 7, 3, 2, 6});
    const bool all = pool == "mean" || pool == "max";
    const int64_t rows = rows_behind(*model, batch);
    EXPECT_EQ(rows == 6, !all) << pool;
  }
}

TEST_P(NarrowedHeads, ReadTheRowOfTheInputBehindAPrompt) {
  const std::unique_ptr<Model> model = model_with("auto");
  const Batch batch = batch_of(*model, {5, 1, 7});
  const Site rows = last_input(*model);
  Edits edits(*model, [&](Attachment& attachment) {
    Extend prompt;
    prompt.rows = attachment.parameter(rows, "prompt", noise("prompt", {2, rows.out}, 1));
    attachment.add(attachment.sites(rows.name)[0], prompt);
  });
  const Result narrow = result_of(*model, batch, *edits, false);
  EXPECT_EQ(narrow.rows, 3);
  expect_equal(narrow, result_of(*model, batch, *edits, true));
}

TEST_P(NarrowedHeads, NeedTheirRowToBeThere) {
  const std::unique_ptr<Model> model = model_with("auto");
  const Batch batch = batch_of(*model, {5, 4, 7});
  const Site rows = last_input(*model);
  Edits edits(*model, [&](Attachment& attachment) {
    const Fn every_other = [](const View& view) {
      Tensor mask = at::ones({view.x.size(0)}, at::kBool);
      for (int64_t r = 0; r < mask.size(0); r += 2) mask[r] = false;
      return mask;
    };
    attachment.add(attachment.sites(rows.name)[0], Keep{every_other, {}});
    attachment.thaw(attachment.sites("head.proj")[0]);
  });
  expect_equal(result_of(*model, batch, *edits, false), result_of(*model, batch, *edits, true));
}

INSTANTIATE_TEST_SUITE_P(All, NarrowedHeads, ::testing::ValuesIn(architecture_names()));

TEST(NarrowedSets, MixInOneBatch) {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  const std::unique_ptr<Model> model = model_of("bert", head);
  Batch batch = batch_of(*model, {5, 1, 7, 3, 4});
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("one", {"lora", Json{{"rank", 2}}});
  adaptation.add("two", {"adapter", Json{{"size", 2}}});
  disturb(adaptation);
  batch.sets = int32_tensor({1, -1, 0, 1, 0});
  const Result narrow = result_of(*model, batch, adaptation, false);
  EXPECT_EQ(narrow.rows, 5);
  expect_equal(narrow, result_of(*model, batch, adaptation, true));
}

}  // namespace narrowed_rows_test
}  // namespace attune
