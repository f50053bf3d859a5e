"""How time and memory grow with rows of data, steps, length and adapters; writes docs/results/scaling.md and its plots.

  scaling.py [--attune build/release/bin/attune] [--step build/release/bin/step] [--model cache/models/all-MiniLM-L6-v2]
             [--out docs/results] [--only rows|steps|length|adapters]

Run it on an idle machine. Standard library only.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

from plot import chart

TINY = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 512, "type_vocab_size": 2,
        "vocab_size": 30522, "hidden_act": "gelu", "layer_norm_eps": 1e-12}


def rows_file(folder, count, words):
    path = os.path.join(folder, f"rows-{count}.jsonl")
    draw = random.Random(1)
    with open(path, "w", encoding="utf-8") as out:
        for i in range(count):
            text = " ".join(draw.choices(words, k=12))
            out.write(json.dumps({"text": text, "label": "ab"[i % 2]}) + "\n")
    return path


def train(args, folder, model, rows, *settings):
    """The lines of log.jsonl of a run."""
    run = os.path.join(folder, "run")
    shutil.rmtree(run, ignore_errors=True)
    command = [args.attune, "train", "--model", model, "--task", "classify", "--train", rows, "--method", "lora", "--output", run,
               "--quiet", "--set", "train.eval_every=never", "--set", "train.save_every=never"]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with open(os.path.join(run, "log.jsonl"), encoding="utf-8") as log:
        return [json.loads(line) for line in log]


def by_rows(args, folder):
    words = [line.strip() for line in open(os.path.join(args.model, "vocab.txt"), encoding="utf-8") if line.strip().isalpha()]
    result = []
    for count in (1_000, 10_000, 100_000, 1_000_000):
        log = train(args, folder, args.model, rows_file(folder, count, words), "train.steps=40", "train.log_every=1",
                    "train.batch_tokens=1024")
        time = statistics.median(1e6 / line["tokens_per_second"] for line in log[8:])
        result.append((count, time, log[-1]["peak_bytes"] / 2**20))
        print("rows", result[-1], file=sys.stderr, flush=True)
    return result


def by_steps(args, folder):
    """One run of 10,000 steps of a tiny model, seen after 10, 100, ... of them."""
    config = os.path.join(folder, "tiny-config")
    os.makedirs(config, exist_ok=True)
    with open(os.path.join(config, "config.json"), "w", encoding="utf-8") as out:
        json.dump(TINY, out)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(os.path.join(args.model, name), config)
    model = os.path.join(folder, "tiny")
    subprocess.run([args.attune, "init", config, "-o", model, "--quiet", "--overwrite"], check=True)
    words = [line.strip() for line in open(os.path.join(args.model, "vocab.txt"), encoding="utf-8") if line.strip().isalpha()]
    log = train(args, folder, model, rows_file(folder, 20_000, words), "train.steps=10000", "train.log_every=1",
                "train.batch_tokens=1024")
    result = []
    for last in (10, 100, 1_000, 10_000):
        lines = [line for line in log if last // 2 < line["step"] <= last]
        result.append((last, statistics.median(1e6 / line["tokens_per_second"] for line in lines),
                       lines[-1]["peak_bytes"] / 2**20))
    print("steps", result, file=sys.stderr, flush=True)
    return result


def step(args, *options):
    done = subprocess.run([args.step, *options], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def by_length(args, _):
    result = []
    for length in (128, 256, 512, 1024, 2048, 4096, 8192):
        whole = step(args, "minilm", "{lora: {rank: 8}}", "--shape", f"{8192 // length}x{length}", "--steps", "3", "--warmup", "1")
        one = step(args, "minilm", "{lora: {rank: 8}}", "--shape", f"1x{length}", "--steps", "3", "--warmup", "1")
        result.append((length, 1e3 * whole["median_ms"] / whole["tokens"], whole["peak_bytes"] / 2**20, one["peak_bytes"] / 2**20))
        print("length", result[-1], file=sys.stderr, flush=True)
    return result


def by_adapters(args, _):
    result = []
    for sets in (1, 10, 100, 1000):
        found = step(args, "minilm", "{lora: {rank: 8}}", "--sets", str(sets), "--shape", "1000x16", "--steps", "3", "--warmup", "1")
        result.append((sets, 1e3 * found["median_ms"] / found["tokens"], found["peak_bytes"] / 2**20))
        print("adapters", result[-1], file=sys.stderr, flush=True)
    return result


PARTS = {"rows": by_rows, "steps": by_steps, "length": by_length, "adapters": by_adapters}
TEXTS = {
    "rows": ("Rows of data", "MiniLM, LoRA, 1,024 tokens a step, 40 steps; time of a token in training and peak memory of the process. Of"
             "\na file at most 16 MiB stay in memory; its index takes 24 bytes a row."),
    "steps": ("Steps", "A tiny BERT (2 layers of 64), LoRA, one run of 10,000 steps of 1,024 tokens, seen after so many of them."),
    "length": ("Length", "MiniLM, LoRA, training steps of 8,192 tokens in sequences of one length. Attention's share grows with the length; memory does"
               "\nnot. Last column: one sequence of that length alone."),
    "adapters": ("Adapters in one batch", "MiniLM, LoRA r = 8 on q and v, forward passes over 1,000 sequences of 16 tokens that take the adapter sets in turn."),
}


def write(args, found):
    lines = ["# Scaling", "", "`python3 bench/scaling.py` writes this page. Times are microseconds a token, by the clock, 2 threads.", ""]
    for name, rows in found.items():
        title, text = TEXTS[name]
        lines += [f"## {title}", "", text, "", f"![time and memory by {name}](scaling-{name}.svg)", ""]
        extra = len(rows[0]) > 3
        lines += [f"| {name} | µs a token | peak MiB |" + (" one sequence, peak MiB |" if extra else ""),
                  "|---:|---:|---:|" + ("---:|" if extra else "")]
        lines += [f"| {row[0]:,} | {row[1]:.1f} | {row[2]:,.0f} |" + (f" {row[3]:,.0f} |" if extra else "") for row in rows]
        lines.append("")
        chart(os.path.join(args.out, f"scaling-{name}.svg"), title, name, "µs a token (blue), peak MiB / 10 (red)",
              {"µs a token": [(row[0], row[1]) for row in rows], "peak MiB / 10": [(row[0], row[2] / 10) for row in rows]})
    path = os.path.join(args.out, "scaling.md")
    with open(path + ".tmp", "w", encoding="utf-8") as out:
        out.write("\n".join(lines))
    os.replace(path + ".tmp", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attune", default="build/release/bin/attune")
    parser.add_argument("--step", default="build/release/bin/step")
    parser.add_argument("--model", default="cache/models/all-MiniLM-L6-v2")
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--only", choices=sorted(PARTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attune-scaling-") as folder:
        found = {name: part(args, folder) for name, part in PARTS.items() if args.only in (None, name)}
    write(args, found)


if __name__ == "__main__":
    main()
