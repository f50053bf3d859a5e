#include "exchange/peft_prompts.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "tensor/torch.h"

namespace attune {

const Site& prompt_site(const Model& model, const std::string& where) {
  for (const char* point : {".embed.rows", ".embed.out"})
    for (const Site& site : model.sites())
      if (site.kind == SiteKind::Rows && ends_with(site.name, point)) return site;
  fail(ErrorCode::Unsupported,
       "{}: prompt rows go in front of token rows, which this model does "
       "not have",
       where);
}

bool is_encoder_decoder(const Model& model) {
  return model.find("enc.0.self.q") != nullptr && model.find("dec.0.cross.q") != nullptr;
}

int64_t layers_of(const Model& model, const std::string& stack) {
  int64_t layers = 0;
  while (model.find(format("{}.{}.self.q", stack, layers)) != nullptr) ++layers;
  return layers;
}

std::vector<PeftTuner> prompt_tuners(PeftSource& source, const std::string& method, Json options,
                                     const std::string& part) {
  const Site& site = prompt_site(source.model, source.where);
  const int64_t tokens = source.config.positive("num_virtual_tokens", 1);
  const int64_t parts = source.config.positive("num_transformer_submodules", 1);
  const Tensor rows = source.shared_tensor(kPromptTensor, {tokens * parts, site.out});
  options["sites"] = Json::array();
  options["length"] = tokens;
  options["pooled"] = true;
  PeftTuner tuner{method, std::move(options)};
  tuner.act_at(site);
  // An encoder-decoder has rows for its decoder too, which PEFT never uses.
  tuner.set(site, part, rows.slice(0, 0, tokens));
  return {tuner};
}

namespace {

/// The one edit that adds rows where PEFT adds them.
const Extend& only_edit(const PeftView& view, const std::string& type) {
  const Site& site = prompt_site(view.model(), view.recorder().method());
  for (const std::pair<int, Edit>& entry : view.recorder().edits())
    if (entry.first != site.id || view.recorder().edits().size() > 1)
      cannot_export(view, type,
                    format("it adds rows at {}, PEFT at {} alone",
                           view.model().sites()[static_cast<size_t>(entry.first)].name, site.name));
  const Extend& extend = std::get<Extend>(view.recorder().edits().front().second);
  if (extend.gate || !extend.shift || extend.rows.dim() != 2)
    cannot_export(view, type, "its rows are gated, by sequence, or do not shift the positions");
  if (!extend.pooled && view.model().find("head.pool") != nullptr)
    cannot_export(view, type,
                  "its head pools the first row of the text, PEFT's the first row of the prompt; "
                  "train with `pooled: true`");
  return extend;
}

}  // namespace

PeftPiece prompt_piece(const PeftView& view, const std::string& type, Json config) {
  const Extend& extend = only_edit(view, type);
  const Tensor rows = extend.rows.detach().to(at::kFloat);
  const bool both = is_encoder_decoder(view.model());
  const Site& site = prompt_site(view.model(), view.recorder().method());
  const std::string stack = site.name.substr(0, site.name.find('.'));
  const Site& first = view.model().site(stack + ".0.self.kv");
  PeftPiece piece{type};
  piece.config = std::move(config);
  piece.config.update(Json{{"num_virtual_tokens", rows.size(0)},
                           {"token_dim", rows.size(1)},
                           {"num_transformer_submodules", both ? 2 : 1},
                           {"num_attention_heads", first.heads},
                           {"num_layers", layers_of(view.model(), stack)}});
  piece.shared[kPromptTensor] = both ? at::cat({rows, at::zeros_like(rows)}) : rows;
  return piece;
}

std::vector<std::string> prompt_fields(const std::vector<std::string>& own) {
  std::vector<std::string> fields{"num_virtual_tokens", "token_dim", "num_transformer_submodules",
                                  "num_attention_heads", "num_layers"};
  fields.insert(fields.end(), own.begin(), own.end());
  return fields;
}

}  // namespace attune
