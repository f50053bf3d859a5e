#include "metrics/seqeval.h"

#include <algorithm>

#include "base/error.h"

namespace attune {
namespace {

struct Tag {
  char prefix = 'O';
  std::string_view type = "";
};

Tag parse_tag(std::string_view text) {
  if (text.empty())
    fail(ErrorCode::BadInput,
         "scoring tags: an empty tag; expected O, or a prefix and a type such as B-PER");
  std::string_view rest = text.substr(1);
  const size_t dash = rest.find('-');
  if (dash != std::string_view::npos) rest = rest.substr(dash + 1);
  return {text[0], rest.empty() ? std::string_view("_") : rest};
}

bool ends_between(const Tag& previous, const Tag& next) {
  const char p = previous.prefix, n = next.prefix;
  if (p == 'E' || p == 'S') return true;
  if ((p == 'B' || p == 'I') && (n == 'B' || n == 'S' || n == 'O')) return true;
  return p != 'O' && p != '.' && previous.type != next.type;
}

bool starts_between(const Tag& previous, const Tag& next) {
  const char p = previous.prefix, n = next.prefix;
  if (n == 'B' || n == 'S') return true;
  if ((p == 'E' || p == 'S' || p == 'O') && (n == 'E' || n == 'I')) return true;
  return n != 'O' && n != '.' && previous.type != next.type;
}

std::vector<Entity> conlleval_entities(const std::vector<std::string>& tags) {
  std::vector<Entity> found;
  Tag previous;
  int64_t first = 0;
  const int64_t count = static_cast<int64_t>(tags.size());
  for (int64_t i = 0; i <= count; ++i) {
    const Tag tag = i < count ? parse_tag(tags[static_cast<size_t>(i)]) : Tag{'O', "_"};
    if (ends_between(previous, tag)) found.push_back({std::string(previous.type), first, i - 1});
    if (starts_between(previous, tag)) first = i;
    previous = tag;
  }
  return found;
}

std::vector<Entity> strict_entities(const std::vector<std::string>& tags) {
  std::vector<Entity> found;
  bool open = false;
  for (size_t i = 0; i < tags.size(); ++i) {
    const Tag tag = parse_tag(tags[i]);
    if (tag.prefix != 'B' && tag.prefix != 'I' && tag.prefix != 'O')
      fail(ErrorCode::BadInput,
           "scoring tags in strict IOB2 mode: tag \"{}\" has the prefix {}; expected B, I or O",
           tags[i], tag.prefix);
    const int64_t at = static_cast<int64_t>(i);
    if (tag.prefix == 'B') {
      found.push_back({std::string(tag.type), at, at});
      open = true;
    } else if (tag.prefix == 'I' && open && found.back().type == tag.type) {
      found.back().last = at;
    } else {
      open = false;
    }
  }
  return found;
}

void finish_score(EntityScore& score) {
  const double correct = static_cast<double>(score.correct);
  const double predicted = static_cast<double>(score.predicted);
  const double support = static_cast<double>(score.support);
  score.precision = predicted > 0 ? correct / predicted : 0;
  score.recall = support > 0 ? correct / support : 0;
  score.f1 = predicted + support > 0 ? 2 * correct / (predicted + support) : 0;
}

/// Adds one sentence's entities to the counts.
void count_entities(const std::vector<Entity>& gold, const std::vector<Entity>& predicted,
                    SequenceReport& report) {
  for (const Entity& entity : gold) ++report.types[entity.type].support;
  for (const Entity& entity : predicted) {
    EntityScore& score = report.types[entity.type];
    ++score.predicted;
    if (std::find(gold.begin(), gold.end(), entity) != gold.end()) ++score.correct;
  }
}

void finish_report(SequenceReport& report) {
  for (auto& [type, score] : report.types) {
    finish_score(score);
    report.overall.support += score.support;
    report.overall.predicted += score.predicted;
    report.overall.correct += score.correct;
    report.macro_f1 += score.f1 / static_cast<double>(report.types.size());
    report.weighted_f1 += score.f1 * static_cast<double>(score.support);
  }
  finish_score(report.overall);
  if (report.overall.support > 0) report.weighted_f1 /= static_cast<double>(report.overall.support);
}

}  // namespace

const char* entity_mode_name(EntityMode mode) {
  return mode == EntityMode::Strict ? "strict IOB2" : "conlleval";
}

std::vector<Entity> entities(const std::vector<std::string>& tags, EntityMode mode) {
  return mode == EntityMode::Strict ? strict_entities(tags) : conlleval_entities(tags);
}

SequenceReport sequence_report(const std::vector<std::vector<std::string>>& gold,
                               const std::vector<std::vector<std::string>>& predicted,
                               EntityMode mode) {
  if (gold.size() != predicted.size())
    fail(ErrorCode::BadInput,
         "scoring tags: {} gold and {} predicted sentences, expected the same number", gold.size(),
         predicted.size());
  SequenceReport report;
  int64_t tokens = 0, right = 0;
  for (size_t s = 0; s < gold.size(); ++s) {
    if (gold[s].size() != predicted[s].size())
      fail(ErrorCode::BadInput,
           "scoring tags: sentence {} has {} gold and {} predicted tags, expected the same number",
           s, gold[s].size(), predicted[s].size());
    tokens += static_cast<int64_t>(gold[s].size());
    for (size_t i = 0; i < gold[s].size(); ++i) right += gold[s][i] == predicted[s][i];
    count_entities(entities(gold[s], mode), entities(predicted[s], mode), report);
  }
  if (tokens == 0) fail(ErrorCode::BadInput, "scoring tags: there are no tokens to score");
  report.accuracy = static_cast<double>(right) / static_cast<double>(tokens);
  finish_report(report);
  return report;
}

}  // namespace attune
