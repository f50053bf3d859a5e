// PREFIX_TUNING: keys and values in front of those of the text, in every layer (ours: prefix).
// A file holds [tokens, 2 * layers * width]: the key of layer l in slot 2 l, its value in 2 l + 1.
// Encoder-decoders have prefixes in the decoder's self attention only. PEFT counts four slots a
// layer there, of which it drops the two of cross attention, and begins again when the 2 * layers
// slots are used up: some layers share a prefix, and some slots are of no use.
#include "base/text.h"
#include "exchange/peft_prompts.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// One attention and where its key is; the value follows.
struct Slot {
  const Site* site;
  int64_t key;
};

std::vector<Slot> slots_of(const Model& model) {
  const bool both = is_encoder_decoder(model);
  const std::string stack = both || model.find("enc.0.self.q") == nullptr ? "dec" : "enc";
  const int64_t layers = layers_of(model, stack);
  std::vector<Slot> slots;
  for (int64_t layer = 0; layer < layers; ++layer)
    slots.push_back(
        {model.find(format("{}.{}.self.kv", stack, layer)), (both ? 4 : 2) * layer % (2 * layers)});
  return slots;
}

std::vector<PeftTuner> load_prefix_tuning(PeftSource& source) {
  const std::vector<Slot> slots = slots_of(source.model);
  if (slots.empty() || slots.front().site == nullptr)
    source.config.refuse("peft_type", "this model has no attention of the kind that prefixes join");
  const int64_t tokens = source.config.positive("num_virtual_tokens", 1);
  const int64_t width = slots.front().site->out, layers = static_cast<int64_t>(slots.size());
  const Tensor all = source.shared_tensor(kPromptTensor, {tokens, 2 * width * layers});
  if (source.config.integer("num_layers", layers) != layers) source.config.wrong("num_layers");
  PeftTuner tuner{"prefix", Json{{"sites", Json::array()},
                                 {"length", tokens},
                                 {"projection", false},
                                 {"shift_positions", true}}};
  for (const Slot& slot : slots) {
    tuner.act_at(*slot.site);
    tuner.set(*slot.site, "keys", all.narrow(1, slot.key * width, width));
    tuner.set(*slot.site, "values", all.narrow(1, (slot.key + 1) * width, width));
  }
  return {tuner};
}

const Extend* edit_at(const PeftView& view, const Site& site) {
  for (const std::pair<int, Edit>& entry : view.recorder().edits())
    if (entry.first == site.id) return &std::get<Extend>(entry.second);
  return nullptr;
}

/// Keys and values by slot. Errors: Unsupported when two layers need one slot for different values.
std::map<int64_t, Tensor> values_by_slot(const PeftView& view, const std::vector<Slot>& slots) {
  std::map<int64_t, Tensor> by_slot;
  for (const Slot& slot : slots) {
    const Extend* extend = edit_at(view, *slot.site);
    if (extend == nullptr || extend->gate || !extend->shift || extend->keys.dim() != 2)
      cannot_export(view, "PREFIX_TUNING",
                    format("its prefix at {} is absent, gated, by sequence, or does not shift the "
                           "positions",
                           slot.site->name));
    for (const int64_t part : {0, 1}) {
      const Tensor value = (part == 0 ? extend->keys : extend->values).detach().to(at::kFloat);
      Tensor& held = by_slot[slot.key + part];
      if (held.defined() && !at::equal(held, value))
        cannot_export(view, "PREFIX_TUNING",
                      format("PEFT has one slot for the prefix of {} and that of another layer, "
                             "which differ",
                             slot.site->name));
      held = value;
    }
  }
  return by_slot;
}

PeftPiece save_prefix_tuning(const PeftView& view) {
  const std::vector<Slot> slots = slots_of(view.model());
  if (view.recorder().edits().size() != slots.size())
    cannot_export(view, "PREFIX_TUNING",
                  format("it has prefixes at {} attentions, PEFT at all {} of the {}",
                         view.recorder().edits().size(), slots.size(),
                         is_encoder_decoder(view.model()) ? "decoder" : "stack"));
  std::map<int64_t, Tensor> by_slot = values_by_slot(view, slots);
  const Site& site = *slots.front().site;
  const int64_t layers = static_cast<int64_t>(slots.size());
  std::vector<Tensor> columns;
  for (int64_t slot = 0; slot < 2 * layers; ++slot)
    columns.push_back(by_slot.count(slot) > 0 ? by_slot[slot] : at::zeros_like(by_slot[0]));
  PeftPiece piece{"PREFIX_TUNING"};
  piece.shared[kPromptTensor] = at::cat(columns, 1);
  piece.config = Json{{"num_virtual_tokens", columns.front().size(0)},
                      {"token_dim", site.out},
                      {"num_transformer_submodules", is_encoder_decoder(view.model()) ? 2 : 1},
                      {"num_attention_heads", site.heads},
                      {"num_layers", layers},
                      {"encoder_hidden_size", site.out},
                      {"prefix_projection", false}};
  return piece;
}

}  // namespace

PeftType peft_prefix_tuning() {
  PeftType type;
  type.name = "PREFIX_TUNING";
  type.methods = {"prefix"};
  type.fields = prompt_fields({"prefix_projection", "encoder_hidden_size", "init_weights"});
  type.shared = {kPromptTensor};
  type.prompts = true;
  type.load = load_prefix_tuning;
  type.save = save_prefix_tuning;
  return type;
}

}  // namespace attune
