#include "recipe/values.h"

#include <charconv>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/options.h"
#include "base/text.h"

namespace attune {

namespace {

constexpr std::string_view kIntervalForms =
    "a share of the run such as 10%, N or {steps: N}, {examples: N}, {minutes: N}, epoch or never";

struct IntervalName {
  Interval::Kind kind;
  std::string_view name;
};
constexpr IntervalName kIntervalNames[] = {{Interval::Kind::Steps, "steps"},
                                           {Interval::Kind::Examples, "examples"},
                                           {Interval::Kind::Minutes, "minutes"},
                                           {Interval::Kind::Epochs, "epochs"}};

struct ScheduleName {
  Schedule::Kind kind;
  std::string_view name;
};
constexpr ScheduleName kScheduleNames[] = {{Schedule::Kind::Linear, "linear"},
                                           {Schedule::Kind::Cosine, "cosine"},
                                           {Schedule::Kind::Constant, "constant"}};

std::string inside(std::string_view path, std::string_view key) {
  return format("{}.{}", path, key);
}

void read_warmup(const Node& node, std::string_view path, Schedule& schedule) {
  constexpr std::string_view kForms =
      "a share of the run below 100% such as 6%, or a number of steps";
  if (!node.is_scalar()) wrong_value(node, path, kForms);
  double share = 0;
  if (read_percent(node.text(), share)) {
    if (share >= 1) wrong_value(node, path, kForms);
    schedule.warmup = share;
    return;
  }
  const Json value = node.to_json();
  if (!value.is_number_integer() || value.get<int64_t>() < 0) wrong_value(node, path, kForms);
  schedule.warmup_steps = value.get<int64_t>();
}

}  // namespace

bool is_none(const Node& node) {
  return node.is_null() || (node.is_scalar() && node.text() == "none");
}

void wrong_value(const Node& node, std::string_view path, std::string_view expected) {
  const std::string place = node.place().text();
  fail(ErrorCode::BadInput, "{}{}{}: expected {}, found {}", place, place.empty() ? "" : ": ", path,
       expected, node.shown());
}

bool read_percent(std::string_view text, double& share) {
  text = trim(text);
  if (text.size() < 2 || text.back() != '%') return false;
  const std::string_view digits = trim(text.substr(0, text.size() - 1));
  if (digits.empty() ||
      !((digits.front() >= '0' && digits.front() <= '9') || digits.front() == '.'))
    return false;
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return false;
  share = value / 100;
  return true;
}

std::string percent_text(double share) {
  for (int digits = 1; digits <= 17; ++digits) {
    const std::string text = format("{:.{}g}%", share * 100, digits);
    double back = 0;
    if (text.find('e') == std::string::npos && read_percent(text, back) && back == share)
      return text;
  }
  return format("{}%", share * 100);
}

Interval read_interval(const Node& node, std::string_view path) {
  if (node.is_scalar()) {
    double share = 0;
    if (read_percent(node.text(), share) && share > 0 && share <= 1)
      return {Interval::Kind::Share, share};
    if (node.text() == "epoch") return {Interval::Kind::Epochs, 1};
    if (node.text() == "never") return {Interval::Kind::Never, 0};
    const Json steps = node.to_json();
    if (steps.is_number_integer() && steps.get<int64_t>() > 0)
      return {Interval::Kind::Steps, static_cast<double>(steps.get<int64_t>())};
  }
  if (!node.is_map() || node.entries().size() != 1) wrong_value(node, path, kIntervalForms);
  const auto& [name, value] = node.entries().front();
  for (const IntervalName& known : kIntervalNames) {
    if (known.name != name) continue;
    const double count = value.as_number(inside(path, name));
    const bool whole =
        known.kind == Interval::Kind::Steps || known.kind == Interval::Kind::Examples;
    if (!(count > 0) || !std::isfinite(count) || (whole && count != std::floor(count)))
      wrong_value(value, inside(path, name),
                  whole ? "a whole number of at least 1" : "a number above 0");
    return {known.kind, count};
  }
  fail(ErrorCode::BadInput, "{}: {}: unknown key; expected {}", value.place().text(),
       inside(path, name), kIntervalForms);
}

Json interval_json(const Interval& interval) {
  if (interval.kind == Interval::Kind::Never) return "never";
  if (interval.kind == Interval::Kind::Share) return percent_text(interval.value);
  if (interval.kind == Interval::Kind::Epochs && interval.value == 1) return "epoch";
  Json result = Json::object();
  for (const IntervalName& known : kIntervalNames) {
    if (known.kind != interval.kind) continue;
    const int64_t whole = static_cast<int64_t>(interval.value);
    if (static_cast<double>(whole) == interval.value)
      result[std::string(known.name)] = whole;
    else
      result[std::string(known.name)] = interval.value;
  }
  return result;
}

Schedule read_schedule(const Node& node, std::string_view path) {
  Schedule schedule;
  const bool named = node.is_map() && node.entries().size() == 1;
  if (!node.is_scalar() && !named)
    wrong_value(node, path, "linear, cosine, constant, or {linear: {warmup: 6%}}");
  const std::string name = node.is_scalar() ? node.text() : node.entries().front().first;
  bool found = false;
  std::vector<std::string> names;
  for (const ScheduleName& known : kScheduleNames) {
    names.emplace_back(known.name);
    if (known.name != name) continue;
    schedule.kind = known.kind;
    found = true;
  }
  if (!found)
    fail(ErrorCode::BadInput, "{}: {}: unknown schedule \"{}\";{}", node.place().text(), path, name,
         suggestion(name, names));
  const Node given = named ? node.entries().front().second : Node();
  const char* warmup = schedule.kind == Schedule::Kind::Constant ? "0%" : "6%";
  const Options options(
      {{"warmup", "any", warmup, "", "share of the run, or steps, in which the rate rises"}}, given,
      inside(path, name));
  read_warmup(options.node("warmup"), inside(inside(path, name), "warmup"), schedule);
  return schedule;
}

Json schedule_json(const Schedule& schedule) {
  Json options = Json::object();
  if (schedule.warmup_steps > 0)
    options["warmup"] = schedule.warmup_steps;
  else
    options["warmup"] = percent_text(schedule.warmup);
  Json result = Json::object();
  for (const ScheduleName& known : kScheduleNames)
    if (known.kind == schedule.kind) result[std::string(known.name)] = options;
  return result;
}

}  // namespace attune
