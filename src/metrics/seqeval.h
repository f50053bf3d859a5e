#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// How entities are read from tags.
/// Conlleval: an entity starts at B-, or at I- when the previous tag is O or of another type (E-
/// and S- of IOBES are understood). Strict: IOB2 only; entities that do not start with B- are
/// dropped.
enum class EntityMode { Conlleval, Strict };
/// "conlleval" or "strict IOB2", to be printed beside the figures.
const char* entity_mode_name(EntityMode mode);

/// One entity: its type and its first and last token, both included.
struct Entity {
  std::string type;
  int64_t first = 0, last = 0;
  auto operator<=>(const Entity&) const = default;
};

/// Entities of one sentence, in order. Errors: BadInput for an empty tag, and in strict mode for a
/// prefix other than B, I or O. Reference: conlleval.pl (CoNLL-2000); seqeval 1.2.2, get_entities
/// and scheme.IOB2.
std::vector<Entity> entities(const std::vector<std::string>& tags, EntityMode mode);

struct EntityScore {
  double precision = 0, recall = 0, f1 = 0;  // 0 when the denominator is 0
  int64_t support = 0;                       // gold entities
  int64_t predicted = 0, correct = 0;
};

struct SequenceReport {
  EntityScore overall;  // micro over entities
  double macro_f1 = 0, weighted_f1 = 0;
  double accuracy = 0;  // over tokens, O included
  std::map<std::string, EntityScore> types;
};

/// Compares tags sentence by sentence; an entity is right when type and both boundaries are equal.
/// Errors: BadInput when there are no tokens, or the numbers of sentences or of a sentence's tags
/// differ. Reference: seqeval 1.2.2, default mode and mode="strict" with scheme=IOB2.
SequenceReport sequence_report(const std::vector<std::vector<std::string>>& gold,
                               const std::vector<std::vector<std::string>>& predicted,
                               EntityMode mode = EntityMode::Conlleval);

}  // namespace attune
