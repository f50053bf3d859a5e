#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/head_request.h"
#include "kernels/kernels.h"

namespace attune {

enum class PositionScheme : uint8_t { None, Learned };

/// One stack of transformer blocks as data. An architecture file fills it from config.json.
struct StackSpec {
  std::string name = "enc";
  int64_t layers = 0, hidden = 0, heads = 1, kv_heads = 1, head_size = 0, intermediate = 0;
  kernels::NormKind norm = kernels::NormKind::Layer;
  double norm_eps = 1e-12;
  bool norm_bias = true;
  bool pre_norm = false;    // norm before each part; otherwise after the residual sum
  bool final_norm = false;  // one more norm after the last block
  kernels::Activation activation = kernels::Activation::Gelu;
  bool gated = false;  // ffn.hidden = f(gate) * up
  bool qkv_bias = true, out_bias = true, ffn_bias = true;
  double score_scale = 0;  // 0: 1 / sqrt(head_size)
  bool causal = false;
  int64_t window = 0;  // > 0: attention to |i - j| < window
  double hidden_dropout = 0, attention_dropout = 0;
  // embeddings
  int64_t vocabulary = 0, types = 0;
  int64_t padding = -1;  // token whose embedding gets no gradient; -1: none
  PositionScheme positions = PositionScheme::Learned;
  int64_t max_positions = 0;    // rows of the position table
  int64_t position_offset = 0;  // index of the first token
  bool embed_norm = true;
};

/// The head as it is built.
struct HeadSpec {
  HeadKind kind = HeadKind::None;
  int64_t labels = 0;
  kernels::Pool pool = kernels::Pool::First;
  bool pooler = false;  // a dense layer (head.pool) over the pooled row
  kernels::Activation pooler_activation = kernels::Activation::Tanh;
  kernels::Activation transform_activation = kernels::Activation::Gelu;  // masked language model
  double dropout = 0;
  std::string pool_name;  // "mean", "pooler", ... as recorded
  std::string body_class, sequence_class,
      token_class;  // names of transformers' classes, for config.json
};

/// Where a site's tensors are in a checkpoint. bias empty: none.
struct NameRule {
  std::string site, weight, bias;
};

/// A whole model as data.
struct ModelSpec {
  StackSpec stack;
  HeadSpec head;
  std::vector<NameRule> names;
  std::vector<std::string> prefixes;  // of the base model, present or absent in a file: "bert."
  std::vector<std::string> ignored;   // globs of known buffers and of heads this model does not use
  std::vector<std::string>
      optional;  // sites that a checkpoint may lack even without a new head ("head.pool")
  double init_deviation = 0.02;
};

/// Reads fields of a config.json; errors name the file and the key.
class ConfigReader {
 public:
  ConfigReader(const Json& config, std::string path) : config_(config), path_(std::move(path)) {}
  int64_t integer(const char* key) const;                    // required, positive
  int64_t integer(const char* key, int64_t fallback) const;  // absent or null: fallback
  double number(const char* key, double fallback) const;
  std::string text(const char* key, const std::string& fallback) const;
  bool boolean(const char* key, bool fallback) const;
  bool has(const char* key) const;
  /// One of the activation names of transformers. Errors: Unsupported, listing those known.
  kernels::Activation activation(const char* key, const std::string& fallback) const;
  const std::string& path() const { return path_; }

 private:
  const Json& config_;
  std::string path_;
};

/// Config, request for a head -> specification. One a family; reached through the registry.
class Architecture {
 public:
  virtual ~Architecture() = default;
  /// pool: what the checkpoint's own files say ("mean", ...), or empty.
  virtual ModelSpec spec(const ConfigReader& config, const HeadRequest& head,
                         const std::string& pool) const = 0;
  /// A small config for the conformance suites.
  virtual Json tiny_config() const = 0;
};

}  // namespace attune
