#include "tasks/generation_tally.h"

#include <algorithm>

#include "metrics/rouge.h"
#include "metrics/words.h"
#include "tensor/torch.h"

namespace attune {

void GenerationTally::measure(Model& model, const Batch& batch,
                              const std::vector<Example>& examples) {
  const Tensor& labels = batch.fields.at("labels");
  {
    const Output output = model.forward(batch, Want{{}, true, labels});
    sums_.nll += output.head->row_losses(labels).sum().item<double>();
  }
  sums_.tokens += labels.ne(kUnlabelled).sum().item<int64_t>();
  examples_ += static_cast<int64_t>(examples.size());
  std::vector<Example> chosen;
  int64_t longest = 0;
  for (const Example& example : examples) {
    if (decoded_ > 0 && example.id >= decoded_) continue;
    chosen.push_back(example);
    longest = std::max(longest, static_cast<int64_t>(example.labels.size()));
  }
  if (chosen.empty()) return;
  const std::vector<std::string> texts = task_.decoded_texts(model, chosen, longest);
  for (size_t i = 0; i < chosen.size(); ++i) compare(texts[i], chosen[i].reference);
}

void GenerationTally::compare(const std::string& text, const std::string& reference) {
  ++compared_;
  exact_ += without_blank_ends(text) == without_blank_ends(reference) ? 1 : 0;
  const Rouge scores = rouge(text, reference);
  rouge1_ += scores.rouge1;
  rouge2_ += scores.rouge2;
  rouge_l_ += scores.rouge_l;
  if (!translation_) return;
  bleu_.add(text, reference);
  chrf_.add(text, reference);
}

Json GenerationTally::metrics() const {
  const PerplexityReport report = perplexity_report(sums_);
  const double count = static_cast<double>(std::max<int64_t>(1, compared_));
  Json result{{"loss", report.loss},
              {"perplexity", report.perplexity},
              {"exact_match", static_cast<double>(exact_) / count},
              {"rougeL", rouge_l_ / count},
              {"counts", Json{{"tokens", sums_.tokens}, {"decoded", compared_}}},
              {"examples", examples_}};
  if (!translation_) return result;
  result["rouge1"] = rouge1_ / count;
  result["rouge2"] = rouge2_ / count;
  result["bleu"] = bleu_.score();
  result["chrf"] = chrf_.score();
  return result;
}

}  // namespace attune
