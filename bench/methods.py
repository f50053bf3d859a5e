"""What each method adds to a training step: bench/step with the method beside the bare step, in turn.

  methods.py [--step build/release/bin/step] [--out docs/results/step-costs.md] [--rounds 3] [--steps 6]

The bare step is one whose backward pass reaches the first block although nothing but one bias is trained: forward,
gradients of activations, no adapters. Standard library only.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

ALL = '"enc.*.{self.[qkvo],ffn.up,ffn.down}"'
METHODS = [  # name in the table, YAML, most that the project allows (percent), or None
    ("lora r=8 on q, v", '{lora: {sites: "enc.*.self.[qv]", rank: 8}}', 5),
    ("lora r=8 on all projections", f"{{lora: {{sites: {ALL}, rank: 8}}}}", 12),
    ("adapter r=48 (Pfeiffer)", "{adapter: {sites: \"enc.*.ffn.out\", size: 48}}", 15),
    ("parallel_adapter r=48", "{parallel_adapter: {size: 48}}", None),
    ("bias", "bias", None), ("norms", "norms", None), ("ia3", "ia3", None), ("vera", "vera", None),
    ("adalora", "adalora", None), ("dora r=8 on q, v", '{dora: {sites: "enc.*.self.[qv]", rank: 8}}', None),
    ("loha", "loha", None), ("lokr", "lokr", None), ("oft", "oft", None), ("boft", "boft", None),
    ("fourierft", "fourierft", None), ("c3a", "c3a", None), ("randlora", "randlora", None),
    ("prompt", "prompt", None), ("prefix", "prefix", None), ("mam", "mam", None), ("unipelt", "unipelt", None),
    ("compacter", "compacter", None), ("propetl", "propetl", None), ("loreft", "loreft", None),
    ("full", "full", None),
]


def run(step, model, method, steps):
    result = subprocess.run([step, model, method, "--steps", str(steps)], capture_output=True, text=True)
    if result.returncode != 0:
        print(f"{method}: {result.stderr.strip()}", file=sys.stderr)
        return None
    return json.loads(result.stdout)


def table(arguments, model, methods):
    """Rows: the method, what it trains, what it adds to the bare step."""
    lines = []
    for name, method, most in methods:
        ratios, trained = [], 0
        for _ in range(arguments.rounds):
            bare = run(arguments.step, model, "bare", arguments.steps)
            found = run(arguments.step, model, method, arguments.steps)
            if found is None:
                break
            ratios.append(found["min_ms"] / bare["min_ms"] - 1)
            trained = found["trainable"]
        if not ratios:
            continue
        cost = 100 * statistics.median(ratios)
        held = "" if most is None else f" (at most {most} %: {'held' if cost <= most else 'missed'})"
        lines.append(f"| {name} | {trained:,} | {cost:+.1f} %{held} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return ["| method | parameters trained | over the bare step |", "|---|---|---|", *lines, ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", default="build/release/bin/step")
    parser.add_argument("--out", default="docs/results/step-costs.md")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    machine = run(arguments.step, "minilm", "bare", 1)
    text = ["# What a method adds to a training step", "",
            f"Made by `python3 bench/methods.py`: 16 x 128 tokens, bf16, the shortest of {arguments.steps} steps over that of the bare step",
            "(frozen weights, gradients of activations down to the first block) run just before, "
            + f"median of {arguments.rounds} rounds; {machine['threads']} threads, {machine['isa']}.",
            "The head trains beside every method, and counts. Of the last block the bare step computes only what the head reads; a method that",
            "needs all rows there (loreft), or keys and values (prefix, mam, unipelt), has them computed, and that counts too. Differences of some percent are noise.", "",
            "## BERT-base, where the project sets a limit", "",
            *table(arguments, "bert-base", [method for method in METHODS if method[2] is not None]),
            "## MiniLM, six layers of 384", "",
            *table(arguments, "minilm", [(name, method, None) for name, method, _ in METHODS])]
    with open(arguments.out + ".tmp", "w", encoding="utf-8") as file:
        file.write("\n".join(text))
    os.replace(arguments.out + ".tmp", arguments.out)


if __name__ == "__main__":
    main()
