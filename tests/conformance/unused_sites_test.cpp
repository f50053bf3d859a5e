// What nobody asks for costs nothing, counted in tensors; what several sites share stays shared.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include "methods.h"
#include "tensor/matmul.h"

namespace attune {
namespace unused_sites_test {

using namespace tiny;

/// LibTorch's allocator of memory for tensors, counting what it gives out while this lives.
class CountedTensors final : public c10::Allocator {
 public:
  CountedTensors() : own_(c10::GetAllocator(c10::DeviceType::CPU)) {
    c10::SetAllocator(c10::DeviceType::CPU, this, kPriority);
  }
  ~CountedTensors() { c10::SetAllocator(c10::DeviceType::CPU, own_, kPriority); }
  CountedTensors(const CountedTensors&) = delete;
  CountedTensors& operator=(const CountedTensors&) = delete;

  // LibTorch 2 has the first form without const, and asks for copy_data too.
  at::DataPtr allocate(size_t bytes) const { return counted(bytes); }
  at::DataPtr allocate(size_t bytes) { return counted(bytes); }
  c10::DeleterFnPtr raw_deleter() const { return own_->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t bytes) const {
    std::memcpy(to, from, bytes);
  }
  int64_t count() const { return count_; }

 private:
  static constexpr uint8_t kPriority = 200;
  at::DataPtr counted(size_t bytes) const {
    ++count_;
    return own_->allocate(bytes);
  }
  c10::Allocator* own_;
  mutable int64_t count_ = 0;
};

/// Tensors that one pass makes; captured values and the head's logits too.
int64_t tensors_of(Model& model, const Batch& batch) {
  at::NoGradGuard no_grad;
  logits(model, batch);  // copies that are kept exist from here on
  const CountedTensors counted;
  logits(model, batch);
  return counted.count();
}

HeadRequest head_of(HeadKind kind) {
  HeadRequest head;
  head.kind = kind;
  head.labels = 3;
  head.pool = "mean";  // reads every row: a pass makes as much whoever watches
  return head;
}

class UnusedSites : public ::testing::TestWithParam<std::string> {
 protected:
  UnusedSites()
      : model_(model_of(GetParam(), head_of(HeadKind::Sequence))),
        batch_(batch_of(*model_, {5, 1, 7, 3})) {}
  std::unique_ptr<Model> model_;
  Batch batch_;
};

TEST_P(UnusedSites, MakeNoTensor) {
  const int64_t plain = tensors_of(*model_, batch_);
  EXPECT_GT(plain, 0);
  for (const Site& site : model_->sites()) {
    const bool inside = site.kind == SiteKind::Scores || site.kind == SiteKind::KeyValue;
    if (site.hidden || (site.kind != SiteKind::Rows && site.kind != SiteKind::Heads && !inside))
      continue;
    const Observe watch{[](const View& view) { EXPECT_TRUE(view.x.defined()); }, {}};
    if (!admits(site, watch)) continue;
    {
      Edits edits(*model_, [&](Attachment& attachment) {
        attachment.add(attachment.sites(site.name)[0], watch);
      });
      // Scores and probabilities exist for those who ask only.
      const int64_t watched = tensors_of(*model_, batch_);
      EXPECT_GE(watched, plain) << site.name;
      if (site.kind == SiteKind::Scores) {
        EXPECT_GT(watched, plain) << site.name;
      }
    }
    EXPECT_EQ(tensors_of(*model_, batch_), plain) << site.name << ", once nobody asks any more";
  }
}

TEST_P(UnusedSites, MakeNoTensorBesideOneThatIsUsed) {
  const int64_t plain = tensors_of(*model_, batch_);
  std::vector<std::string> queries;
  for (const Site& site : model_->sites())
    if (site.kind == SiteKind::Weight && site.name.ends_with(".self.q"))
      queries.push_back(site.name);
  ASSERT_GE(queries.size(), 2u);
  const auto with = [&](size_t count) {
    Edits edits(*model_, [&](Attachment& attachment) {
      for (size_t i = 0; i < count; ++i) {
        const Site site = attachment.sites(queries[i])[0];
        attachment.add(site, Shift{at::ones({site.out}, at::kDouble)});
      }
    });
    return tensors_of(*model_, batch_);
  };
  const int64_t one = with(1) - plain;
  EXPECT_GT(one, 0);
  EXPECT_EQ(with(2) - plain, 2 * one) << "each pays for itself, and nobody else does";
}

TEST_P(UnusedSites, AMethodThatIsRemovedLeavesNoCost) {
  const int64_t plain = tensors_of(*model_, batch_);
  const Registry<Tuner> registry = methods();
  for (const char* method : {"lora", "adapter", "ia3"}) {
    {
      Adaptation adaptation(*model_, registry, 1);
      adaptation.add("default", tiny_spec(registry.at(method)));
      EXPECT_GT(tensors_of(*model_, batch_), plain) << method;
      adaptation.enable("default", false);
      EXPECT_EQ(tensors_of(*model_, batch_), plain) << method << ", disabled";
    }
    EXPECT_EQ(tensors_of(*model_, batch_), plain) << method << ", removed";
  }
}

INSTANTIATE_TEST_SUITE_P(All, UnusedSites, ::testing::ValuesIn(architecture_names()));

/// The checkpoint of a language model as it stands, read back in double precision.
LoadedModel written_and_read(const Model& model) {
  const Folder folder;
  write_model(model, "", folder.file("model"), Json::object());
  LoadOptions options;
  options.numerics = {kernels::DType::F64};
  options.own_head = true;
  options.head = head_of(HeadKind::Lm);
  return load_model(folder.file("model"), options);
}

/// A language model whose output matrix is its table of tokens, and the same with one of its own.
class TiedTensors : public ::testing::Test {
 protected:
  TiedTensors()
      : tied_(model_of("llama", head_of(HeadKind::Lm), kernels::DType::F64,
                       Json{{"tie_word_embeddings", true}})),
        untied_(model_of("llama", head_of(HeadKind::Lm), kernels::DType::F64,
                         Json{{"tie_word_embeddings", false}})),
        batch_(batch_of(*tied_, {5, 1, 7, 3})) {
    untied_->slot(untied_->site(output_)).weight =
        untied_->slot(untied_->site(table_)).weight.clone();
  }
  /// The update at one user of the tied tensor must equal the same values added to that user's own
  /// tensor in the untied model.
  void expect_alone(const std::string& name) {
    const Site site = tied_->site(name);
    const Tensor down = noise("down", {2, site.in}, 0.3), up = noise("up", {site.out, 2}, 0.3);
    const Tensor before = logits(*tied_, batch_);
    EXPECT_LE(distance(before, logits(*untied_, batch_)), 1e-12);
    Edits edits(*tied_, [&](Attachment& attachment) {
      attachment.add(attachment.sites(name)[0], LowRank{down, up, 0.5});
    });
    WeightSlot& own = untied_->slot(untied_->site(name));
    const Tensor kept = own.weight;
    const Tensor update = attune::matmul(up, down) * 0.5;
    own.weight = kept + (site.weight == WeightKind::Table ? update.t() : update);
    own.copies = {};
    EXPECT_LE(distance(logits(*tied_, batch_), logits(*untied_, batch_)), 1e-12) << name;
    EXPECT_GT(distance(logits(*tied_, batch_), before), 1e-3) << name;
    // Merging parts the two; the checkpoint says so, and reads back the same.
    const Values weights = base_tensors(*tied_);
    edits->merge("default");
    EXPECT_NE(tied_->site(table_).storage, tied_->site(output_).storage);
    EXPECT_LE(distance(logits(*tied_, batch_), logits(*untied_, batch_)), 1e-12) << name;
    const LoadedModel read = written_and_read(*tied_);
    EXPECT_TRUE(read.report.fresh.empty());
    EXPECT_LE(distance(logits(*read.model, batch_), logits(*untied_, batch_)), 1e-12) << name;
    edits->unmerge();
    EXPECT_EQ(tied_->site(table_).storage, tied_->site(output_).storage);
    EXPECT_TRUE(same(base_tensors(*tied_), weights));
    own.weight = kept;
    own.copies = {};
  }

