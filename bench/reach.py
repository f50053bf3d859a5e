"""What a user waits for beside training steps; writes docs/results/reach.md.

  reach.py [--build build/release/bin] [--model cache/models/all-MiniLM-L6-v2] [--texts cache/sections/train.jsonl]
           [--out docs/results/reach.md] [--rounds 5]

Tokenising on one thread beside the package `tokenizers` (which must be importable), the step with NF4 weights beside the
one with bf16 weights, time until the first loss, start of the command line. The two sides of a ratio run in turn. Run it on
an idle machine.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def texts_of(path):
    """Short texts as they are, and documents of twenty of them."""
    with open(path, encoding="utf-8") as file:
        short = [json.loads(line)["description"].replace("\n", " ") for line in file]
    return {"one-line descriptions": short, "documents of 20": [" ".join(short[i:i + 20]) for i in range(0, len(short), 20)]}


def train_tokenizers(folder, texts):
    """Byte-level BPE and Unigram of 20,000 pieces, trained on the texts."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    result = {}
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=20_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                       show_progress=False))
    result["byte-level BPE"] = bpe
    unigram = tokenizers.Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=20_000, unk_token="<unk>", special_tokens=["<unk>"],
                                                               show_progress=False))
    result["Unigram"] = unigram
    folders = {}
    for name, tokenizer in result.items():
        folders[name] = os.path.join(folder, name.replace(" ", "-"))
        os.makedirs(folders[name])
        tokenizer.save(os.path.join(folders[name], "tokenizer.json"))
    return folders


def peer_seconds(tokenizer, texts):
    began = time.perf_counter()
    encoded = tokenizer.encode_batch(texts)
    seconds = time.perf_counter() - began
    return seconds, sum(len(e.ids) for e in encoded)


