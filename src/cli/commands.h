#pragma once
#include <string>
#include <vector>

#include "base/json.h"

namespace attune {

/// One flag of a command. kind: "string", "int", "number", "bool", "list" (repeatable). Its value
/// is in the request's arguments under the long name with "_" for "-": "--max-length 128" is
/// {"max_length": 128}.
struct FlagSpec {
  std::string name;  // "--output", or with a short form "-o,--output"
  std::string kind;
  std::string help;
  std::string fallback;  // default as YAML-like text; "": null (bool: false, list: [])
};

/// One positional argument; its value is a string, or with `many` a list of strings.
struct PositionalSpec {
  std::string name;  // "RECIPE"; in the request "recipe"
  std::string help;
  bool required = true;
  bool many = false;
};

/// One command of the program, as data: the parser, the help, the docs and the tests read it.
struct CommandSpec {
  std::string name, summary;
  std::vector<PositionalSpec> positionals;
  std::vector<FlagSpec> flags;  // besides common_flags()
  std::vector<std::string> examples;
};

/// Every command that is built, in the order of `attune --help`.
const std::vector<CommandSpec>& commands();
/// Flags that every command has: --json, --quiet, --threads, --seed.
const std::vector<FlagSpec>& common_flags();

/// What a command line asks for.
struct ParsedCommand {
  enum class Kind { Run, Print, Refuse } kind = Kind::Run;
  Json request;      // Run: {"command": "train", "args": {...}} with every argument of the command
  std::string text;  // Print: help or version, for standard output; Refuse: what is wrong, for
                     // standard error
  int status = 0;    // Refuse: 2
};

/// Reads the arguments after the program's name. Never throws for what a user typed.
ParsedCommand parse_command_line(const std::vector<std::string>& arguments);

/// The project's version: "0.1.0".
const char* program_version();

}  // namespace attune
