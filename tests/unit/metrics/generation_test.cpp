// ROUGE, BLEU and chrF against rouge_score 0.1.2 and sacrebleu 2.6.0. The numbers are what these
// print for the pairs below:
//   rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False).score(reference,
//   text); sacrebleu.corpus_bleu(texts, [references]).score;
//   sacrebleu.corpus_chrf(texts, [references]).score; Tokenizer13a()(text)
#include <gtest/gtest.h>

#include <vector>

#include "base/text.h"
#include "metrics/bleu.h"
#include "metrics/chrf.h"
#include "metrics/rouge.h"
#include "metrics/words.h"

namespace attune {
namespace generation_test {

struct Case {
  std::string text, reference;
  double rouge1, rouge2, rouge_l;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"The cat sat on the mat.", "The cat is sitting on the mat.", 0.7692307692307692,
       0.5454545454545454, 0.7692307692307692},
      {"A quick, brown fox -- jumps over 3.5 dogs!",
       "The quick brown fox jumped over 3.5 lazy dogs.", 0.7368421052631577, 0.47058823529411764,
       0.7368421052631577},
      {"", "Nothing was said.", 0, 0, 0},
      {"It's the state-of-the-art & cheap (so they say).",
       "It is state-of-the-art &amp; cheap, or so they say.", 0.7826086956521738,
       0.47619047619047616, 0.7826086956521738},
      {"Caf\u00e9 au lait costs 4,50 \u20ac.", "Ein Caf\u00e9 au lait kostet 4,50 \u20ac.",
       0.7692307692307692, 0.5454545454545454, 0.7692307692307692},
      {"\u4f60\u597d \u4e16\u754c", "\u4f60\u597d\uff0c\u4e16\u754c", 0, 0, 0},
      {"1,000-fold 10-12 a.b ,x .y", "1,000 fold 10 - 12 a.b , x . y", 1, 1, 1}};
  return kCases;
}

double bleu(const std::string& text, const std::string& reference) {
  Bleu bleu;
  bleu.add(text, reference);
  return bleu.score();
}
double chrf(const std::string& text, const std::string& reference) {
  Chrf chrf;
  chrf.add(text, reference);
  return chrf.score();
}

TEST(Rouge, GivesThePackagesNumbers) {
  for (const Case& c : cases()) {
    const Rouge found = rouge(c.text, c.reference);
    EXPECT_NEAR(found.rouge1, c.rouge1, 1e-12) << c.text;
    EXPECT_NEAR(found.rouge2, c.rouge2, 1e-12) << c.text;
    EXPECT_NEAR(found.rouge_l, c.rouge_l, 1e-12) << c.text;
  }
}

TEST(Bleu, GivesThePackagesNumbers) {
  Bleu all;
  for (const Case& c : cases()) all.add(c.text, c.reference);
  EXPECT_NEAR(all.score(), 42.00571639327921, 1e-10);
  EXPECT_NEAR(bleu(cases()[0].text, cases()[0].reference), 42.38365628278778, 1e-10);
  EXPECT_NEAR(bleu(cases()[1].text, cases()[1].reference), 11.731175160263996, 1e-10);
  EXPECT_NEAR(bleu(cases()[3].text, cases()[3].reference), 24.384183193426086, 1e-10);
  EXPECT_NEAR(bleu(cases()[6].text, cases()[6].reference), 84.23626743789745, 1e-10);
  EXPECT_NEAR(bleu("the cat sat quietly down", "the dog sat down on it"), 11.51015341649912, 1e-10);
  EXPECT_EQ(bleu("a b", "a b"), 0);  // no run of three words
  EXPECT_EQ(bleu("", "a b"), 0);
}

TEST(Chrf, GivesThePackagesNumbers) {
  Chrf all;
  for (const Case& c : cases()) all.add(c.text, c.reference);
  EXPECT_NEAR(all.score(), 52.655821682524106, 1e-10);
  EXPECT_NEAR(chrf(cases()[0].text, cases()[0].reference), 49.6485170311433, 1e-10);
  EXPECT_NEAR(chrf(cases()[1].text, cases()[1].reference), 44.59637617163659, 1e-10);
  EXPECT_NEAR(chrf(cases()[3].text, cases()[3].reference), 60.12988718979678, 1e-10);
  EXPECT_NEAR(chrf(cases()[6].text, cases()[6].reference), 84.59329201101423, 1e-10);
  // References too short for the longest runs.
  EXPECT_NEAR(chrf("ab c", "a"), 71.42857142857143, 1e-10);
  Chrf two;
  two.add("nothing", "no");
  two.add("hello world", "hello world");
  EXPECT_NEAR(two.score(), 97.71754636233952, 1e-10);
  EXPECT_NEAR(chrf("a b", "a b"), 100, 1e-12);
  EXPECT_EQ(chrf("", "a b"), 0);
}

TEST(Tokens13a, AreThoseOfMteval) {
  const auto joined = [](const std::string& text) { return join(tokens_13a(text), " "); };
  EXPECT_EQ(joined("A quick, brown fox -- jumps over 3.5 dogs!"),
            "A quick , brown fox -- jumps over 3.5 dogs !");
  EXPECT_EQ(joined("It's the state-of-the-art & cheap (so they say)."),
            "It's the state-of-the-art & cheap ( so they say ) .");
  EXPECT_EQ(joined("1,000-fold 10-12 a.b ,x .y"), "1,000 - fold 10 - 12 a . b , x . y");
  EXPECT_EQ(joined("a<skipped>b x-\ny 5- -5 &quot;q&quot; 1.5. .5 don't A.B. \u00e9.\u00e9,"),
            "ab xy 5 - -5 \" q \" 1.5 . . 5 don't A . B . \u00e9 . \u00e9 ,");
}

TEST(BlankSeparated, KnowsAllWhiteSpace) {
  EXPECT_EQ(blank_separated("a\u00a0b\u3000c \t d"),
            (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(without_blank_ends("\u2003 a b\n"), "a b");
  EXPECT_EQ(without_blank_ends(" \n"), "");
}

}  // namespace generation_test
}  // namespace attune
