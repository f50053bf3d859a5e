#pragma once
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/node.h"
#include "train/schedule.h"

namespace attune {

/// Readings of recipe values that are written in more than one way. `path` names the value in
/// errors, all BadInput.

/// "10%" -> 0.1. False when the text is not a percentage.
bool read_percent(std::string_view text, double& share);
/// 0.1 -> "10%": the shortest text that read_percent turns into exactly this share.
std::string percent_text(double share);

/// "10%", {steps: N}, {examples: N}, {minutes: N}, {epochs: N}, epoch, never.
Interval read_interval(const Node& node, std::string_view path);
Json interval_json(const Interval& interval);

/// linear, cosine, constant, or {linear: {warmup: 6%}}; warmup: a percentage of the run, or a
/// number of steps.
Schedule read_schedule(const Node& node, std::string_view path);
Json schedule_json(const Schedule& schedule);

/// null, or the word none.
bool is_none(const Node& node);

/// Fails with BadInput: `recipe.yaml:7:12: train.eval_every: expected ..., found "soon"`.
[[noreturn]] void wrong_value(const Node& node, std::string_view path, std::string_view expected);

}  // namespace attune
