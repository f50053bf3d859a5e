"""Whole training steps of Attune beside those of PyTorch + transformers + PEFT, interleaved on one machine.

  peers.py compare --step build/release/bin/step --out docs/performance.md [--only TEXT]
  peers.py peer MODEL METHOD DTYPE LENGTHS STEPS THREADS eager|compiled    one peer run, one JSON object (its own process)

LENGTHS: a JSON list of the lengths in each batch, those of bench/step, which steps take in turn, padded to the
batch's longest. Run by scripts/bench-peers, which makes the environment.
"""
import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

WORK = [  # model, method, shape
    ("minilm", "lora", "16x128"),
    ("minilm", "full", "16x128"),
    ("minilm", "lora", "lognormal:32"),  # 32 texts a batch, another batch at every step
    ("minilm", "full", "lognormal:32"),
    ("bert-base", "lora", "16x128"),
    ("bert-base", "full", "16x128"),
    ("decoder", "lora", "4x256"),
    ("decoder", "full", "4x256"),
]
OURS = {"lora": '{lora: {sites: "*.self.[qv]", rank: 8, alpha: 16}}', "full": "full"}


def config_of(model):
    import transformers

    if model == "decoder":
        return transformers.LlamaConfig(
            hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4,
            intermediate_size=2048, vocab_size=32000, max_position_embeddings=8192,
            tie_word_embeddings=False)
    hidden, layers = {"minilm": (384, 6), "bert-base": (768, 12)}[model]
    return transformers.BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=12,
        intermediate_size=4 * hidden, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        max_position_embeddings=512, num_labels=2)


def inputs_of(lengths, words, causal):
    import torch

    longest = max(lengths)
    ids = torch.exp(math.log(words) * torch.rand(len(lengths), longest, dtype=torch.float64)).long()  # Zipf, as bench/step
    inputs = {"input_ids": ids, "labels": ids if causal else torch.arange(len(lengths)) % 2}
    if min(lengths) != longest:
        inputs["attention_mask"] = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return inputs


