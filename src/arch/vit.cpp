// ViT: pre-norm encoder over the patches of an image, with a class row.
// Reference: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image
// Recognition at Scale", arXiv 2010.11929.
#include "arch/heads.h"
#include "arch/names.h"
#include "arch/registry.h"
#include "base/error.h"
#include "base/text.h"

namespace attune {
namespace {

PatchSpec vit_patches(const ConfigReader& config) {
  PatchSpec p;
  p.channels = config.integer("num_channels", 3);
  const std::pair<int64_t, int64_t> image = config.sizes("image_size", 224),
                                    patch = config.sizes("patch_size", 16);
  p.height = image.first;
  p.width = image.second;
  p.patch_height = patch.first;
  p.patch_width = patch.second;
  if (p.channels <= 0 || p.patch_height <= 0 || p.patch_width <= 0 || p.height < p.patch_height ||
      p.width < p.patch_width)
    fail(ErrorCode::Corrupt, "{}: images of {} x {} pixels hold no patch of {} x {}", config.path(),
         p.height, p.width, p.patch_height, p.patch_width);
  return p;
}

StackSpec vit_stack(const ConfigReader& config) {
  StackSpec s;
  s.name = "vis";
  s.front = FrontEnd::Patches;
  s.patches = vit_patches(config);
  s.layers = config.integer("num_hidden_layers", 12);
  s.hidden = config.integer("hidden_size", 768);
  s.heads = s.kv_heads = config.integer("num_attention_heads", 12);
  if (s.heads <= 0 || s.hidden % s.heads != 0)
    fail(ErrorCode::Corrupt, "{}: hidden_size {} is not a multiple of num_attention_heads {}",
         config.path(), s.hidden, s.heads);
  s.head_size = s.hidden / s.heads;
  s.intermediate = config.integer("intermediate_size", 3072);
  s.norm_eps = config.number("layer_norm_eps", 1e-12);
  s.pre_norm = s.final_norm = true;
  s.embed_norm = false;
  s.activation = config.activation("hidden_act", "gelu");
  s.qkv_bias = config.boolean("qkv_bias", true);
  s.hidden_dropout = config.number("hidden_dropout_prob", 0);
  s.attention_dropout = config.number("attention_probs_dropout_prob", 0);
  s.max_positions = s.patches.rows() + 1;
  return s;
}

HeadSpec vit_head(const ConfigReader& config, const HeadRequest& request) {
  HeadSpec head;
  head.kind = request.kind;
  head.labels = request.labels;
  head.body_class = "ViTModel";
  head.sequence_class = "ViTForImageClassification";
  if (head.kind != HeadKind::Sequence && head.kind != HeadKind::None)
    refuse_head(config, "vit", head.kind == HeadKind::Token ? "token" : "text");
  const bool bare = head.kind == HeadKind::None;
  std::string pool = request.pool;
  if (pool == "auto" || pool == "own") pool = "first";
  set_pool(config, head, pool, {"first", "pooler", "mean", "max"});
  head.pooler_size = config.integer("pooler_output_size", 0);
  head.pooler_activation = config.activation("pooler_act", "tanh");
  head.ours = !bare && pool != "first";
  return head;
}

std::vector<NameRule> vit_names(const StackSpec& s, const HeadSpec& head, double deviation) {
  NameTable names;
  const std::string embed = "vit.embeddings.";
  const PatchSpec& p = s.patches;
  NameRule& row = names.tensor("vis.embed.class", {embed + "cls_token"});
  row.shape = {1, 1, s.hidden};
  row.deviation = deviation;
  names.tensor("vis.embed.pos", {embed + "position_embeddings"}).shape = {1, s.max_positions,
                                                                          s.hidden};
  names.module("vis.embed.patch", {embed + "patch_embeddings.projection"}, true).shape = {
      s.hidden, p.channels, p.patch_height, p.patch_width};
  for (int64_t i = 0; i < s.layers; ++i) {
    // Files have the classic names; transformers 5 has others in memory.
    const std::string site = format("vis.{}.", i), name = format("vit.encoder.layer.{}.", i),
                      newer = format("vit.layers.{}.", i);
    const auto rule = [&](const char* part, const char* classic, const char* recent, bool bias) {
      names.module(site + part, {name + classic, newer + recent}, bias);
    };
    rule("self.q", "attention.attention.query", "attention.q_proj", s.qkv_bias);
    rule("self.k", "attention.attention.key", "attention.k_proj", s.qkv_bias);
    rule("self.v", "attention.attention.value", "attention.v_proj", s.qkv_bias);
    rule("self.o", "attention.output.dense", "attention.o_proj", true);
    rule("self.norm", "layernorm_before", "layernorm_before", true);
    rule("ffn.up", "intermediate.dense", "mlp.fc1", true);
    rule("ffn.down", "output.dense", "mlp.fc2", true);
    rule("ffn.norm", "layernorm_after", "layernorm_after", true);
  }
  names.module("vis.final.norm", {"vit.layernorm"}, true);
  if (head.pooler) names.module("head.pool", {"vit.pooler.dense"}, true);
  if (head.kind == HeadKind::Sequence) names.module("head.proj", {"classifier"}, true);
  return names.take();
}

class Vit final : public Architecture {
 public:
  ModelSpec spec(const ConfigReader& config, const HeadRequest& request,
                 const std::string&) const override {
    ModelSpec spec;
    spec.stacks = {vit_stack(config)};
    spec.head = vit_head(config, request);
    spec.init_deviation = config.number("initializer_range", 0.02);
    spec.names = vit_names(spec.first(), spec.head, spec.init_deviation);
    spec.prefixes = {"vit."};
    spec.ignored = {"*embeddings.mask_token", "decoder.*"};  // of masked image modelling
    return spec;
  }

  Json tiny_config() const override {
    return Json{{"model_type", "vit"},
                {"architectures", {"ViTForImageClassification"}},
                {"hidden_size", 16},
                {"num_hidden_layers", 2},
                {"num_attention_heads", 2},
                {"intermediate_size", 24},
                {"image_size", {6, 9}},
                {"patch_size", 3},
                {"num_channels", 2},
                {"hidden_act", "gelu"},
                {"layer_norm_eps", 1e-12},
                {"hidden_dropout_prob", 0.1},
                {"attention_probs_dropout_prob", 0.1}};
  }

  std::vector<HeadRequest> heads() const override {
    return {{HeadKind::Sequence, 3, "first"},
            {HeadKind::Sequence, 3, "pooler"},
            {HeadKind::Sequence, 3, "mean"},
            {HeadKind::None, 0, "pooler"}};
  }
};

}  // namespace

void register_vit(Registry<Architecture>& registry) {
  Entry<Architecture> entry;
  entry.name = "vit";
  entry.summary = "ViT image encoders";
  entry.reference =
      "Dosovitskiy et al. 2021, \"An Image is Worth 16x16 Words: Transformers for Image "
      "Recognition "
      "at Scale\", arXiv 2010.11929";
  entry.make = [](const Options&) { return std::make_unique<Vit>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
