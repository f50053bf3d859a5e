"""Adapters of every PEFT type through Attune and back, on every family of models.

    python tests/compare/peft_interchange.py build/release/bin/attune [--golden tests/golden/peft] [--table docs/results/peft.md]

For every golden adapter (tests/golden/peft_adapters.py makes them with PEFT, all parameters random):
  from PEFT: `attune forward BASE --adapter DIR` against the logits PEFT computes from the directory;
  to PEFT:   `attune export DIR --to peft`, then the logits PEFT computes from that export against the same.
The error is the largest |a - b| / (1 + |b|) over all logits. Families that `attune archs` does not list are left out.
Warnings of PEFT about missing or unknown keys count as failures. Needs torch, transformers, peft.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
from peft_adapters import FAMILIES, cases_of, read_adapter  # noqa: E402

sys.path.insert(0, HERE)
from common import machine, versions  # noqa: E402

TOLERANCE = 3e-5


def worst(values, expected):
    return max(((a.double() - b.double()).abs() / (1 + b.double().abs())).max().item()
               for a, b in zip(values, expected))


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Comparison:
    def __init__(self, attune, root, family):
        self.attune, self.root, self.family = attune, os.path.join(root, family.name), family
        self.base = os.path.join(self.root, "base")
        self.inputs = os.path.join(self.root, "inputs.jsonl")
        with open(self.inputs, encoding="utf-8") as file:
            self.lines = [json.loads(line) for line in file]
        self.expected = load_file(os.path.join(self.root, "expected.safetensors"))

    def wanted(self, name):
        return [self.expected[f"{name}/{i}/logits"] for i in range(len(self.lines))]

    def with_base(self, name, folder):
        """The adapter with its base's whole path."""
        shutil.copytree(os.path.join(self.root, name), folder)
        path = os.path.join(folder, "adapter_config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config["base_model_name_or_path"] = self.base
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return config["peft_type"]

    def from_peft(self, name, folder):
        written = os.path.join(folder, "logits.safetensors")
        run(self.attune, "forward", self.base, "--adapter", os.path.join(self.root, name), "--input", self.inputs,
            "--want", "logits", "-o", written)
        ours = load_file(written)
        wanted = self.wanted(name)
        return worst([ours[f"{i}/logits"].reshape(w.shape) for i, w in enumerate(wanted)], wanted)

    def to_peft(self, name, folder):
        source, out = os.path.join(folder, "source"), os.path.join(folder, "out")
        kind = self.with_base(name, source)
        names = "v5" if self.family.name == "vit" else "classic"    # as the installed transformers spells them
        run(self.attune, "export", source, "--to", "peft", "--hf-names", names, "-o", out)
        model = read_adapter(self.family, self.base, out)
        return kind, worst(self.family.logits(model, self.lines, self.root), self.wanted(name))


def compare(attune, root, family):
    """Rows of (type, adapter, error from PEFT, error to PEFT); an error that is a text is a failure."""
    comparison = Comparison(attune, root, family)
    rows = []
    for name in cases_of(family):
        with tempfile.TemporaryDirectory() as folder:
            try:
                there = comparison.from_peft(name, folder)
                kind, back = comparison.to_peft(name, folder)
            except (RuntimeError, SystemExit) as error:
                rows.append(("?", name, str(error), ""))
                continue
        rows.append((kind, name, there, back))
        print(f"{family.name:6} {kind:14} {name:22} from PEFT {there:.1e}   to PEFT {back:.1e}   "
              f"{'ok' if max(there, back) <= TOLERANCE else 'FAIL'}", flush=True)
    return rows


def table(results):
    lines = ["# Interchange with PEFT", "",
             "Made by `python tests/compare/peft_interchange.py build/release/bin/attune --table docs/results/peft.md`.",
             "", "Adapters of every type that Attune reads and writes, on tiny models with random weights of ordinary size and",
             "every parameter of the adapter random. *From PEFT*: Attune's logits with a directory that PEFT saved.",
             "*To PEFT*: PEFT's logits with a directory that Attune wrote of the same adapter. The error is the largest",
             f"|a - b| / (1 + |b|) in single precision; at most {TOLERANCE:.0e} is asked for.", ""]
    for family, rows in results.items():
        lines += [f"## {family}", "", "| type | adapter | from PEFT | to PEFT |", "|---|---|---|---|"]
        for kind, name, there, back in sorted(rows):
            lines.append(f"| {kind} | `{name}` | {there:.1e} | {back:.1e} |")
        lines.append("")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attune")
    parser.add_argument("--golden", default=os.path.join(HERE, "..", "golden", "peft"))
    parser.add_argument("--models", default="")
    parser.add_argument("--table", help="writes the result as Markdown")
    args = parser.parse_args()
    torch.set_num_threads(1)
    listed = [line.split()[0] for line in run(args.attune, "archs").splitlines() if line.strip()]
    wanted = args.models.split(",") if args.models else [name for name in FAMILIES if name.split("-")[0] in listed]
    results = {name: compare(args.attune, os.path.abspath(args.golden), FAMILIES[name]) for name in wanted}
    failed = [(family, row) for family, rows in results.items() for row in rows
              if isinstance(row[2], str) or max(row[2], row[3]) > TOLERANCE]
    for family, row in failed:
        print(f"FAILED {family} {row}")
    if args.table and not failed:
        used = versions("peft", "transformers", "torch")
        lines = table(results)
        lines.append(f"PEFT {used['peft']}, transformers {used['transformers']}, torch {used['torch']}; "
                     f"{machine()['cpu']}.")
        with open(args.table, "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
