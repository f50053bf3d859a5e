#include "recipe/compare.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "recipe/names.h"
#include "recipe/yaml.h"

namespace attune {

namespace fs = std::filesystem;

namespace {

struct Contender {
  std::string label;
  std::vector<NamedOptions> methods;
};

/// "lora", "{lora: {rank: 8}}" or "wide={lora: {rank: 64}}"; "a+b" is both in one run.
Contender contender_of(const std::string& text) {
  const size_t equals = text.find('=');
  const bool labelled = equals != std::string::npos && equals < text.find('{');
  Contender contender;
  contender.label = labelled ? text.substr(0, equals) : text;
  const std::string value = labelled ? text.substr(equals + 1) : text;
  const std::vector<std::string> parts =
      value.find('{') == std::string::npos ? split(value, '+') : std::vector<std::string>{value};
  for (const std::string& part : parts) {
    const Node node = parse_yaml(part, "--methods");
    for (const NamedOptions& method : checked_methods(node)) contender.methods.push_back(method);
  }
  for (char& letter : contender.label)
    if (std::string_view("{}[]:,\"' /*").find(letter) != std::string_view::npos) letter = '_';
  return contender;
}

std::string run_folder(const CompareRequest& request, const Contender& contender, int64_t seed) {
  return format("{}/{}-seed-{}", request.output, contender.label, seed);
}

/// Runs `attune ARGUMENTS` and waits; standard output goes nowhere.
int run_program(const std::string& program, const std::vector<std::string>& arguments) {
  // Ctrl-C reaches the run as well: it saves and ends, and its status ends the comparison.
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGINT, &ignore, &before);
  const pid_t child = ::fork();
  if (child < 0)
    fail(ErrorCode::Io, "comparing: no process could be started for {}; free some memory", program);
  if (child == 0) {
    ::sigaction(SIGINT, &before, nullptr);
    const int nowhere = ::open("/dev/null", O_WRONLY);
    if (nowhere >= 0) ::dup2(nowhere, STDOUT_FILENO);
    std::vector<char*> raw{const_cast<char*>(program.c_str())};
    for (const std::string& argument : arguments)
      raw.push_back(const_cast<char*>(argument.c_str()));
    raw.push_back(nullptr);
    ::execv(program.c_str(), raw.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
  }
  ::sigaction(SIGINT, &before, nullptr);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Recipe recipe_of(const CompareRequest& request, const Contender& contender, int64_t seed) {
  Recipe recipe = request.recipe;
  recipe.methods = contender.methods;
  recipe.seed = static_cast<uint64_t>(seed);
  recipe.output = run_folder(request, contender, seed);
  return recipe;
}

/// Where the recipe of a run stands as it was asked for.
std::string recipe_path(const CompareRequest& request, const Contender& contender, int64_t seed) {
  return format("{}/recipes/{}-seed-{}.yaml", request.output, contender.label, seed);
}

/// The first key whose value differs, "train.epochs"; "" when none does.
std::string difference(const Json& a, const Json& b, const std::string& path = "") {
  if (a == b) return "";
  if (!a.is_object() || !b.is_object()) return path;
  Json keys = a;
  keys.update(b);
  for (const auto& [key, unused] : keys.items()) {
    const std::string found = difference(a.value(key, Json()), b.value(key, Json()),
                                         path.empty() ? key : path + "." + key);
    if (!found.empty()) return found;
  }
  return "";
}

/// The value at such a path.
std::string value_at(const Json& recipe, const std::string& path) {
  const Json* place = &recipe;
  for (const std::string& key : split(path, '.')) {
    if (!place->is_object() || !place->contains(key)) return "absent";
    place = &place->at(key);
  }
  return place->dump();
}

/// Whether a run that stands there is one of this recipe. Errors: BadInput when it is not, unless
/// it may be overwritten.
bool is_current(const CompareRequest& request, const Contender& contender, int64_t seed) {
  const std::string run = run_folder(request, contender, seed);
  const std::string asked = recipe_path(request, contender, seed);
  Json wanted = recipe_of(request, contender, seed).located().resolved();
  Json kept = load_recipe(run + "/recipe.yaml", {}).located().resolved();
  // The run itself has what `auto` became: rates, the length that leaves a prompt room.
  if (file_exists(asked)) {
    const Json before = load_recipe(asked, {}).resolved();
    kept["train"]["lr"] = before["train"]["lr"];
    kept["data"]["max_length"] = before["data"]["max_length"];
  }
  wanted.erase("output");
  kept.erase("output");
  // As many threads as there are: another number changes the last bits of sums.
  for (Json* recipe : {&wanted, &kept}) (*recipe)["train"].erase("threads");
  const std::string key = difference(wanted, kept);
  if (key.empty()) return true;
  if (!request.overwrite)
    fail(ErrorCode::BadInput,
         "comparing: {} is a run of another recipe: {} is {} there and {} here; give another -o, "
         "or --overwrite to run again what differs",
         run, key, value_at(kept, key), value_at(wanted, key));
  return false;
}

int run_one(const CompareRequest& request, const Contender& contender, int64_t seed) {
  const std::string run = run_folder(request, contender, seed);
  const bool begun = file_exists(run + "/recipe.yaml");
  if (begun && is_current(request, contender, seed)) {
    if (file_exists(run + "/run.json")) return 0;
    log_info("{}: going on", run);
    return run_program(request.program, {"resume", run});
  }
  const std::string path = recipe_path(request, contender, seed);
  fs::create_directories(request.output + "/recipes");
  write_file_atomic(path, recipe_of(request, contender, seed).resolved_yaml());
  log_info("{}: starting", run);
  std::vector<std::string> arguments{"train", path};
  if (begun) arguments.emplace_back("--overwrite");
  return run_program(request.program, arguments);
}

Json spread(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  const double mean = sum / static_cast<double>(values.size());
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double sd =
      values.size() > 1 ? std::sqrt(squares / static_cast<double>(values.size() - 1)) : 0;
  return Json{{"mean", mean}, {"sd", sd}, {"values", values}};
}

/// One row from the runs of all seeds.
Json row_of(const CompareRequest& request, const Contender& contender) {
  std::map<std::string, std::vector<double>> metrics, sums;
  Json last;
  const int64_t first = static_cast<int64_t>(request.recipe.seed);
  for (int64_t seed = first; seed < first + request.seeds; ++seed) {
    last = read_json(run_folder(request, contender, seed) + "/run.json");
    const auto add = [&](const Json& found, const std::string& set) {
      for (const auto& [name, value] : found.items())
        if (value.is_number() && name != "examples")
          metrics[set + name].push_back(value.get<double>());
    };
    add(last.at("metrics"), "");
    const Json further = last.value("eval_on", Json::object());
    for (const auto& [set, found] : further.items()) add(found, set + "/");
    for (const char* name : {"seconds", "tokens_per_second", "peak_bytes"})
      sums[name].push_back(last.at(name).get<double>());
  }
  Json row{{"method", contender.label}, {"seeds", request.seeds}, {"metrics", Json::object()}};
  for (const std::pair<const std::string, std::vector<double>>& entry : metrics)
    row["metrics"][entry.first] = spread(entry.second);
  for (const char* name : {"trainable", "head", "stored_bytes"}) row[name] = last["costs"][name];
  for (const std::pair<const std::string, std::vector<double>>& entry : sums)
    row[entry.first] = spread(entry.second)["mean"];
  return row;
}

void write_rows(const CompareRequest& request, const Json& rows) {
  write_file_atomic(request.output + "/compare.json", Json{{"rows", rows}}.dump(2) + "\n");
  write_file_atomic(request.output + "/compare.md", compare_table(rows));
}

std::vector<Contender> contenders_of(const CompareRequest& request) {
  std::vector<Contender> result;
  for (const std::string& text : request.methods) {
    result.push_back(contender_of(text));
    for (size_t i = 0; i + 1 < result.size(); ++i)
      if (result[i].label == result.back().label)
        fail(ErrorCode::BadInput,
             "--methods: \"{}\" stands there twice; give one of them a label of its own, such as "
             "other={{lora: {{rank: 4}}}}",
             result.back().label);
  }
  if (result.empty())
    fail(ErrorCode::BadInput, "comparing: no method is named; give --methods lora,ia3,bias");
  return result;
}

}  // namespace

int compare(const CompareRequest& request, const std::function<void(const Json&)>& finished,
            Json& rows) {
  const std::vector<Contender> contenders = contenders_of(request);
  if (request.seeds < 1)
    fail(ErrorCode::BadInput, "--seeds: {} was given; at least 1 is needed", request.seeds);
  const Recipe& recipe = request.recipe;
  if (recipe.eval.empty() && recipe.eval_on.empty() && recipe.eval_share <= 0)
    fail(ErrorCode::BadInput,
         "comparing needs evaluation data: give data.eval a file or a share such as 10%");
  fs::create_directories(request.output);
  const FileLock lock(request.output + "/.lock");
  rows = Json::array();
  const int64_t first = static_cast<int64_t>(request.recipe.seed);
  for (const Contender& contender : contenders)
    for (int64_t seed = first; seed < first + request.seeds; ++seed)
      if (file_exists(run_folder(request, contender, seed) + "/recipe.yaml"))
        is_current(request, contender, seed);
  for (const Contender& contender : contenders) {
    for (int64_t seed = first; seed < first + request.seeds; ++seed) {
      const int status = run_one(request, contender, seed);
      if (status != 0) return status;
    }
    rows.push_back(row_of(request, contender));
    write_rows(request, rows);
    finished(rows.back());
  }
  return 0;
}

std::string compare_table(const Json& rows) {
  std::vector<std::string> names;
  for (const Json& row : rows)
    for (const auto& [name, value] : row.at("metrics").items())
      if (names.size() < 3 && std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(name);
  std::string text = "| method |";
  std::string line = "|---|";
  for (const std::string& name : names) {
    text += format(" {} |", name);
    line += "---:|";
  }
  text += " trained | head | stored | seconds | tokens/s | peak memory |\n";
  text += line + "---:|---:|---:|---:|---:|---:|\n";
  for (const Json& row : rows) {
    text += format("| {} |", row.at("method").get<std::string>());
    for (const std::string& name : names) {
      const Json& metrics = row.at("metrics");
      text += metrics.contains(name)
                  ? format(" {:.4f} ± {:.4f} |", metrics[name]["mean"].get<double>(),
                           metrics[name]["sd"].get<double>())
                  : " |";
    }
    text += format(" {} | {} | {} | {:.1f} | {:.0f} | {} |\n",
                   with_thousands(row.at("trainable").get<int64_t>()),
                   with_thousands(row.at("head").get<int64_t>()),
                   human_bytes(row.at("stored_bytes").get<double>()),
                   row.at("seconds").get<double>(), row.at("tokens_per_second").get<double>(),
                   human_bytes(row.at("peak_bytes").get<double>()));
  }
  return text;
}

}  // namespace attune
