#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "core/head_request.h"
#include "kernels/kernels.h"

namespace attune {

/// Tables of absolute positions. Rotary positions and relative biases are of their own
/// (RotarySpec, BucketSpec): a family may have several.
enum class PositionScheme : uint8_t { None, Learned };

/// Rotary positions; dims 0: none. The fields are those of transformers' rope_parameters, with
/// their defaults filled in.
struct RotarySpec {
  enum class Scaling : uint8_t { Default, Linear, Dynamic, Llama3, Yarn, LongRope };
  int64_t dims = 0;          // elements of a head that turn (even)
  bool interleaved = false;  // pairs (2 j, 2 j + 1) in place of (j, j + dims / 2)
  Scaling scaling = Scaling::Default;
  double base = 10000, factor = 1;
  double attention_factor = 1;                        // multiplies cosines and sines
  int64_t max_positions = 0, original_positions = 0;  // of the scaled and the unscaled model
  double low_frequency = 1, high_frequency = 4;       // llama3
  double beta_fast = 32, beta_slow = 1;               // yarn
  bool truncate = true;                               // yarn
  std::vector<double> short_factors, long_factors;    // longrope, one a pair
};

/// Relative biases on the scores of self attention, by bucketed distance (T5); buckets 0: none.
/// One table [buckets, heads] serves every layer; it belongs to the first.
struct BucketSpec {
  int64_t buckets = 0, max_distance = 128;
  bool bidirectional = true;
};

/// How images become rows: one a patch, rows of patches from the top, and a class row in front.
struct PatchSpec {
  int64_t channels = 3, height = 0, width = 0, patch_height = 0, patch_width = 0;
  int64_t rows() const { return height / patch_height * (width / patch_width); }
  int64_t values() const { return channels * patch_height * patch_width; }
};

enum class FrontEnd : uint8_t { Tokens, Patches };

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
  bool cross = false;  // each block also attends to the rows of the stack before
  double hidden_dropout = 0, attention_dropout = 0;
  double inner_dropout = 0;  // of ffn.hidden
  double final_dropout = 0;  // after the final norm
  RotarySpec rotary;
  BucketSpec buckets;
  // front end
  FrontEnd front = FrontEnd::Tokens;
  int64_t vocabulary = 0, types = 0;
  bool shared_tokens = false;  // the token table is that of the first stack
  int64_t padding = -1;        // token whose embedding gets no gradient; -1: none
  PatchSpec patches;
  PositionScheme positions = PositionScheme::Learned;
  int64_t max_positions = 0;    // rows of the position table
  int64_t position_offset = 0;  // index of the first token
  bool embed_norm = true;
};

/// The head as it is built, over the last stack.
struct HeadSpec {
  HeadKind kind = HeadKind::None;
  int64_t labels = 0;
  kernels::Pool pool = kernels::Pool::First;
  // A sequence head that takes one row by its token instead: the last whose token of the first
  // stack's input is `token`, or with token_absent is not.
  int64_t token = -1;
  bool token_absent = false;
  bool pooler = false;      // a dense layer (head.pool) over the pooled row
  int64_t pooler_size = 0;  // its width; 0: that of the rows
  kernels::Activation pooler_activation = kernels::Activation::Tanh;
  kernels::Activation transform_activation = kernels::Activation::Gelu;  // masked language model
  bool anew = false;  // the last projection is drawn, though the checkpoint has one of that shape
  double dropout = 0;
  bool pooler_dropout = false;  // the dropout also stands before the pooler
  bool bias = true;             // of the last projection (sequence, token and span heads)
  // Language models: the output matrix is the token table, or a tensor of its own.
  bool tied = true;
  bool tied_when_absent = false;  // a checkpoint without the tensor ties, whatever config.json says
  double scale = 1;               // multiplies what enters the output matrix
  std::string pool_name;          // "mean", "pooler", ... as recorded
  bool ours = false;              // no class of transformers holds this head
  std::string body_class, sequence_class,
      token_class;  // names of transformers' classes, for config.json
};

/// Where a site's tensors are in a checkpoint. bias empty: none.
struct NameRule {
  std::string site, weight, bias;
  std::vector<std::pair<std::string, std::string>> others;  // further spellings of weight and bias
  std::vector<int64_t> shape;  // of the stored weight, where it is not the site's; same order
  double deviation = 0;        // of a fresh weight's values; 0: the model's (none for vectors)
};

/// A whole model as data.
struct ModelSpec {
  std::vector<StackSpec> stacks;  // in the order they run; the last one carries the head
  HeadSpec head;
  std::vector<NameRule> names;
  // Of a language model's own output matrix, used when it is not tied; `bias`: the name of the
  // site head.bias then.
  NameRule output;
  bool words() const { return head.kind == HeadKind::Lm || head.kind == HeadKind::MaskedLm; }
  std::vector<std::string> prefixes;  // of the base model, present or absent in a file: "bert."
  std::vector<std::string> ignored;   // globs of known buffers and of heads this model does not use
  double init_deviation = 0.02;
  // Biases that a key of config.json turns on, all at once: ends of their sites' names.
  std::vector<std::pair<std::string, std::vector<std::string>>> optional_biases;
  // Encoder-decoders whose decoder's input is made from the labels or the encoder's input.
  int64_t decoder_start = -1, decoder_padding = 0;
  const StackSpec& first() const { return stacks.front(); }
  const StackSpec& last() const { return stacks.back(); }
};

/// Reads fields of a config.json; errors name the file and the key.
class ConfigReader {
 public:
  ConfigReader(const Json& config, std::string path) : config_(config), path_(std::move(path)) {}
  int64_t integer(const char* key) const;                    // required, positive
  int64_t integer(const char* key, int64_t fallback) const;  // absent or null: fallback
  double number(const char* key) const;                      // required
  double number(const char* key, double fallback) const;
  std::string text(const char* key, const std::string& fallback) const;
  bool boolean(const char* key, bool fallback) const;
  bool has(const char* key) const;
  /// Numbers of a list. Errors: Corrupt unless it holds `count` of them.
  std::vector<double> numbers(const char* key, int64_t count) const;
  /// A size given once or as [height, width].
  std::pair<int64_t, int64_t> sizes(const char* key, int64_t fallback) const;
  /// An object inside; its errors name both.
  ConfigReader inner(const char* key) const;
  /// One of the activation names of transformers. Errors: Unsupported, listing those known.
  kernels::Activation activation(const char* key, const std::string& fallback) const;
  kernels::Activation activation_named(const std::string& name, const char* key) const;
  /// The first of `architectures`, "" when there is none.
  std::string model_class() const;
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
  /// The heads it offers, with small label counts, for the conformance suites.
  virtual std::vector<HeadRequest> heads() const = 0;
};

}  // namespace attune
