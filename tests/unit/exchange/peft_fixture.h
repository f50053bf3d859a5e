#pragma once
// Tiny models of tests/golden/peft, adapters that PEFT wrote for them, and the logits it computes.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "arch/load.h"
#include "arch/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "exchange/peft.h"
#include "io/safetensors.h"
#include "methods/registry.h"
#include "support/temp_folder.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

/// tests/golden/peft/FAMILY/, or a folder inside.
inline std::string golden(const std::string& family, const std::string& inside = "") {
  return std::string(ATTUNE_TEST_DATA) + "/peft/" + family + "/" + inside;
}

inline void expect_text(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

/// One tiny model with one adaptation.
struct PeftFixture {
  std::string family;
  Registry<Tuner> registry = methods();
  LoadedModel loaded;
  std::unique_ptr<Adaptation> adaptation;

  explicit PeftFixture(std::string family = "bert", kernels::DType type = kernels::DType::F32,
                       const HeadRequest* head = nullptr);
  Model& model() { return *loaded.model; }
  void add(const std::string& method, const Json& options = Json::object()) {
    adaptation->add("default", {method, options});
  }
  void load(const std::string& directory) { load_peft(*adaptation, model(), "default", directory); }
  PeftExport save(const std::string& directory, const std::string& task = "classify",
                  bool head = true, bool newer_names = false) {
    return export_peft(*adaptation, model(), "default", "base", task, head, directory, newer_names);
  }
  /// Of every line of inputs.jsonl.
  std::vector<Tensor> logits();
  /// Fills the set's tensors as training might: zeros would hide mistakes.
  void disturb(double strength = 0.3);
  /// Is a tensor of PEFT's ("base_model.model.NAME") the base model's, unchanged?
  bool holds(const std::pair<std::string, Tensor>& entry);
};

/// What PEFT computes with an adapter ("base": without).
std::vector<Tensor> expected_logits(const std::string& family, const std::string& adapter);
void expect_equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b);
/// |a - b| <= tolerance * (1 + |b|), everywhere.
void expect_near(const std::vector<Tensor>& a, const std::vector<Tensor>& b, double tolerance);

/// A copy of a golden adapter of the BERT family, with fields of its config changed (a null removes
/// nothing: it is written).
void copy_adapter(const std::string& adapter, const std::string& directory, const Json& changes);
/// The tensors of an adapter, to be changed and written again.
NamedTensors adapter_tensors(const std::string& directory);
void write_adapter_tensors(const std::string& directory, const NamedTensors& tensors);

}  // namespace attune
