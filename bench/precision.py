"""Loss curves in bf16 beside fp32 over several seeds; writes docs/results/precision.md and its plot.

  precision.py [--attune build/release/bin/attune] [--recipes examples/recipes/sections-lora.yaml ...] [--seeds 3]
               [--epochs 1] [--out docs/results]

Needs cache/sections (scripts/prepare-sections). Standard library only.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from plot import chart

PARTS = 10


def curve(args, folder, precision, seed, recipe):
    """Mean training loss of each tenth of a run, and the final evaluation's accuracy."""
    run = os.path.join(folder, f"{os.path.basename(recipe)}-{precision}-{seed}")
    subprocess.run([args.attune, "train", recipe, "--seed", str(seed), "--output", run, "--quiet", "--set",
                    f"train.precision={precision}", "--set", "data.train=cache/sections/train-8000.jsonl", "--set",
                    "data.eval=cache/sections/eval-2000.jsonl", "--set",
                    f"train.epochs={args.epochs}", "--set", "train.eval_every=never", "--set", "train.save_every=never", "--set",
                    "train.log_every=5"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with open(os.path.join(run, "log.jsonl"), encoding="utf-8") as log:
        losses = [line["loss"] for line in map(json.loads, log) if "tokens_per_second" in line]
    parts = [statistics.mean(losses[len(losses) * i // PARTS:len(losses) * (i + 1) // PARTS]) for i in range(PARTS)]
    with open(os.path.join(run, "run.json"), encoding="utf-8") as file:
        accuracy = json.load(file)["metrics"]["accuracy"]
    print(recipe, precision, seed, f"last loss {parts[-1]:.4f} accuracy {accuracy:.4f}", file=sys.stderr, flush=True)
    return parts, accuracy


def spread(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0


def section(args, folder, recipe):
    runs = {precision: [curve(args, folder, precision, seed, recipe) for seed in range(1, args.seeds + 1)]
            for precision in ("fp32", "bf16")}
    name = os.path.basename(recipe).removesuffix(".yaml")
    lines = [f"## {name}", "", f"![loss in bf16 and fp32](precision-{name}.svg)", "",
             "| part of the run | fp32 | bf16 | difference, in standard deviations of fp32's seeds |", "|---|---:|---:|---:|"]
    worst = 0
    for part in range(PARTS):
        mean, sd = spread([run[0][part] for run in runs["fp32"]])
        half, half_sd = spread([run[0][part] for run in runs["bf16"]])
        worst = max(worst, abs(half - mean) / sd)
        lines.append(f"| {part * 100 // PARTS}-{(part + 1) * 100 // PARTS} % | {mean:.4f} ± {sd:.4f} | {half:.4f} ± {half_sd:.4f} | "
                     f"{(half - mean) / sd:+.2f} |")
    mean, sd = spread([100 * run[1] for run in runs["fp32"]])
    half, half_sd = spread([100 * run[1] for run in runs["bf16"]])
    lines += [f"| accuracy, 2,000 held-out rows | {mean:.2f} ± {sd:.2f} | {half:.2f} ± {half_sd:.2f} | {(half - mean) / sd:+.2f} |", "",
              f"The curves are never further apart than {worst:.2f} standard deviations of fp32's seeds.", ""]
    chart(os.path.join(args.out, f"precision-{name}.svg"), f"{name}: loss, mean of {args.seeds} seeds", "% of the run", "loss",
          {precision: [((part + 1) * 100 // PARTS, statistics.mean(run[0][part] for run in found)) for part in range(PARTS)]
           for precision, found in runs.items()})
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attune", default="build/release/bin/attune")
    parser.add_argument("--recipes", nargs="+", default=["examples/recipes/sections-lora.yaml", "examples/recipes/sections-full.yaml"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--out", default="docs/results")
    args = parser.parse_args()
    lines = ["# bf16 beside fp32", "",
             f"The quickstart's task ({args.epochs:g} epochs of 8,000 rows), the same seeds and order of rows in both types; mean and standard",
             f"deviation over {args.seeds} seeds. `python3 bench/precision.py` writes this page.", ""]
    with tempfile.TemporaryDirectory(prefix="attune-precision-") as folder:
        for recipe in args.recipes:
            lines += section(args, folder, recipe)
    path = os.path.join(args.out, "precision.md")
    with open(path + ".tmp", "w", encoding="utf-8") as out:
        out.write("\n".join(lines))
    os.replace(path + ".tmp", path)


if __name__ == "__main__":
    main()
