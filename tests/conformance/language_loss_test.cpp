// The loss of a language model's head is that of its logits, made whole or not, whoever edits it.
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tiny.h"

namespace attune {
namespace language_loss_test {

using namespace tiny;

struct LossCase {
  const char* architecture;
  bool tied;
  const char* name;
  std::function<void(Adaptation&)> attach;
};

void add(Adaptation& adaptation, const char* method, Json options = Json::object()) {
  adaptation.add("default", {method, std::move(options)});
}

std::vector<LossCase> cases() {
  std::vector<LossCase> result;
  for (const char* architecture : {"llama", "t5"})
    for (const bool tied : {false, true}) {
      result.push_back({architecture, tied, "full", [](Adaptation& a) { add(a, "full"); }});
      result.push_back({architecture, tied, "lora_inside", [](Adaptation& a) {
                          add(a, "lora", Json{{"sites", "dec.*.self.q"}});
                        }});
      result.push_back({architecture, tied, "lora_at_the_head", [](Adaptation& a) {
                          add(a, "lora", Json{{"sites", "head.proj"}, {"dropout", 0.2}});
                        }});
      result.push_back({architecture, tied, "lora_and_full", [](Adaptation& a) {
                          add(a, "full");
                          add(a, "lora", Json{{"sites", "head.proj"}});
                        }});
    }
  return result;
}

TEST(LanguageLoss, AndItsGradientsAreThoseOfTheLogits) {
  const Registry<Tuner> registry = methods();
  for (const LossCase& c : cases()) {
    HeadRequest head;
    head.kind = HeadKind::Lm;
    const std::unique_ptr<Model> model =
        model_of(c.architecture, head, kernels::DType::F64, Json{{"tie_word_embeddings", c.tied}});
    Adaptation adaptation(*model, registry, 1);
    c.attach(adaptation);
    disturb(adaptation);
    const Batch batch = training(batch_of(*model, {5, 1, 7, 3}));
    const Tensor labels = [&] {
      Tensor given = batch.fields.at("labels").clone();
      given[2] = -100;
      return given;
    }();
    const auto gradients = [&](bool whole) {
      for (Param& param : adaptation.trainable()) param.value.mutable_grad() = Tensor();
      const Output output = model->forward(batch, {});
      const Tensor sum =
          whole ? cross_entropy(output.head->logits(Tensor()), labels, Tensor(), 0.1).sum
                : output.head->cross_entropy(labels, Tensor(), 0.1).sum;
      backward(sum);
      Values values{{"loss", sum.detach()}};
      for (const Param& param : adaptation.trainable())
        if (param.value.grad().defined()) values[param.name] = param.value.grad().clone();
      return values;
    };
    const Values expected = gradients(true), found = gradients(false);
    const std::string what = std::string(c.architecture) + (c.tied ? " tied " : " ") + c.name;
    ASSERT_EQ(found.size(), expected.size()) << what;
    for (const std::pair<const std::string, Tensor>& entry : expected)
      EXPECT_LE(distance(found.at(entry.first), entry.second), 1e-12) << what << " " << entry.first;
  }
}

TEST(LanguageLoss, OfEachRowSumsToTheWhole) {
  const Registry<Tuner> registry = methods();
  for (const char* site : {"dec.*.self.q", "head.proj"}) {
    HeadRequest head;
    head.kind = HeadKind::Lm;
    const std::unique_ptr<Model> model = model_of("llama", head);
    Adaptation adaptation(*model, registry, 1);
    adaptation.add("default", {"lora", Json{{"sites", site}}});
    disturb(adaptation);
    const Batch batch = batch_of(*model, {5, 1, 7, 3});
    at::NoGradGuard no_grad;
    const Output output = model->forward(batch, {});
    const Tensor labels = batch.fields.at("labels");
    EXPECT_NEAR(output.head->row_losses(labels).sum().item<double>(),
                output.head->cross_entropy(labels, Tensor(), 0).sum.item<double>(), 1e-9);
  }
}

}  // namespace language_loss_test
}  // namespace attune
