"""Where the learning rates of `lr: auto` come from: methods x rates on development parts, never on test parts.

scripts/results rates runs it and writes docs/results/rates.md. What is finished is not run again. Standard library only.
"""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys

from common import machine

HEAD_RATE = 1e-2  # of the new head, beside every method but itself
LANGUAGES = ("yor", "xho", "lug", "lin", "pcm")
SETS = {
    "news": {"train": [{"path": f"masakhanews/{name}/train.tsv", "limit": 300} for name in LANGUAGES],
             "eval": [f"masakhanews/{name}/dev.tsv" for name in LANGUAGES],
             "columns": {"text": "headline", "label": "category"}, "epochs": 4},
    "sst2": {"train": [{"path": "sst2/train.tsv", "limit": 2000}], "eval": {"path": "sst2/dev.tsv", "limit": 2000},
             "columns": {"text": "sentence", "label": "label"}, "epochs": 3},
}
METHODS = {  # name in the registry or options, and the rates tried
    "head": ("head", ("3e-3", "1e-2", "3e-2")),
    "full": ("full", ("1e-4", "2e-4", "4e-4")),
    "lora": ("{lora: {rank: 8}}", ("2e-3", "4e-3", "8e-3")),
    "adapter": ("{adapter: {placement: pfeiffer, size: 24}}", ("1e-3", "2e-3", "4e-3")),
    "adapter, Houlsby": ("adapter", ("1e-3", "2e-3", "4e-3")),
    "adapter, ffn.out": ("{adapter: {sites: '*.ffn.out', size: 23}}", ("1e-3", "2e-3", "4e-3")),
    "parallel_adapter": ("{parallel_adapter: {size: 23, scaling: 4}}", ("1e-3", "2e-3", "4e-3")),
    "mh_parallel_adapter": ("{mh_parallel_adapter: {size: 23}}", ("1e-3", "3e-3", "6e-3")),
    "prefix": ("{prefix: {length: 20}}", ("1e-2", "3e-2", "6e-2")),
    "prompt": ("{prompt: {length: 20}}", ("1e-2", "3e-2", "6e-2")),
    "ia3": ("ia3", ("1e-2", "2e-2", "4e-2")),
    "bias": ("bias", ("3e-3", "6e-3", "1.2e-2")),
    "norms": ("norms", ("3e-3", "6e-3", "1.2e-2")),
    "adalora": ("adalora", ("5e-3", "1e-2", "2e-2")),
    "propetl": ("{propetl: {size: 48}}", ("1e-3", "3e-3", "6e-3")),
    "mam": ("{mam: {prefix_length: 12, size: 12, scaling: 2, projection: false}}", ("1e-3", "3e-3", "6e-3")),
    "mam, network": ("{mam: {prefix_length: 16, size: 16, scaling: 2}}", ("5e-4", "1e-3", "2e-3")),
}


def recipe(args, name, data, rate, output):
    def path(entry):
        return {**entry, "path": os.path.join(args.data, entry["path"])} if isinstance(entry, dict) else os.path.join(args.data, entry)

    places = {"train": [path(entry) for entry in data["train"]],
              "eval": [path(entry) for entry in data["eval"]] if isinstance(data["eval"], list) else path(data["eval"])}
    policies = [] if name == "head" else [{"head_lr": {"scale": HEAD_RATE / float(rate)}}]
    return json.dumps({
        "model": args.model, "task": "classify", "data": {**places, "columns": data["columns"], "max_length": 96},
        "methods": "METHODS", "policies": policies,
        "train": {"epochs": data["epochs"], "batch_size": 16, "lr": float(rate), "eval_every": "never", "save_every": "never",
                  "log_every": 1000, "seed": 1},
        "output": output}).replace('"METHODS"', f"[{METHODS[name][0]}]")


def accuracy(args, job):
    set_name, name, rate = job
    output = os.path.join(args.runs, f"{set_name}-{name}-{rate}".replace(", ", "-"))
    if not os.path.exists(output + "/run.json"):
        with open(output + ".yaml", "w", encoding="utf-8") as out:
            out.write(recipe(args, name, SETS[set_name], rate, output))
        subprocess.run([args.attune, "train", output + ".yaml", "--overwrite", "--quiet", "--threads", "1"], check=True)
    with open(output + "/run.json", encoding="utf-8") as file:
        found = 100 * json.load(file)["metrics"]["accuracy"]
    print(f"{set_name} {name} {rate}: {found:.2f}", file=sys.stderr, flush=True)
    return found


def used(args):
    """The product's own rate of each method, from `attune methods`."""
    listed = json.loads(subprocess.run([args.attune, "methods", "--json"], stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {entry["name"]: entry["learning_rate"] for entry in listed["methods"]}


def page(results, rates):
    lines = ["# Where the rates of `lr: auto` come from", "",
             "all-MiniLM-L6-v2 (rows 384 wide), batches of 16, one seed, accuracy on development parts in percent. *News*: headlines in five",
             "languages (MasakhaNEWS, 300 rows of each to train, 4 epochs, 702 to evaluate, standard error 1.7); *SST-2*: 2,000 rows,",
             "3 epochs, 2,000 to evaluate (standard error 0.8). The new head learns at 1e-2 beside every method. *Auto* is what the product",
             "takes. Differences under the standard errors are noise: where rates are level the choice is a judgement, mostly the smaller.", "",
             "| method | options | rate | news | SST-2 | auto |", "|---|---|---:|---:|---:|---:|"]
    for name, (options, tried) in METHODS.items():
        for i, rate in enumerate(tried):
            auto = f"{rates[name.split(',')[0]]:g}" if i == 0 else ""
            lines.append(f"| {name if i == 0 else ''} | {f'`{options}`' if i == 0 else ''} | {rate} | "
                         f"{results[('news', name, rate)]:.2f} | {results[('sst2', name, rate)]:.2f} | {auto} |")
    where = machine()
    return lines + ["", "mam's own keys and values (without the network) learn at 30 times its rate: `prefix_lr_scale`. child_tuning, layers and",
                    "diff_pruning take the rate of full; other methods' rates stand in their files and were not part of this.",
                    f"`scripts/results rates` writes this page. Machine: {where['cpu']}.", ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attune", default="build/release/bin/attune")
    parser.add_argument("--data", required=True, help="the folder that holds masakhanews and sst2")
    parser.add_argument("--model", default="cache/models/all-MiniLM-L6-v2")
    parser.add_argument("--runs", default="runs/rates")
    parser.add_argument("--output", default="docs/results/rates.md")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    os.makedirs(args.runs, exist_ok=True)
    jobs = [(set_name, name, rate) for name, (_, tried) in METHODS.items() for set_name in SETS for rate in tried]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = dict(zip(jobs, pool.map(lambda job: accuracy(args, job), jobs)))
    with open(args.output, "w", encoding="utf-8") as out:
        out.write("\n".join(page(results, used(args))))


if __name__ == "__main__":
    main()
