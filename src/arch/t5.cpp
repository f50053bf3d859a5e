// T5: pre-norm encoder-decoder with bucketed relative biases, unscaled attention and no biases.
// Reference: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
// Text-to-Text Transformer", arXiv 1910.10683; Shazeer 2020, arXiv 2002.05202 (the gated form).
#include <cmath>

#include "arch/heads.h"
#include "arch/names.h"
#include "arch/registry.h"
#include "base/error.h"
#include "base/text.h"

namespace attune {
namespace {

/// "relu", "gated-gelu" (whose gelu is the tanh form), "gated-silu".
void read_feed_forward(const ConfigReader& config, StackSpec& s) {
  const std::string name = config.text("feed_forward_proj", "relu");
  s.gated = starts_with(name, "gated-");
  s.activation = config.activation_named(name == "gated-gelu" ? "gelu_new"
                                         : s.gated            ? name.substr(6)
                                                              : name,
                                         "feed_forward_proj");
}

StackSpec t5_stack(const ConfigReader& config, bool decoder) {
  StackSpec s;
  s.name = decoder ? "dec" : "enc";
  const int64_t layers = config.integer("num_layers", 6);
  s.layers = decoder ? config.integer("num_decoder_layers", layers) : layers;
  s.hidden = config.integer("d_model", 512);
  s.heads = s.kv_heads = config.integer("num_heads", 8);
  s.head_size = config.integer("d_kv", 64);
  s.intermediate = config.integer("d_ff", 2048);
  s.norm = kernels::NormKind::Rms;
  s.norm_eps = config.number("layer_norm_epsilon", 1e-6);
  s.norm_bias = s.embed_norm = s.qkv_bias = s.out_bias = s.ffn_bias = false;
  s.pre_norm = s.final_norm = true;
  read_feed_forward(config, s);
  s.score_scale = 1;
  s.causal = s.cross = decoder;
  s.hidden_dropout = s.attention_dropout = s.inner_dropout = s.final_dropout =
      config.number("dropout_rate", 0.1);
  s.buckets.buckets = config.integer("relative_attention_num_buckets", 32);
  s.buckets.max_distance = config.integer("relative_attention_max_distance", 128);
  s.buckets.bidirectional = !decoder;
  if (s.buckets.buckets < 4 || s.buckets.max_distance <= s.buckets.buckets / (decoder ? 2 : 4))
    fail(ErrorCode::Unsupported,
         "{}: relative_attention_num_buckets {} and relative_attention_max_distance {} leave no "
         "room for far distances",
         config.path(), s.buckets.buckets, s.buckets.max_distance);
  s.vocabulary = config.integer("vocab_size", 32128);
  s.shared_tokens = decoder;
  s.positions = PositionScheme::None;
  return s;
}

HeadSpec t5_head(const ConfigReader& config, const HeadRequest& request,
                 const std::string& checkpoint_pool) {
  HeadSpec head;
  head.kind = request.kind;
  head.labels = request.labels;
  head.body_class = "T5EncoderModel";
  head.sequence_class = "T5ForSequenceClassification";
  head.token_class = "T5ForTokenClassification";
  head.dropout = config.number("classifier_dropout", 0);
  if (head.kind == HeadKind::MaskedLm) refuse_head(config, "t5", "masked language model");
  if (head.kind == HeadKind::Lm) {
    // Transformers 5 ties in every case unless the checkpoint's matrix differs; what the config's
    // tie_word_embeddings still says is whether the decoder's output is scaled.
    const bool tied = config.boolean("tie_word_embeddings", true);
    head.tied = tied;
    head.tied_when_absent = true;
    if (config.boolean("scale_decoder_outputs", tied))
      head.scale = 1 / std::sqrt(static_cast<double>(config.integer("d_model", 512)));
  }
  if (head.kind != HeadKind::Sequence) return head;
  std::string pool = request.pool;
  if (pool == "auto" && !checkpoint_pool.empty()) pool = checkpoint_pool;
  if (pool == "auto" || pool == "own") pool = "eos";
  set_pool(config, head, pool, {"eos", "first", "mean", "max"});
  head.ours = pool != "eos";
  if (head.ours) return head;
  head.token = config.integer("eos_token_id", 1);
  head.pooler = head.pooler_dropout = true;
  return head;
}

/// Does the head stand on the encoder alone?
bool encoder_alone(const ConfigReader& config, const HeadSpec& head) {
  if (head.kind == HeadKind::None) return config.model_class() == "T5EncoderModel";
  return head.kind == HeadKind::Token || head.ours;
}

void attention_names(NameTable& names, const std::string& site, const std::string& name,
                     const std::string& part) {
  for (const char* tensor : {"q", "k", "v", "o"})
    names.module(site + tensor, {format("{}.{}.{}", name, part, tensor)}, false);
  names.module(site + "norm", {name + ".layer_norm"}, false);
}

void stack_names(NameTable& names, const StackSpec& s, const std::string& body) {
  const std::string name = body + (s.cross ? "decoder." : "encoder.");
  names.module(s.name + ".0.self.bias",
               {name + "block.0.layer.0.SelfAttention.relative_attention_bias"}, false);
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string site = format("{}.{}.", s.name, i);
    const std::string layer = format("{}block.{}.layer.", name, i);
    attention_names(names, site + "self.", layer + "0", "SelfAttention");
    if (s.cross) attention_names(names, site + "cross.", layer + "1", "EncDecAttention");
    const std::string ffn = layer + (s.cross ? "2" : "1");
    const std::string dense = ffn + ".DenseReluDense.";
    names.module(site + "ffn.up", {dense + (s.gated ? "wi_1" : "wi")}, false);
    if (s.gated) names.module(site + "ffn.gate", {dense + "wi_0"}, false);
    names.module(site + "ffn.down", {dense + "wo"}, false);
    names.module(site + "ffn.norm", {ffn + ".layer_norm"}, false);
  }
  names.module(s.name + ".final.norm", {name + "final_layer_norm"}, false);
}

std::vector<NameRule> t5_names(const ModelSpec& spec) {
  NameTable names;
  const HeadSpec& head = spec.head;
  // Classification keeps the body in a module of its own.
  const bool inside =
      (head.kind == HeadKind::Sequence && !head.ours) || head.kind == HeadKind::Token;
  const std::string body = inside ? "transformer." : "";
  std::vector<std::string> tables{body + "shared", body + "encoder.embed_tokens",
                                  body + "decoder.embed_tokens"};
  if (spec.stacks.size() == 1) tables.pop_back();
  names.module("enc.embed.tok", tables, false);
  for (const StackSpec& stack : spec.stacks) stack_names(names, stack, body);
  if (head.pooler) {
    names.module("head.pool", {"classification_head.dense"}, true);
    names.module("head.proj", {"classification_head.out_proj"}, true);
  } else if (head.kind == HeadKind::Sequence || head.kind == HeadKind::Token) {
    names.module("head.proj", {"classifier"}, true);
  } else if (head.kind == HeadKind::Span) {
    names.module("head.proj", {"qa_outputs"}, true);
  }
  return names.take();
}

/// Deviations of new tensors, which keep unscaled scores small at the start; `factor` multiplies
/// all. Reference: as transformers initialises its T5 classes.
void set_deviations(ModelSpec& spec, double factor) {
  const StackSpec& s = spec.first();
  const double width = std::pow(static_cast<double>(s.hidden), -0.5);
  const auto deviation = [&](const std::string& site) {
    if (ends_with(site, "embed.tok")) return 1.0;
    if (ends_with(site, ".q")) return width / std::sqrt(static_cast<double>(s.head_size));
    if (ends_with(site, ".o")) return std::pow(static_cast<double>(s.heads * s.head_size), -0.5);
    if (ends_with(site, ".down")) return std::pow(static_cast<double>(s.intermediate), -0.5);
    return width;
  };
  for (NameRule& rule : spec.names) rule.deviation = factor * deviation(rule.site);
  spec.output.deviation = factor;
}

class T5 final : public Architecture {
 public:
  ModelSpec spec(const ConfigReader& config, const HeadRequest& request,
                 const std::string& pool) const override {
    ModelSpec spec;
    spec.head = t5_head(config, request, pool);
    const bool alone = encoder_alone(config, spec.head);
    spec.stacks = {t5_stack(config, false)};
    if (!alone) spec.stacks.push_back(t5_stack(config, true));
    spec.names = t5_names(spec);
    spec.output = NameRule();
    spec.output.site = "head.proj";
    spec.output.weight = "lm_head.weight";
    spec.prefixes = {"transformer."};
    set_deviations(spec, config.number("initializer_factor", 1));
    spec.decoder_padding = config.integer("pad_token_id", 0);
    spec.decoder_start = config.integer("decoder_start_token_id", spec.decoder_padding);
    spec.ignored = {"*EncDecAttention.relative_attention_bias.weight"};
    if (alone) spec.ignored.push_back("*decoder.*");
    if (request.kind != HeadKind::Lm) spec.ignored.push_back("lm_head.weight");
    return spec;
  }

