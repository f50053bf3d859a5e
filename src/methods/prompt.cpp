// Prompt tuning: trained rows in front of the token embeddings.
#include "methods/registry.h"
#include "methods/sequences.h"

namespace attune {
namespace {

class Prompt final : public Tuner {
 public:
  explicit Prompt(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        length_(options.get<int64_t>("length")),
        init_(options.get<std::string>("init")),
        text_(options.get<std::string>("text")),
        pooled_(options.get<bool>("pooled")) {}

  void attach(Attachment& attachment) override {
    for (const Site& site : flow_sites(attachment, sites_, SiteKind::Rows, "prompt")) {
      Extend edit;
      edit.rows = attachment.parameter(site, "prompt",
                                       first_prompt(attachment, site, length_, init_, text_));
      edit.pooled = pooled_;
      attachment.add(site, edit);
    }
  }

 private:
  std::vector<std::string> sites_;
  int64_t length_;
  std::string init_, text_;
  bool pooled_;
};

}  // namespace

void register_prompt(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "prompt";
  entry.summary = "trained rows in front of the token embeddings of every text";
  entry.reference =
      "Lester et al. 2021, \"The Power of Scale for Parameter-Efficient Prompt Tuning\", arXiv "
      "2104.08691";
  entry.options = {
      {"sites", "globs", "auto", "",
       "where the rows go in; auto: the first stack's token rows, before positions join them"},
      {"length", "int", "20", "[0, inf)", "trained rows"},
      {"init", "choice", "auto", "auto|random|vocab|text",
       "first values: uniform (U(-0.5, 0.5); of image patches' size in front of those), rows of "
       "random tokens, or those of `text`; auto: vocab where "
       "the model reads tokens"},
      {"text", "string", "\"\"", "", "the words that init: text begins from"},
      {"pooled", "bool", "false", "",
       "a head that pools the first row takes the first trained row, as PEFT does"},
  };
  entry.learning_rate = 1e-2;
  entry.rate_by_width = false;
  entry.identity_at_start = false;
  entry.tiny = "{length: 3}";
  entry.examples = {"{}", "{length: 50, init: random}",
                    "{init: text, text: \"classify the package by its description\"}"};
  entry.make = [](const Options& options) { return std::make_unique<Prompt>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) count += options.get<int64_t>("length") * site.in;
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
