#pragma once
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/node.h"

namespace attune {

/// Reads YAML 1.2 text (JSON too) into nodes that know their file, line and column. Anchors,
/// aliases and `<<` merge keys are resolved; `${NAME}` in a value is replaced by the environment
/// variable, `$${` stands for `${`. `file` leads every message. An empty text gives null. Errors:
/// BadInput: not valid YAML or UTF-8, a key twice in one mapping, a variable that is not set, an
/// alias to itself, more than one document.
Node parse_yaml(std::string_view text, const std::string& file);

/// Reads a YAML file and merges what it includes: `include: base.yaml` (or a list) at its top,
/// relative to its folder. Mappings merge key by key, later ones and the including file winning;
/// lists and scalars are replaced. Errors: those of parse_yaml; NotFound; BadInput when files
/// include each other in a circle.
Node load_yaml(const std::string& path);

/// `over` laid over `base`, as includes are merged.
Node merge_nodes(const Node& base, const Node& over);

/// Applies one override: "methods.0.lora.rank=16"; the value is YAML ("16", "[a, b]", "{x: 1}").
/// Errors: BadInput when there is no "=", when the value is not YAML, when the path leads nowhere
/// (Node::with).
Node apply_set(const Node& root, std::string_view assignment);

/// JSON as YAML text: block style, flow for lists of numbers, strings quoted only where they must
/// be. parse_yaml(to_yaml(j)).to_json() == j.
std::string to_yaml(const Json& value);

}  // namespace attune