  Json tiny_config() const override {
    return Json{{"model_type", "t5"},
                {"architectures", {"T5ForConditionalGeneration"}},
                {"vocab_size", 60},
                {"d_model", 16},
                {"d_kv", 6},
                {"d_ff", 24},
                {"num_layers", 2},
                {"num_decoder_layers", 2},
                {"num_heads", 4},
                {"relative_attention_num_buckets", 8},
                {"relative_attention_max_distance", 6},
                {"dropout_rate", 0.1},
                {"classifier_dropout", 0.1},
                {"layer_norm_epsilon", 1e-6},
                {"feed_forward_proj", "gated-gelu"},
                {"tie_word_embeddings", true},
                {"is_encoder_decoder", true},
                {"pad_token_id", 0},
                {"eos_token_id", 1},
                {"decoder_start_token_id", 0}};
  }

  std::vector<HeadRequest> heads() const override {
    return {{HeadKind::Lm, 0, "auto"},       {HeadKind::Sequence, 3, "eos"},
            {HeadKind::Sequence, 3, "mean"}, {HeadKind::Token, 4, "auto"},
            {HeadKind::Span, 2, "auto"},     {HeadKind::None, 0, "first"}};
  }
};

}  // namespace

void register_t5(Registry<Architecture>& registry) {
  Entry<Architecture> entry;
  entry.name = "t5";
  entry.summary = "T5 encoder-decoders: T5 1.0 and 1.1, Flan-T5";
  entry.reference =
      "Raffel et al. 2020, \"Exploring the Limits of Transfer Learning with a Unified Text-to-Text "
      "Transformer\", arXiv 1910.10683";
  entry.make = [](const Options&) { return std::make_unique<T5>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