def peer(model_name, method, dtype, lengths, steps, warmup, threads, compiled):
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config = config_of(model_name)
    causal = model_name == "decoder"
    kind = transformers.LlamaForCausalLM if causal else transformers.BertForSequenceClassification
    model = kind._from_config(config, attn_implementation="sdpa")
    if method == "lora":
        import peft

        names = ["q_proj", "v_proj"] if causal else ["query", "value"]
        task = None if causal else "SEQ_CLS"
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=names, task_type=task))
    if dtype == "bf16":
        model = model.to(torch.bfloat16)
    model.train()
    batches = [inputs_of(one, config.vocab_size, causal) for one in lengths]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    if compiled:
        model = torch.compile(model)
    seconds, rates, start = [], [], time.perf_counter()
    for step in range(warmup + steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = model(**batches[step % len(batches)]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        float(loss.detach())
        if step == 0:
            start = time.perf_counter() - start
        if step >= warmup:
            seconds.append(time.perf_counter() - began)
            rates.append(sum(lengths[step % len(lengths)]) / seconds[-1])
    return {
        "first_step_seconds": start, "min_ms": 1e3 * min(seconds), "median_ms": 1e3 * statistics.median(seconds),
        "tokens_per_second": statistics.median(rates),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "torch": torch.__version__, "transformers": transformers.__version__}


def run(command, environment=None):
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def steady(command):
    """A run whose two ceilings differ by more than 5 % had other load beside it: up to two more tries."""
    for _ in range(3):
        found = run(command)
        low, high = sorted((found["ceiling_before"], found["ceiling_after"]))
        if high <= 1.05 * low:
            return found
    print(f"peers: the ceiling of {command[1]} does not hold still ({low:.0f}, {high:.0f})", file=sys.stderr)
    return found


def peer_environment(threads):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    for path in ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",):
        if os.path.exists(path):
            environment["LD_PRELOAD"] = path
    return environment


def peer_command(arguments, model, method, dtype, lengths, threads, kind):
    return [sys.executable, __file__, "peer", model, method, dtype, json.dumps(lengths), str(arguments.steps), str(threads), kind]


def compare(arguments):
    threads = len(os.sched_getaffinity(0))
    rows = []
    for model, method, shape in WORK:
        if arguments.only and arguments.only not in f"{model} {method} {shape}":
            continue
        sizes = ["--lognormal", shape.split(":")[1]] if ":" in shape else ["--shape", shape]
        sizes += ["--mapped", "build/bench-models"]
        run([arguments.step, model, "frozen", *sizes, "--steps", "1", "--warmup", "0"])  # makes the checkpoint
        for dtype in ("bf16", "fp32"):
            ours, theirs = [], []
            lengths = run([arguments.step, "lengths", *sizes, "--steps", str(arguments.steps)])
            for _ in range(arguments.rounds):
                ours.append(steady([arguments.step, model, OURS[method], "--dtype", dtype, *sizes,
                                    "--steps", str(arguments.steps)]))
                theirs.append(run(peer_command(arguments, model, method, dtype, lengths, threads, "eager"),
                                  peer_environment(threads)))
            best = max(ours, key=lambda r: r["tokens_per_second"])
            other = max(theirs, key=lambda r: r["tokens_per_second"])
            if arguments.compile and dtype == "bf16":
                other["compiled"] = run(peer_command(arguments, model, method, dtype, lengths, threads, "compiled"),
                                        peer_environment(threads))
            rows.append((model, method, shape, dtype, best, other))
            print(f"{model} {method} {shape} {dtype}: {best['tokens_per_second']:.0f} against "
                  f"{other['tokens_per_second']:.0f} tokens/s, {best['fraction_median']:.2f} of the ceiling",
                  file=sys.stderr, flush=True)
            write(arguments, rows, threads)
    if not rows:
        sys.exit(f"peers: no work holds \"{arguments.only}\"")


def cpu_name():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


BY_HAND = "<!-- From here on written by hand; scripts/bench-peers keeps it. -->"


def by_hand(path):
    """What a person wrote below the table, which a new table must not take away."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        _, marker, text = file.read().partition(BY_HAND)
    return "\n" + marker + text if marker else ""


def write(arguments, rows, threads):
    peer_best = {}
    for m, t, s, _, _, p in rows:
        peer_best[(m, t, s)] = max(peer_best.get((m, t, s), 0), p["tokens_per_second"],
                                   p.get("compiled", p)["tokens_per_second"])
    versions = rows[0][5]
    rounds = f", the better of {arguments.rounds} rounds" if arguments.rounds > 1 else ""
    lines = [
        "# Performance", "",
        "Made by `scripts/bench-peers`; whole training steps (forward, loss, backward, clipping, AdamW), no dropout, LoRA",
        "r = 8 on q and v. Tokens are real ones, never padding. *Ceiling*: packed oneDNN products of the model's shapes,",
        "measured in the same process before and after. Attune keeps fp32 master weights and moments; the peer in bf16 keeps",
        f"everything in bf16; both read a checkpoint from the disk. Each figure is the median of {arguments.steps} steps{rounds}; ratios hold for one",
        "machine and run. *lognormal*: 32 texts, another batch at every step, mean 25 tokens and 128 at most; padded to its longest",
        "text such a batch is 3.0 times its tokens. Words come by Zipf's law.", "",
        f"Machine: {cpu_name()}, {threads} threads ({rows[0][4]['isa']}); torch {versions['torch']}, transformers "
        f"{versions['transformers']}, SDPA attention, "
        f"{'tcmalloc' if 'LD_PRELOAD' in peer_environment(threads) else 'no tcmalloc here'}.", "",
        "*Compiled*: the peer under `torch.compile`, and the seconds of its first step; the peer's best is over all its forms.", "",
        "| model | method | batch | type | Attune tokens/s | peer tokens/s | compiled | ratio | over the peer's best | of the ceiling | faults a step | peak MB | peer MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for model, method, shape, dtype, ours, theirs in rows:
        speed, other = ours["tokens_per_second"], theirs["tokens_per_second"]
        compiled = theirs.get("compiled")
        compiled = f"{compiled['tokens_per_second']:,.0f} ({compiled['first_step_seconds']:.0f} s)" if compiled else ""
        lines.append(
            f"| {model} | {method} | {shape} | {dtype} | {speed:,.0f} | {other:,.0f} | {compiled} | {speed / other:.2f} | "
            f"{speed / peer_best[(model, method, shape)]:.2f} | {ours['fraction_median']:.2f} | "
            f"{ours['faults_per_step']:.0f} | {ours['peak_bytes'] / 1e6:.0f} | {theirs['peak_bytes'] / 1e6:.0f} |")
    path = arguments.out
    with open(path + ".tmp", "w") as file:
        file.write("\n".join(lines) + "\n" + by_hand(path))
    os.replace(path + ".tmp", path)


def main():
    if sys.argv[1:2] == ["peer"]:
        model, method, dtype, lengths, steps, threads, kind = sys.argv[2:9]
        print(json.dumps(peer(model, method, dtype, json.loads(lengths), int(steps), 2, int(threads), kind == "compiled")))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["compare"])
    parser.add_argument("--step", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", default="", help="only works whose line holds this")
    compare(parser.parse_args())


main()
