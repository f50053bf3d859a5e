#pragma once
#include "arch/load.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {

/// A tiny BERT classifier without dropout unless asked for.
inline std::unique_ptr<Model> tiny_model(double dropout = 0, int layers = 2) {
  Json config = architectures().at("bert").make(Options())->tiny_config();
  config.update(Json{{"hidden_dropout_prob", dropout},
                     {"attention_probs_dropout_prob", dropout},
                     {"num_hidden_layers", layers},
                     {"initializer_range", 0.3}});
  LoadOptions options;
  options.numerics.compute = kernels::DType::F64;
  options.head = {HeadKind::Sequence, 3, "mean"};
  options.own_head = true;
  return init_model(config, "tiny.json", options);
}

}  // namespace attune
