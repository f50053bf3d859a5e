#include "metrics/registry.h"

#include "base/error.h"
#include "base/text.h"

namespace attune {

const std::vector<MetricInfo>& metrics() {
  static const std::vector<MetricInfo> kMetrics = {
      {"loss", "mean loss over trained labels or tokens", "", false},
      {"perplexity", "exp of the mean loss of a token",
       "Jelinek et al. 1977, \"Perplexity\"; torch.exp of the mean cross-entropy", false},
      {"word_perplexity", "exp of the loss a word, words by white space",
       "lm-evaluation-harness word_perplexity", false},
      {"byte_perplexity", "exp of the loss a byte of UTF-8",
       "lm-evaluation-harness byte_perplexity", false},
      {"bits_per_byte", "loss a byte of UTF-8, in bits", "lm-evaluation-harness bits_per_byte",
       false},
      {"exact_match",
       "share of generated texts that equal their reference, white space at the ends "
       "left out",
       "SQuAD's exact match without its normalisation", true},
      {"rouge1", "F1 of words in a generated text and its reference, mean over texts",
       "rouge_score rouge1, use_stemmer=False", true},
      {"rouge2", "the same of pairs of words", "rouge_score rouge2, use_stemmer=False", true},
      {"rougeL", "the same of the longest common subsequence",
       "rouge_score rougeL, use_stemmer=False", true},
      {"bleu", "corpus BLEU of up to four words, 0 to 100", "sacrebleu tok:13a smooth:exp", true},
      {"chrf", "corpus chrF2 of up to six characters, 0 to 100", "sacrebleu nc:6 nw:0", true},
      {"accuracy", "share of rows (or tokens) whose label is right", "scikit-learn accuracy_score",
       true},
      {"macro_f1", "mean F1 over the labels that occur", "scikit-learn f1_score, average=macro",
       true},
      {"weighted_f1", "F1 over labels, weighted by support",
       "scikit-learn f1_score, average=weighted", true},
      {"micro_f1", "F1 of all decisions pooled", "scikit-learn f1_score, average=micro", true},
      {"samples_f1", "mean F1 over rows (multi-label)", "scikit-learn f1_score, average=samples",
       true},
      {"matthews", "Matthews correlation, multi-class",
       "Gorodkin 2004; scikit-learn matthews_corrcoef", true},
      {"pearson", "linear correlation", "scipy.stats.pearsonr", true},
      {"spearman", "rank correlation, ties share their average rank", "scipy.stats.spearmanr",
       true},
      {"mse", "mean squared error", "scikit-learn mean_squared_error", false},
      {"mae", "mean absolute error", "scikit-learn mean_absolute_error", false},
      {"f1", "F1 of entities, micro (seqeval)", "conlleval.pl; seqeval 1.2.2", true},
      {"precision", "precision of entities, micro (seqeval)", "conlleval.pl; seqeval 1.2.2", true},
      {"recall", "recall of entities, micro (seqeval)", "conlleval.pl; seqeval 1.2.2", true},
  };
  return kMetrics;
}

const MetricInfo* find_metric(std::string_view name) {
  for (const MetricInfo& info : metrics())
    if (info.name == name) return &info;
  return nullptr;
}

const MetricInfo& metric(std::string_view name, std::string_view where) {
  if (const MetricInfo* info = find_metric(name)) return *info;
  std::vector<std::string> known;
  for (const MetricInfo& info : metrics()) known.push_back(info.name);
  fail(ErrorCode::BadInput, "{}: unknown metric \"{}\";{}", where, name, suggestion(name, known));
}

}  // namespace attune
