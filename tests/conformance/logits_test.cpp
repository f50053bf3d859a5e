// The site "logits": wanted like any other, though the head makes it only when it is asked.
#include "tiny.h"

namespace attune {
namespace logits_test {

using namespace tiny;

std::unique_ptr<Model> with_head(HeadKind kind) {
  HeadRequest head;
  head.kind = kind;
  head.labels = kind == HeadKind::Span ? 2 : 3;
  return model_of("bert", head);
}

const HeadKind kHeads[] = {HeadKind::Sequence, HeadKind::Token, HeadKind::Span, HeadKind::MaskedLm};

TEST(Logits, AreCapturedWhenTheyAreWanted) {
  at::NoGradGuard no_grad;
  for (const HeadKind kind : kHeads) {
    const std::unique_ptr<Model> model = with_head(kind);
    const Batch batch = batch_of(*model, {5, 1, 7});
    const Tensor expected = logits(*model, batch);
    for (const char* glob : {"logits", "log*", "*"}) {
      const Output output = model->forward(batch, {{glob}, true});
      ASSERT_EQ(output.captured.count("logits"), 1u) << glob;
      EXPECT_TRUE(same_bits(output.head->logits(Tensor()), output.captured.at("logits"))) << glob;
      // With every row wanted, keys and values are made that are not otherwise.
      if (kind == HeadKind::Sequence && std::string(glob) == "*") {
        EXPECT_LE(distance(output.captured.at("logits"), expected), 1e-13);
      } else {
        EXPECT_TRUE(same_bits(output.captured.at("logits"), expected)) << glob;
      }
    }
    const Output headless = model->forward(batch, {{"logits"}, false});
    EXPECT_TRUE(same_bits(headless.captured.at("logits"), expected));
    EXPECT_EQ(model->forward(batch, {{"final"}, true}).captured.count("logits"), 0u);
  }
}

TEST(Logits, OfSomeRowsAreThoseOfAll) {
  at::NoGradGuard no_grad;
  const std::unique_ptr<Model> model = with_head(HeadKind::Token);
  const Batch batch = batch_of(*model, {5, 1, 7});
  const Tensor which = int32_tensor({11, 0, 6});
  const Output output = model->forward(batch, {{"logits"}, true});
  EXPECT_TRUE(same_bits(output.head->logits(which),
                        output.captured.at("logits").index_select(0, which.to(at::kLong))));
}

TEST(Logits, AreCapturedAfterTheirEditsWhichRunOnce) {
  const std::unique_ptr<Model> model = with_head(HeadKind::Sequence);
  const Batch batch = batch_of(*model, {5, 1, 7});
  const Tensor plain = logits(*model, batch);
  int seen = 0;
  Edits edits(*model, [&](Attachment& attachment) {
    const Site site = attachment.sites("logits")[0];
    attachment.add(site, Shift{at::ones({3}, at::kDouble)});
    attachment.add(site, Observe{[&](const View&) { ++seen; }, {}});
  });
  at::NoGradGuard no_grad;
  const Output output = model->forward(batch, {{"logits"}, true});
  EXPECT_LT(distance(output.captured.at("logits"), plain + 1), 1e-12);
  output.head->logits(Tensor());
  EXPECT_EQ(seen, 1);
}

TEST(Logits, CarryGradientsWhenTheyAreCaptured) {
  const std::unique_ptr<Model> model = with_head(HeadKind::Sequence);
  const Batch batch = batch_of(*model, {5, 1, 7});
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", {"full", Json::object()});
  const Tensor captured = model->forward(batch, {{"logits"}, false}).captured.at("logits");
  EXPECT_TRUE(captured.requires_grad());
}

TEST(Logits, OfAModelWithoutAHeadAreRefused) {
  const std::unique_ptr<Model> model = with_head(HeadKind::None);
  const Batch batch = batch_of(*model, {5});
  const std::string text = error_text(ErrorCode::BadInput, [&] {
    model->forward(batch, {{"logits"}, true});
  });
  EXPECT_EQ(text.find("the site pattern \"logits\" matches nothing in this model; near names: "),
            0u)
      << text;
}

}  // namespace logits_test
}  // namespace attune
