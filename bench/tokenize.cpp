// Tokenising on one thread, timed by its own clock; one JSON line. Read by bench/reach.py.
//
//   tokenize FOLDER TEXTS [--rounds N] [--no-offsets]
//
// FOLDER holds tokenizer.json (or what else Tokenizer::load reads), TEXTS one text a line.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "text/tokenizer.h"

namespace {

using namespace attune;

double seconds_of(const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                  const EncodeOptions& options, int64_t& tokens) {
  const auto start = std::chrono::steady_clock::now();
  tokens = 0;
  for (const std::string& text : texts)
    tokens += static_cast<int64_t>(tokenizer.encode(text, options).ids.size());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int run(const std::vector<std::string>& arguments) {
  std::vector<std::string> places;
  int rounds = 5;
  EncodeOptions options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--no-offsets")
      options.offsets = false;
    else if (arguments[i] == "--rounds" && i + 1 < arguments.size())
      rounds = std::max(std::atoi(arguments[++i].c_str()), 1);
    else
      places.push_back(arguments[i]);
  }
  if (places.size() != 2)
    fail(ErrorCode::BadInput, "usage: tokenize FOLDER TEXTS [--rounds N] [--no-offsets]");
  const Tokenizer tokenizer = Tokenizer::load(places[0]);
  const std::vector<std::string> texts = split(read_file(places[1]), '\n');
  std::vector<double> seconds;
  int64_t tokens = 0;
  for (int round = 0; round < rounds; ++round)
    seconds.push_back(seconds_of(tokenizer, texts, options, tokens));
  std::sort(seconds.begin(), seconds.end());
  fmt::print("{}\n", Json{{"texts", texts.size()},
                          {"tokens", tokens},
                          {"min_seconds", seconds.front()},
                          {"median_seconds", seconds[seconds.size() / 2]}}
                         .dump());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const Error& error) {
    fmt::print(stderr, "tokenize: {}\n", error.what());
    return 2;
  }
}
