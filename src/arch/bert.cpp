// BERT: post-norm encoder with learned positions and segments.
// Reference: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", arXiv
// 1810.04805.
#include "arch/heads.h"
#include "arch/names.h"
#include "arch/registry.h"
#include "base/error.h"
#include "base/text.h"

namespace attune {
namespace {

StackSpec bert_stack(const ConfigReader& config) {
  StackSpec s;
  s.layers = config.integer("num_hidden_layers", 12);
  s.hidden = config.integer("hidden_size", 768);
  s.heads = s.kv_heads = config.integer("num_attention_heads", 12);
  s.intermediate = config.integer("intermediate_size", 3072);
  s.norm_eps = config.number("layer_norm_eps", 1e-12);
  s.activation = config.activation("hidden_act", "gelu");
  s.hidden_dropout = config.number("hidden_dropout_prob", 0.1);
  s.attention_dropout = config.number("attention_probs_dropout_prob", 0.1);
  s.vocabulary = config.integer("vocab_size", 30522);
  s.types = config.integer("type_vocab_size", 2);
  s.padding = config.integer("pad_token_id", 0);
  s.max_positions = config.integer("max_position_embeddings", 512);
  if (s.heads <= 0 || s.hidden % s.heads != 0)
    fail(ErrorCode::Corrupt, "{}: hidden_size {} is not a multiple of num_attention_heads {}",
         config.path(), s.hidden, s.heads);
  s.head_size = s.hidden / s.heads;
  const std::string positions = config.text("position_embedding_type", "absolute");
  if (positions != "absolute")
    fail(ErrorCode::Unsupported,
         "{}: position_embedding_type is \"{}\"; only \"absolute\" is supported (transformers "
         "dropped the others too)",
         config.path(), positions);
  if (config.boolean("is_decoder", false))
    fail(ErrorCode::Unsupported, "{}: is_decoder is true; BERT runs as an encoder here",
         config.path());
  return s;
}

HeadSpec bert_head(const ConfigReader& config, const HeadRequest& request,
                   const std::string& checkpoint_pool) {
  HeadSpec head;
  head.kind = request.kind;
  if (head.kind == HeadKind::Lm) refuse_head(config, "bert", "next-token language model");
  head.labels = request.labels;
  head.body_class = "BertModel";
  head.sequence_class = "BertForSequenceClassification";
  head.token_class = "BertForTokenClassification";
  head.dropout = config.number("classifier_dropout", config.number("hidden_dropout_prob", 0.1));
  head.transform_activation = config.activation("hidden_act", "gelu");
  if (request.kind == HeadKind::MaskedLm) head.tied = config.boolean("tie_word_embeddings", true);
  if (request.kind == HeadKind::Token || request.kind == HeadKind::Span ||
      request.kind == HeadKind::MaskedLm)
    return head;
  std::string pool = request.pool;
  if (pool == "auto" && !checkpoint_pool.empty()) pool = checkpoint_pool;
  if (pool == "auto" || pool == "own") pool = "pooler";
  set_pool(config, head, pool, {"pooler", "first", "mean", "max"});
  // The sequence class pools by its pooler only; another way is kept as a plain body with our head.
  head.ours = head.kind == HeadKind::Sequence && !head.pooler;
  return head;
}

std::vector<NameRule> bert_names(const StackSpec& s, const HeadSpec& head) {
  NameTable names;
  const std::string body = "bert.embeddings.";
  names.module("enc.embed.tok", {body + "word_embeddings"}, false);
  names.module("enc.embed.pos", {body + "position_embeddings"}, false);
  if (s.types > 0) names.module("enc.embed.type", {body + "token_type_embeddings"}, false);
  names.module("enc.embed.norm", {body + "LayerNorm"}, true);
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string site = format("enc.{}.", i), name = format("bert.encoder.layer.{}.", i);
    names.module(site + "self.q", {name + "attention.self.query"}, true);
    names.module(site + "self.k", {name + "attention.self.key"}, true);
    names.module(site + "self.v", {name + "attention.self.value"}, true);
    names.module(site + "self.o", {name + "attention.output.dense"}, true);
    names.module(site + "self.norm", {name + "attention.output.LayerNorm"}, true);
    names.module(site + "ffn.up", {name + "intermediate.dense"}, true);
    names.module(site + "ffn.down", {name + "output.dense"}, true);
    names.module(site + "ffn.norm", {name + "output.LayerNorm"}, true);
  }
  if (head.pooler) names.module("head.pool", {"bert.pooler.dense"}, true);
  if (head.kind == HeadKind::Sequence || head.kind == HeadKind::Token)
    names.module("head.proj", {"classifier"}, true);
  if (head.kind == HeadKind::Span) names.module("head.proj", {"qa_outputs"}, true);
  if (head.kind == HeadKind::MaskedLm) {
    names.module("head.transform", {"cls.predictions.transform.dense"}, true);
    names.module("head.norm", {"cls.predictions.transform.LayerNorm"}, true);
    // The class adds the decoder's bias, which is the other one where both are tied.
    names.tensor("head.bias",
                 {head.tied ? "cls.predictions.bias" : "cls.predictions.decoder.bias"});
  }
  return names.take();
}

class Bert final : public Architecture {
 public:
  ModelSpec spec(const ConfigReader& config, const HeadRequest& request,
                 const std::string& pool) const override {
    ModelSpec spec;
    spec.stacks = {bert_stack(config)};
    spec.head = bert_head(config, request, pool);
    spec.names = bert_names(spec.first(), spec.head);
    if (spec.head.kind == HeadKind::MaskedLm) {
      spec.output.site = "head.proj";
      spec.output.weight = "cls.predictions.decoder.weight";
      spec.output.bias = "cls.predictions.decoder.bias";
    }
    spec.prefixes = {"bert."};
    spec.init_deviation = config.number("initializer_range", 0.02);
    spec.ignored = {"*position_ids", "*cls.seq_relationship.*", "*cls.predictions.decoder.*",
                    "*cls.predictions.bias"};
    return spec;
  }

  Json tiny_config() const override {
    return Json{{"model_type", "bert"},
                {"architectures", {"BertModel"}},
                {"vocab_size", 60},
                {"hidden_size", 16},
                {"num_hidden_layers", 2},
                {"num_attention_heads", 2},
                {"intermediate_size", 24},
                {"max_position_embeddings", 40},
                {"type_vocab_size", 2},
                {"hidden_act", "gelu"},
                {"layer_norm_eps", 1e-12},
                {"hidden_dropout_prob", 0.1},
                {"attention_probs_dropout_prob", 0.1}};
  }

  std::vector<HeadRequest> heads() const override {
    return {{HeadKind::Sequence, 3, "pooler"}, {HeadKind::Sequence, 3, "mean"},
            {HeadKind::Sequence, 3, "max"},    {HeadKind::Sequence, 3, "first"},
            {HeadKind::Token, 4, "auto"},      {HeadKind::Span, 2, "auto"},
            {HeadKind::MaskedLm, 0, "auto"},   {HeadKind::None, 0, "pooler"}};
  }
};

}  // namespace

void register_bert(Registry<Architecture>& registry) {
  Entry<Architecture> entry;
  entry.name = "bert";
  entry.summary = "BERT encoders: bert-*, MiniLM, sentence-transformers bodies";
  entry.reference =
      "Devlin et al. 2019, \"BERT: Pre-training of Deep Bidirectional Transformers for Language "
      "Understanding\", arXiv 1810.04805";
  entry.make = [](const Options&) { return std::make_unique<Bert>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
