// The commands of the program, as data.
#include "cli/commands.h"

namespace attune {

namespace {

const FlagSpec kOutput = {"-o,--output", "string", "directory or file to write", ""};

CommandSpec train_command() {
  return {
      "train",
      "fine-tune a model as a recipe says, or as flags say",
      {{"RECIPE", "recipe file (YAML or JSON)", false}},
      {{"--set", "list", "override one value: path=value, such as methods.0.lora.rank=16", ""},
       {"--overwrite", "bool", "replace the run that is in the output directory", ""},
       {"--model", "string", "directory or name of the pretrained model", ""},
       {"--task", "string", "what is learned; see attune tasks", ""},
       {"--train", "list", "file to train on", ""},
       {"--eval", "list", "file to evaluate on, or a share of the training rows such as 10%", ""},
       {"--method", "list", "tuning method, or {lora: {rank: 8}}; none: full fine-tuning", ""},
       {"-o,--output", "string", "run directory", ""},
       {"--columns", "string", "roles of columns: text=description,label=section", ""},
       {"--epochs", "number", "passes over the training rows", ""},
       {"--lr", "number", "peak learning rate", ""},
       {"--batch-size", "int", "examples a micro-batch", ""},
       {"--batch-tokens", "int", "packed rows a micro-batch", ""},
       {"--max-length", "int", "longest text in tokens", ""}},
      {"attune train examples/recipes/sections-bitfit.yaml --epochs 1 --set train.batch_size=16",
       "attune train --model cache/models/all-MiniLM-L6-v2 --task classify --train "
       "cache/sections/train-8000.jsonl "
       "--eval 10% --columns text=description,label=section --method lora --epochs 1 --output "
       "runs/first"}};
}

CommandSpec eval_command() {
  return {"eval",
          "measure a run or a model on a file",
          {{"TARGET", "run, checkpoint or model directory", true}},
          {{"--data", "string", "file to evaluate on; -: standard input", ""},
           {"--task", "string", "the task, where the target does not say it", ""},
           {"--columns", "string", "roles of columns: text=description,label=section", ""},
           {"--adapter", "list", "adapter directory; DIR:0.5 scales it", ""}},
          {"attune eval runs/quickstart --data cache/sections/eval-2000.jsonl",
           "attune eval cache/models/all-MiniLM-L6-v2 --adapter runs/quickstart/adapter --task "
           "classify "
           "--data cache/sections/eval-2000.jsonl --json"}};
}

CommandSpec predict_command() {
  return {"predict",
          "one JSON line for each input: label and scores, tagged spans, answers",
          {{"TARGET", "run, checkpoint or model directory", true},
           {"DATA", "file of inputs, as --data; -: standard input", false}},
          {{"--data", "string", "file of inputs; -: standard input", ""},
           {"--text", "list", "one input as text", ""},
           {"-o,--output", "string", "file for the lines instead of standard output", ""},
           {"--adapter", "list", "adapter directory; DIR:0.5 scales it", ""}},
          {"attune predict runs/quickstart --text \"a first text\" --text \"a second text\"",
           "attune predict runs/quickstart --data cache/sections/eval-2000.jsonl --output "
           "runs/predictions.jsonl"}};
}

CommandSpec generate_command() {
  return {
      "generate",
      "text that a language model goes on with: a JSON line for each input",
      {{"TARGET", "run, checkpoint or model directory", true}},
      {{"--prompt", "list", "one input as text", ""},
       {"--input", "string",
        "JSON lines {\"text\": ...} or {\"input_ids\": [...]}; -: standard input", ""},
       {"--greedy", "bool", "the likeliest token every time; what is done without other flags", ""},
       {"--temperature", "number", "sample; below 1 sharper, above 1 flatter", ""},
       {"--top-k", "int", "sample among so many likeliest tokens", ""},
       {"--top-p", "number", "sample among the likeliest tokens that reach this probability", ""},
       {"--beams", "int", "beam search with so many beams", ""},
       {"--max-new-tokens", "int", "tokens generated at most", "128"},
       {"--ignore-eos", "bool", "go on past end tokens", ""},
       {"--ids", "bool",
        "also output_ids: the new tokens; of encoder-decoders with the start token", ""},
       {"--precision", "string", "auto, fp32, bf16 or fp64", "auto"},
       {"--adapter", "list", "adapter directory; DIR:0.5 scales it", ""}},
      {"attune generate runs/shakespeare --prompt \"KING RICHARD II:\" --max-new-tokens 40",
       "attune generate runs/shakespeare --prompt \"My lord\" --temperature 0.8 --top-p 0.9 "
       "--ids"}};
}

CommandSpec forward_command() {
  return {"forward",
          "activations at any site, as safetensors",
          {{"TARGET", "run, checkpoint or model directory", true}},
          {{"--input", "string",
            "JSON lines: {\"input_ids\": [...]}, {\"text\": ...} or {\"image\": FILE}", ""},
           {"--want", "list", "sites or globs, separated by commas: logits,'enc.*.resid.out'", ""},
           kOutput,
           {"--precision", "string", "fp32, bf16 or fp64", "fp32"},
           {"--grad", "bool", "losses and gradients for lines with labels", ""},
           {"--adapter", "list", "adapter directory; DIR:0.5 scales it", ""}},
          {"attune forward runs/quickstart --input examples/inputs.jsonl --want logits,final -o "
           "runs/out.safetensors",
           "attune forward cache/models/all-MiniLM-L6-v2 --input examples/inputs.jsonl --want "
           "'enc.*.resid.out' --precision fp64 "
           "-o runs/out.safetensors"}};
}

CommandSpec tokenize_command() {
  return {"tokenize",
          "one JSON line for each input: ids, tokens, offsets",
          {{"TARGET", "run or model directory", true}},
          {{"--data", "string", "file of inputs; -: standard input", ""},
           {"--text", "list", "one input as text", ""},
           {"--adapter", "list", "adapter directory, which changes no token", ""}},
          {"attune tokenize cache/models/all-MiniLM-L6-v2 --text \"Fine-tuning, natively.\"",
           "attune tokenize runs/quickstart --data examples/texts.jsonl"}};
}

std::vector<CommandSpec> checkpoint_commands() {
  return {
      {"init",
       "a randomly initialised checkpoint of an architecture",
       {{"CONFIG", "config.json, or the directory that holds it", true}},
       {kOutput, {"--overwrite", "bool", "write into a directory that exists", ""}},
       {"attune init cache/models/all-MiniLM-L6-v2/config.json -o runs/fresh",
        "attune init cache/models/all-MiniLM-L6-v2 -o runs/fresh --seed 7 --overwrite"}},
      {"check",
       "what would go wrong with a recipe, before it does; trains nothing",
       {{"RECIPE", "recipe file (YAML or JSON)", true}},
       {{"--set", "list", "override one value: path=value", ""}},
       {"attune check examples/recipes/sections-lora.yaml",
        "attune check examples/recipes/sections-lora.yaml --set train.batch_tokens=4096 --json"}},
      {"inspect",
       "architecture, sites, tensors, dtypes, sizes, what is edited",
       {{"TARGET", "run, model or adapter directory", true},
        {"GLOB", "only sites that match, such as '*.self.[qv]'", false}},
       {{"--adapter", "list", "adapter directory; DIR:0.5 scales it", ""}},
       {"attune inspect cache/models/all-MiniLM-L6-v2",
        "attune inspect runs/quickstart '*.self.[qv]'"}},
      {"merge",
       "a plain Hugging Face checkpoint with the edits folded in",
       {{"TARGET", "run, model or adapter directory", true}},
       {kOutput,
        {"--overwrite", "bool", "write into a directory that exists", ""},
        {"--adapter", "list", "adapter directory; DIR:0.5 scales it", ""}},
       {"attune merge runs/quickstart -o runs/merged",
        "attune merge runs/quickstart -o runs/merged --overwrite"}},
      {"export",
       "write a run for other tools, read back and compared before success is reported",
       {{"TARGET", "run, model or adapter directory", true}},
       {{"--to", "string", "peft or hf", ""},
        {"--hf-names", "string",
         "peft: module names as transformers spells them before 2026 (classic, the default) or "
         "since (v5)",
         ""},
        kOutput,
        {"--overwrite", "bool", "write into a directory that exists", ""},
        {"--adapter", "list", "adapter directory; DIR:0.5 scales it", ""}},
       {"attune export runs/quickstart --to peft -o runs/quickstart-peft",
        "attune export runs/quickstart --to hf -o runs/quickstart-hf"}}};
}

CommandSpec listing(const std::string& name, const std::string& what, const std::string& example) {
  return {name,
          what,
          {{"NAME", "one of them, with its options and reference", false}},
          {},
          {"attune " + name, "attune " + name + " " + example}};
}

std::vector<CommandSpec> all_commands() {
  std::vector<CommandSpec> result = {
      train_command(),
      {"resume",
       "go on with a run from its newest complete checkpoint",
       {{"RUN", "run directory", true}},
       {},
       {"attune resume runs/quickstart", "attune resume runs/quickstart --json"}},
      {"compare",
       "one recipe with several methods and seeds: a table of quality, parameters, time, memory",
       {{"RECIPE", "recipe file (YAML or JSON)", true}},
       {{"--methods", "list",
         "methods, separated by commas; a+b: both; LABEL={lora: {rank: 64}}: with options", ""},
        {"--seeds", "int", "runs of each, from the recipe's seed on", "3"},
        {"-o,--output", "string", "folder of all runs and the table; default: OUTPUT-compare", ""},
        {"--overwrite", "bool", "run again what was run with another recipe", ""},
        {"--set", "list", "override one value of the recipe: path=value", ""}},
       {"attune compare examples/recipes/sections-bitfit.yaml --methods lora,ia3,bitfit --seeds 2 "
        "--set train.epochs=1",
        "attune compare examples/recipes/sections-bitfit.yaml --methods 'wide={lora: {rank: 32}}' "
        "--seeds 1 --json"}},
      eval_command(),
      predict_command(),
      generate_command(),
      forward_command(),
      tokenize_command()};
  for (const CommandSpec& command : checkpoint_commands()) result.push_back(command);
  result.push_back(listing("methods", "tuning methods", "lora"));
  result.push_back(listing("archs", "architectures", "bert"));
  result.push_back(listing("tasks", "tasks", "classify"));
  result.push_back(listing("objectives", "losses", "cross_entropy"));
  result.push_back(listing("policies", "training policies", "layer_decay"));
  result.push_back(listing("metrics", "metrics", "accuracy"));
  result.push_back({"doctor",
                    "this machine: instruction sets, threads, memory, measured speed",
                    {},
                    {},
                    {"attune doctor", "attune doctor --json"}});
  return result;
}

}  // namespace

const std::vector<CommandSpec>& commands() {
  static const std::vector<CommandSpec> kCommands = all_commands();
  return kCommands;
}

const std::vector<FlagSpec>& common_flags() {
  static const std::vector<FlagSpec> kFlags = {
      {"--json", "bool", "one machine-readable object on standard output", ""},
      {"--quiet", "bool", "no messages on standard error but warnings and errors", ""},
      {"--threads", "int", "threads; default: all this process may use", ""},
      {"--seed", "int", "seed of everything random", ""}};
  return kFlags;
}

const char* program_version() {
  return ATTUNE_VERSION;
}

}  // namespace attune
