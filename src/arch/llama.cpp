// LLaMA: pre-norm decoder with rotary positions, shared key heads and a gated feed-forward part.
// Reference: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", arXiv
// 2302.13971; Grattafiori et al. 2024, "The Llama 3 Herd of Models", arXiv 2407.21783.
#include "arch/heads.h"
#include "arch/names.h"
#include "arch/registry.h"
#include "arch/rotary.h"
#include "base/error.h"
#include "base/text.h"

namespace attune {
namespace {

StackSpec llama_stack(const ConfigReader& config) {
  StackSpec s;
  s.name = "dec";
  s.layers = config.integer("num_hidden_layers", 32);
  s.hidden = config.integer("hidden_size", 4096);
  s.heads = config.integer("num_attention_heads", 32);
  s.kv_heads = config.integer("num_key_value_heads", s.heads);
  if (s.heads <= 0 || s.kv_heads <= 0 || s.heads % s.kv_heads != 0)
    fail(ErrorCode::Corrupt,
         "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", config.path(),
         s.heads, s.kv_heads);
  s.head_size = config.integer("head_dim", s.hidden / s.heads);
  s.intermediate = config.integer("intermediate_size", 11008);
  s.norm = kernels::NormKind::Rms;
  s.norm_eps = config.number("rms_norm_eps", 1e-6);
  s.norm_bias = s.embed_norm = false;
  s.pre_norm = s.final_norm = s.gated = s.causal = true;
  s.activation = config.activation("hidden_act", "silu");
  s.qkv_bias = s.out_bias = config.boolean("attention_bias", false);
  s.ffn_bias = config.boolean("mlp_bias", false);
  s.attention_dropout = config.number("attention_dropout", 0);
  s.rotary = rotary_of(config, s.head_size, 10000);
  s.vocabulary = config.integer("vocab_size", 32000);
  s.padding = config.integer("pad_token_id", -1);
  s.positions = PositionScheme::None;
  return s;
}

HeadSpec llama_head(const ConfigReader& config, const HeadRequest& request,
                    const std::string& checkpoint_pool) {
  HeadSpec head;
  head.kind = request.kind;
  head.labels = request.labels;
  head.body_class = "LlamaModel";
  head.sequence_class = "LlamaForSequenceClassification";
  head.token_class = "LlamaForTokenClassification";
  if (head.kind == HeadKind::MaskedLm) refuse_head(config, "llama", "masked language model");
  head.tied = config.boolean("tie_word_embeddings", false);
  if (head.kind == HeadKind::Token)
    head.dropout = config.number("classifier_dropout", config.number("hidden_dropout", 0.1));
  if (head.kind != HeadKind::Sequence) return head;
  std::string pool = request.pool;
  if (pool == "auto" && !checkpoint_pool.empty()) pool = checkpoint_pool;
  if (pool == "auto" || pool == "own") pool = "last";
  set_pool(config, head, pool, {"last", "first", "mean", "max"});
  head.bias = false;
  head.ours = pool != "last";
  if (pool == "last" && config.has("pad_token_id")) {
    head.token = config.integer("pad_token_id", -1);
    head.token_absent = true;
  }
  return head;
}

std::vector<NameRule> llama_names(const StackSpec& s, const HeadSpec& head) {
  NameTable names;
  // The question answering class keeps its body under another name.
  const std::string body = head.kind == HeadKind::Span ? "transformer." : "model.";
  names.module("dec.embed.tok", {body + "embed_tokens"}, false);
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string site = format("dec.{}.", i), name = format("{}layers.{}.", body, i);
    for (const char* part : {"q", "k", "v", "o"})
      names.module(site + "self." + part, {format("{}self_attn.{}_proj", name, part)}, s.qkv_bias);
    names.module(site + "self.norm", {name + "input_layernorm"}, false);
    for (const char* part : {"up", "gate", "down"})
      names.module(site + "ffn." + part, {format("{}mlp.{}_proj", name, part)}, s.ffn_bias);
    names.module(site + "ffn.norm", {name + "post_attention_layernorm"}, false);
  }
  names.module("dec.final.norm", {body + "norm"}, false);
  if (head.kind == HeadKind::Sequence || head.kind == HeadKind::Token)
    names.module("head.proj", {"score"}, head.bias);
  if (head.kind == HeadKind::Span) names.module("head.proj", {"qa_outputs"}, true);
  return names.take();
}

class Llama final : public Architecture {
 public:
  ModelSpec spec(const ConfigReader& config, const HeadRequest& request,
                 const std::string& pool) const override {
    ModelSpec spec;
    spec.stacks = {llama_stack(config)};
    spec.head = llama_head(config, request, pool);
    spec.names = llama_names(spec.first(), spec.head);
    spec.output = NameRule();
    spec.output.site = "head.proj";
    spec.output.weight = "lm_head.weight";
    spec.prefixes = {"model.", "transformer."};
    spec.init_deviation = config.number("initializer_range", 0.02);
    spec.ignored = {"*rotary_emb.inv_freq"};
    if (request.kind != HeadKind::Lm) spec.ignored.push_back("lm_head.weight");
    spec.optional_biases = {{"attention_bias", {".self.q", ".self.k", ".self.v", ".self.o"}},
                            {"mlp_bias", {".ffn.gate", ".ffn.up", ".ffn.down"}}};
    return spec;
  }

  Json tiny_config() const override {
    return Json{{"model_type", "llama"},    {"architectures", {"LlamaForCausalLM"}},
                {"vocab_size", 60},         {"hidden_size", 16},
                {"num_hidden_layers", 2},   {"num_attention_heads", 4},
                {"num_key_value_heads", 2}, {"head_dim", 6},
                {"intermediate_size", 24},  {"max_position_embeddings", 40},
                {"rms_norm_eps", 1e-6},     {"attention_bias", true},
                {"attention_dropout", 0.1}, {"tie_word_embeddings", false}};
  }

  std::vector<HeadRequest> heads() const override {
    return {{HeadKind::Lm, 0, "auto"},       {HeadKind::Sequence, 3, "last"},
            {HeadKind::Sequence, 3, "mean"}, {HeadKind::Token, 4, "auto"},
            {HeadKind::Span, 2, "auto"},     {HeadKind::None, 0, "first"}};
  }
};

}  // namespace

void register_llama(Registry<Architecture>& registry) {
  Entry<Architecture> entry;
  entry.name = "llama";
  entry.summary = "LLaMA decoders: Llama 1 to 3.3, TinyLlama, SmolLM and others in their layout";
  entry.reference =
      "Touvron et al. 2023, \"LLaMA: Open and Efficient Foundation Language Models\", arXiv "
      "2302.13971";
  entry.make = [](const Options&) { return std::make_unique<Llama>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
