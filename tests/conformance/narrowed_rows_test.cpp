// The last block goes on with the rows that the head reads where nothing there looks at others:
// logits (or the losses of its rows) and gradients must be those of a pass that computes every row
// (it is asked for all of them).
#include <numeric>
#include <set>

#include "methods.h"
#include "nn/transformer.h"
#include "tensor/autograd.h"

namespace attune {
namespace narrowed_rows_test {

using namespace tiny;

struct Result {
  Tensor logits;  // under labels the losses of the rows
  Values gradients;
  int64_t rows = 0;  // behind the last block (a decoder comes before its encoder)
};

/// `every_row`: the final rows are wanted, so that none is left out. `labels`: of Want.
Result result_of(Model& model, const Batch& batch, Adaptation& adaptation, bool every_row,
                 const Tensor& labels = Tensor()) {
  Want want;
  want.labels = labels;
  if (every_row) want.sites = {"final"};
  const Output output = model.forward(batch, want);
  Result result;
  result.logits =
      labels.defined() ? output.head->row_losses(labels) : output.head->logits(Tensor()).detach();
  result.rows = output.rows.begin()->second.rows();
  Tensor sum =
      output.head
          ->cross_entropy(labels.defined() ? labels : batch.fields.at("labels"), Tensor(), 0.1)
          .sum;
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
  std::unique_ptr<Model> model_with(const std::string& pool, const Json& changes = Json::object(),
                                    kernels::DType type = kernels::DType::F64) const {
    HeadRequest head;
    head.kind = HeadKind::Sequence;
    head.labels = 3;
    head.pool = pool;
    return model_of(GetParam(), head, type, changes);
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

/// The largest gradient of the last block's key bias under full fine-tuning; -1: there is none.
double of_key_bias(const Result& result) {
  for (const Values::value_type& entry : result.gradients)
    if (entry.first.find(".1.self.k") != std::string::npos && entry.second.dim() == 1)
      return entry.second.abs().max().item<double>();
  return -1;
}

TEST_P(NarrowedHeads, MeetTheInputOfKeysAndValues) {
  // A bias of keys moves all scores of a query alike. Where keys are made its gradient is a sum
  // that comes near zero; where they are not it is zero.
  const std::unique_ptr<Model> model = model_with("auto");
  const StackSpec& spec = dynamic_cast<const Transformer&>(*model).spec().last();
  if (!spec.qkv_bias || spec.rotary.dims > 0) return;
  const Batch batch = batch_of(*model, {5, 1, 7, 3, 2, 6});
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", {"full", Json::object()});
  for (const Batch& run : {batch, training(batch)}) {  // the second with dropout on probabilities
    const Result narrow = result_of(*model, run, adaptation, false),
                 whole = result_of(*model, run, adaptation, true);
    expect_equal(narrow, whole);
    EXPECT_EQ(of_key_bias(narrow), 0);
    EXPECT_GT(of_key_bias(whole), 0);
  }
}

TEST_P(NarrowedHeads, AreAsNearToDoubleInBf16AsAllRows) {
  const Registry<Tuner> registry = methods();
  const auto gradients = [&](kernels::DType type, bool every_row) {
    const std::unique_ptr<Model> model = model_with("auto", Json::object(), type);
    const Batch batch = batch_of(*model, {5, 1, 17, 3, 32, 6});
    Adaptation adaptation(*model, registry, 1);
    adaptation.add("default", {"lora", Json{{"rank", 2}, {"sites", {"*.self.*", "*.ffn.*"}}}});
    disturb(adaptation);
    return result_of(*model, batch, adaptation, every_row);
  };
  const Result exact = gradients(kernels::DType::F64, false);
  const auto error = [&](bool every_row) {
    const Result found = gradients(kernels::DType::BF16, every_row);
    double sum = 0, size = 0;
    for (const Values::value_type& entry : exact.gradients) {
      const Tensor own = found.gradients.at(entry.first).to(at::kDouble);
      sum += (own - entry.second).square().sum().item<double>();
      size += entry.second.square().sum().item<double>();
    }
    return std::sqrt(sum / size);
  };
  const double narrow = error(false), whole = error(true);
  EXPECT_LT(narrow, 1.5 * whole);
}

INSTANTIATE_TEST_SUITE_P(All, NarrowedHeads, ::testing::ValuesIn(architecture_names()));

/// Heads with a row for every row, under labels of some of them.
class LabelledRows : public ::testing::TestWithParam<std::string> {
 protected:
  using Labelled = std::function<bool(int64_t place, int64_t length)>;
  struct Case {
    std::unique_ptr<Model> model;
    Batch batch;
    Tensor labels;
    std::vector<int64_t> lengths;
    bool causal = false;
  };
  /// The cases of every head that the family has.
  std::vector<Case> cases(const Labelled& labelled) const {
    std::vector<Case> result;
    for (const HeadKind kind : {HeadKind::Lm, HeadKind::MaskedLm, HeadKind::Token}) {
      HeadRequest head;
      head.kind = kind;
      if (kind == HeadKind::Token) head.labels = 3;
      Case made;
      try {
        // Token heads with blocks made again in the backward pass.
        made.model = model_of(GetParam(), head, kernels::DType::F64, Json::object(),
                              kind == HeadKind::Token ? -1 : 0);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Unsupported);
        continue;
      }
      made.causal = dynamic_cast<const Transformer&>(*made.model).spec().last().causal;
      made.batch = batch_of(*made.model, {5, 1, 7, 3, 9, 6});
      made.labels = made.batch.fields.at("labels");
      made.labels = made.labels.masked_fill(made.labels.eq(kUnlabelled), 1);
      // A decoder comes before its encoder.
      const RowIndex& rows = made.batch.streams.begin()->second.rows;
      for (int64_t b = 0; b < rows.sequences(); ++b) {
        made.lengths.push_back(rows.length(b));
        for (int64_t i = 0; i < rows.length(b); ++i)
          if (!labelled(i, rows.length(b))) made.labels[rows.begin(b) + i] = kUnlabelled;
      }
      result.push_back(std::move(made));
    }
    return result;
  }
  /// LoRA with dropout everywhere, the head included; the rows behind the last block.
  int64_t rows_behind(Case& c) const {
    const Registry<Tuner> registry = methods();
    Adaptation adaptation(*c.model, registry, 1);
    adaptation.add("default", {"lora", Json{{"rank", 2},
                                            {"dropout", 0.2},
                                            {"sites", {"*.self.*", "*.ffn.*", "head.proj"}}}});
    disturb(adaptation);
    int64_t rows = 0;
    for (const Batch& batch : {c.batch, training(c.batch)}) {
      const Result narrow = result_of(*c.model, batch, adaptation, false, c.labels);
      expect_equal(narrow, result_of(*c.model, batch, adaptation, true, c.labels));
      rows = narrow.rows;
    }
    return rows;
  }
  static int64_t sum(const std::vector<int64_t>& lengths) {
    return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  }
};

TEST_P(LabelledRows, AreEnoughWhereTheyAreFew) {
  for (Case& c : cases([](int64_t place, int64_t) { return place % 4 == 2; })) {
    int64_t expected = 0;
    for (const int64_t length : c.lengths)
      expected += length <= 2 ? 1 : c.causal ? length - 2 : (length + 1) / 4;
    EXPECT_EQ(rows_behind(c), expected);
  }
}

TEST_P(LabelledRows, MayBeThoseOfAnAnswerBehindAPrompt) {
  const auto answer = [](int64_t place, int64_t length) {
    return place >= length / 2 && place + 1 < length;
  };
  for (Case& c : cases(answer)) {
    int64_t expected = 0;
    for (const int64_t length : c.lengths)
      expected += length < 2 ? 1 : length - length / 2 - (c.causal ? 0 : 1);
    EXPECT_EQ(rows_behind(c), expected);
  }
}

TEST_P(LabelledRows, OfNearlyAllRowsLeaveNoneOut) {
  for (Case& c : cases([](int64_t place, int64_t length) { return place > 0 || length < 9; }))
    EXPECT_EQ(rows_behind(c), sum(c.lengths));
}

TEST_P(LabelledRows, AreRowsOfTheInput) {
  for (Case& c : cases([](int64_t place, int64_t) { return place % 4 == 2; })) {
    const Site rows = last_input(*c.model);
    // Two rows in front; and rows that leave, which come back for the head.
    Edits prompt(*c.model, [&](Attachment& attachment) {
      Extend added;
      added.rows = attachment.parameter(rows, "prompt", noise("prompt", {2, rows.out}, 1));
      attachment.add(attachment.sites(rows.name)[0], added);
    });
    const Result narrow = result_of(*c.model, c.batch, *prompt, false, c.labels);
    EXPECT_LT(narrow.rows, sum(c.lengths));
    expect_equal(narrow, result_of(*c.model, c.batch, *prompt, true, c.labels));
  }
  for (Case& c : cases([](int64_t place, int64_t) { return place % 4 == 2; })) {
    const Site rows = last_input(*c.model);
    Edits keep(*c.model, [&](Attachment& attachment) {
      const Fn some_leave = [](const View& view) {
        Tensor mask = at::ones({view.x.size(0)}, at::kBool);
        for (int64_t r = 1; r < mask.size(0); r += 5) mask[r] = false;
        return mask;
      };
      attachment.add(attachment.sites(rows.name)[0], Keep{some_leave, {}});
      for (const char* glob : {"head.proj", "*.embed.tok"})  // one tensor where they are tied
        for (const Site& site : attachment.sites(glob)) attachment.thaw(site);
    });
    const Result narrow = result_of(*c.model, c.batch, *keep, false, c.labels);
    EXPECT_EQ(narrow.rows, sum(c.lengths));
    expect_equal(narrow, result_of(*c.model, c.batch, *keep, true, c.labels));
  }
}

TEST_P(LabelledRows, AloneHaveNoLogits) {
  for (Case& c : cases([](int64_t place, int64_t) { return place % 4 == 2; })) {
    const Output output = c.model->forward(c.batch, Want{{}, true, c.labels});
    EXPECT_THROW(output.head->logits(Tensor()), Error);
    const Output captured = c.model->forward(c.batch, Want{{"logits"}, true, c.labels});
    EXPECT_EQ(captured.captured.at("logits").size(0), sum(c.lengths));
  }
}

INSTANTIATE_TEST_SUITE_P(All, LabelledRows, ::testing::ValuesIn(architecture_names()));

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