  std::unique_ptr<Model> tied_, untied_;
  Batch batch_;
  const std::string table_ = "dec.embed.tok", output_ = "head.proj";
};

TEST_F(TiedTensors, AreOneTensorUnderTwoNames) {
  EXPECT_EQ(tied_->site(table_).storage, tied_->site(output_).storage);
  EXPECT_NE(untied_->site(table_).storage, untied_->site(output_).storage);
}

TEST_F(TiedTensors, AnUpdateOfTheOutputLeavesTheTableAlone) {
  expect_alone(output_);
}

TEST_F(TiedTensors, AnUpdateOfTheTableLeavesTheOutputAlone) {
  expect_alone(table_);
}

TEST(TiedTensorsOfTwoStacks, TheOutputPartsAndTheTablesStayTogether) {
  const std::unique_ptr<Model> model = model_of("t5", head_of(HeadKind::Lm), kernels::DType::F64,
                                                Json{{"tie_word_embeddings", true}});
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const auto update = [&](const std::string& name) {
    const Site site = model->site(name);
    return LowRank{noise("down", {2, site.in}, 0.3), noise("up", {site.out, 2}, 0.3), 0.5};
  };
  {
    Edits edits(*model, [&](Attachment& attachment) {
      attachment.add(attachment.sites("head.proj")[0], update("head.proj"));
    });
    const Tensor expected = logits(*model, batch);
    edits->merge("default");
    EXPECT_LE(distance(logits(*model, batch), expected), 1e-12);
    const LoadedModel read = written_and_read(*model);
    EXPECT_LE(distance(logits(*read.model, batch), expected), 1e-12)
        << "the scale is in the matrix";
    edits->unmerge();
  }
  const std::string table = "enc.embed.tok";
  Edits edits(*model, [&](Attachment& attachment) {
    attachment.add(attachment.sites(table)[0], update(table));
  });
  const Values weights = base_tensors(*model);
  const std::string text = error_text(ErrorCode::Unsupported, [&] { edits->merge("default"); });
  EXPECT_NE(text.find("LowRank of edits at " + table + " (a tensor that several sites share)"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("Keep the adapter beside the model instead"), std::string::npos) << text;
  EXPECT_TRUE(same(base_tensors(*model), weights));
}

TEST_F(TiedTensors, TrainingTheTensorItselfChangesBothUsersAndMerges) {
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*tied_, registry, 1);
  adaptation.add("default", {"full", Json{{"sites", {table_}}}});
  disturb(adaptation);
  ASSERT_EQ(adaptation.trainable().size(), 1u) << "one parameter, however many use it";
  const Tensor value = adaptation.trainable()[0].value.detach();
  for (const std::string& name : {table_, output_}) {
    untied_->slot(untied_->site(name)).weight = value;
    untied_->slot(untied_->site(name)).copies = {};
  }
  const Tensor expected = logits(*untied_, batch_);
  EXPECT_LE(distance(logits(*tied_, batch_), expected), 1e-12);
  adaptation.merge("default");
  EXPECT_LE(distance(logits(*tied_, batch_), expected), 1e-12);
}

}  // namespace unused_sites_test
}  // namespace attune