def tokenizing(args, folder):
    import tokenizers

    kinds = texts_of(args.texts)
    folders = {"WordPiece": args.model, **train_tokenizers(folder, kinds["one-line descriptions"][:20_000])}
    rows = []
    for kind, place in folders.items():
        peer = tokenizers.Tokenizer.from_file(os.path.join(place, "tokenizer.json"))
        peer.no_truncation()
        peer.no_padding()
        for name, texts in kinds.items():
            path = os.path.join(folder, "texts.txt")
            with open(path, "w", encoding="utf-8") as out:
                out.write("\n".join(texts))
            theirs, ours, bare, count = [], [], [], 0
            for _ in range(args.rounds):
                seconds, count = peer_seconds(peer, texts)
                theirs.append(seconds)
                command = [os.path.join(args.build, "tokenize"), place, path, "--rounds", "1"]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                assert found["tokens"] == count, f"{kind}: {found['tokens']} tokens, tokenizers has {count}"
                ours.append(found["min_seconds"])
                found = json.loads(subprocess.run(command + ["--no-offsets"], check=True, capture_output=True, text=True).stdout)
                bare.append(found["min_seconds"])
            mine, least, other = map(statistics.median, (ours, bare, theirs))
            rows.append((kind, name, count / other, count / mine, count / least, other / mine, other / least))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def step(args, model, storage, shape):
    command = [os.path.join(args.build, "step"), model, "{lora: {rank: 8}}", "--storage", storage, "--shape", shape, "--steps", "8",
               "--mapped", "build/bench-models"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def quantized(args):
    rows = []
    for model, shape in (("bert-base", "16x128"), ("minilm", "16x128"), ("decoder", "4x256")):
        found = {storage: [] for storage in ("full", "int8", "nf4")}
        for _ in range(max(args.rounds // 2, 1)):
            for storage, runs in found.items():
                runs.append(step(args, model, storage, shape))
        best = {storage: min(runs, key=lambda run: run["median_ms"]) for storage, runs in found.items()}
        rows.append((model, shape, best))
        print(model, {s: round(run["median_ms"], 1) for s, run in best.items()}, file=sys.stderr, flush=True)
    return rows


def first_loss(args, folder):
    """Seconds from the command to the first line of log.jsonl with a loss."""
    rows = os.path.join(folder, "rows.jsonl")
    with open(args.texts, encoding="utf-8") as file, open(rows, "w", encoding="utf-8") as out:
        out.writelines(line for line, _ in zip(file, range(2000)))
    times = []
    for _ in range(args.rounds):
        run = os.path.join(folder, "run")
        shutil.rmtree(run, ignore_errors=True)
        began = time.perf_counter()
        process = subprocess.Popen([os.path.join(args.build, "attune"), "train", "--model", args.model, "--task", "classify", "--train",
                                    rows, "--method", "lora", "--output", run, "--quiet", "--set",
                                    "data.columns={\"text\": \"description\", \"label\": \"section\"}", "--set", "train.steps=20"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        log = os.path.join(run, "log.jsonl")
        while process.poll() is None and not (os.path.exists(log) and "loss" in open(log, encoding="utf-8").read()):
            time.sleep(0.005)
        times.append(time.perf_counter() - began)
        if process.wait() != 0:
            sys.exit(process.stderr.read().decode())
    return statistics.median(times)


def command_start(args):
    times = []
    for _ in range(20):
        began = time.perf_counter()
        subprocess.run([os.path.join(args.build, "attune"), "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release/bin")
    parser.add_argument("--model", default="cache/models/all-MiniLM-L6-v2")
    parser.add_argument("--texts", default="cache/sections/train.jsonl")
    parser.add_argument("--out", default="docs/results/reach.md")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    import tokenizers

    with tempfile.TemporaryDirectory() as folder:
        words, steps = tokenizing(args, folder), quantized(args)
        start, help_ = first_loss(args, folder), command_start(args)
    lines = ["# What a user waits for beside training steps", "",
             "`python bench/reach.py` writes this page (build with `cmake --preset release -DATTUNE_BENCH=ON`; the package `tokenizers` must",
             "be importable). The two sides of a ratio ran in turn; medians.", "", "## Tokenising, one thread", "",
             f"Tokens a second; tokenizers {tokenizers.__version__}, `encode_batch`. Training asks for no offsets. Both made the same number of tokens.",
             "", "| tokenizer | texts | tokenizers | Attune | without offsets | ratio | without offsets |", "|---|---|---:|---:|---:|---:|---:|"]
    lines += [f"| {kind} | {name} | {a:,.0f} | {b:,.0f} | {c:,.0f} | {d:.2f} | {e:.2f} |" for kind, name, a, b, c, d, e in words]
    lines += ["", "## Steps over quantised weights", "",
              "LoRA r = 8 on q and v, 2 threads; milliseconds a step, and over the step with bf16 copies of full weights; the checkpoint in its file.", "",
              "| model | batch | bf16 | int8 | NF4 | int8 over bf16 | NF4 over bf16 | peak MB: bf16 | int8 | NF4 |", "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for model, shape, best in steps:
        ms = {storage: run["median_ms"] for storage, run in best.items()}
        peak = {storage: run["peak_bytes"] / 1e6 for storage, run in best.items()}
        lines.append(f"| {model} | {shape} | {ms['full']:.0f} | {ms['int8']:.0f} | {ms['nf4']:.0f} | {ms['int8'] / ms['full']:.2f} | "
                     f"{ms['nf4'] / ms['full']:.2f} | {peak['full']:.0f} | {peak['int8']:.0f} | {peak['nf4']:.0f} |")
    lines += ["", "## Waiting", "", "| what | seconds |", "|---|---:|",
              f"| `attune train`, MiniLM, LoRA, 2,000 rows: from the command to the first loss in the log | {start:.2f} |",
              f"| `attune --help` | {help_:.4f} |"]
    with open(args.out + ".tmp", "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
    os.replace(args.out + ".tmp", args.out)


if __name__ == "__main__":
    main()
