"""The decoder half of the S07 acceptance experiment: a decoder of 15 M parameters of our own making, trained on one text,
then tuned to another by the generative methods. Used by acceptance.py.
"""
import json
import os
import shutil
import subprocess
import sys

D, F, LAYERS = 384, 1024, 8
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": D, "intermediate_size": F,
          "num_hidden_layers": LAYERS, "num_attention_heads": 6, "num_key_value_heads": 6, "vocab_size": 1000,
          "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
          "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2}
EVERY = "dec.*.{self.[qkvo],ffn.gate,ffn.up,ffn.down}"
LINEARS = 4 * 2 * D + 3 * (D + F)  # inputs and outputs of a block's projections

# label, options, further settings, learning rate, trained parameters
METHODS = [
    ("lora", "{lora: {rank: 8, sites: '%s'}}" % EVERY, [], "2e-3", LAYERS * 8 * LINEARS),
    ("qlora", "{lora: {rank: 8, sites: '%s'}}" % EVERY, ["storage=nf4"], "2e-3", LAYERS * 8 * LINEARS),
    ("prompt", "{prompt: {length: 20}}", [], "3e-2", 20 * D),
    ("prefix", "{prefix: {length: 20}}", [], "1e-2", LAYERS * 2 * 20 * D),
    ("adalora", "{adalora: {rank: 8, init_rank: 12, sites: '%s'}}" % EVERY, [], "5e-3", LAYERS * 12 * (LINEARS + 7)),
]

RECIPE = """model: {model}
task: lm
data: {{train: {train}, eval: {eval}, max_length: 128}}
methods: [full]
train: {{steps: {steps}, batch_size: 8, lr: {rate}, eval_every: never, save_every: never, seed: 1}}
output: {output}
"""


def run(args, *command):
    done = subprocess.run([args.attune, *command, "--threads", str(args.threads), "--quiet", "--json"],
                          stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"attune {command[0]} ended with status {done.returncode}; go on with the same command")
    return json.loads(done.stdout)


def cut(source, target, begin, end):
    with open(source, encoding="utf-8") as text, open(target, "w", encoding="utf-8") as out:
        out.write(text.read()[begin:end])
    return target


def write(path, text):
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    return path


def prepare(args, folder):
    """The decoder, trained on WikiText, and the parts of Shakespeare."""
    os.makedirs(folder, exist_ok=True)
    wiki = os.path.join(args.data, "wikitext2")
    plays = os.path.join(args.data, "tinyshakespeare", "input.txt")
    parts = {"train": cut(plays, os.path.join(folder, "plays-train.txt"), 0, 300_000),
             "eval": cut(plays, os.path.join(folder, "plays-eval.txt"), 1_000_000, 1_050_000)}
    base = os.path.join(folder, "base")
    if os.path.exists(os.path.join(base, "model", "config.json")):
        return os.path.join(base, "model"), parts
    config = os.path.join(folder, "config")
    os.makedirs(config, exist_ok=True)
    write(os.path.join(config, "config.json"), json.dumps(CONFIG))
    tokenizer = os.path.join(args.data, "..", "models", "tokenizer-sentencepiece", "test_bpe_1k.model")
    shutil.copy(tokenizer, os.path.join(config, "tokenizer.model"))
    run(args, "init", config, "-o", os.path.join(folder, "fresh"), "--seed", "1", "--overwrite")
    text = cut(os.path.join(wiki, "valid.txt"), os.path.join(folder, "wiki-train.txt"), 0, 1_000_000)
    held = cut(os.path.join(wiki, "test.txt"), os.path.join(folder, "wiki-eval.txt"), 0, 50_000)
    recipe = RECIPE.format(model=os.path.join(folder, "fresh"), train=text, eval=held, steps=args.decoder_steps,
                           rate="1e-3", output=base)
    run(args, "train", write(os.path.join(folder, "base.yaml"), recipe), "--overwrite")
    return os.path.join(base, "model"), parts


def rows_of(args, folder, model, parts):
    rows = {}
    for label, options, settings, rate, _ in METHODS:
        output = os.path.join(folder, f"{label}-{rate}")
        recipe = RECIPE.format(model=model, train=parts["train"], eval=parts["eval"], steps=args.decoder_steps // 2,
                               rate=rate, output=output)
        os.makedirs(output, exist_ok=True)
        extra = [part for setting in settings for part in ("--set", setting)]
        done = subprocess.run([args.attune, "compare", write(os.path.join(folder, f"{label}.yaml"), recipe), "--methods",
                               f"{label}={options}", "--seeds", str(args.seeds), "-o", output, "--threads",
                               str(args.threads), "--quiet", "--json", *extra],
                              stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(f"decoder: {label} ended with status {done.returncode}", file=sys.stderr)
            continue
        rows[label] = json.loads(done.stdout)["rows"][0]
        rows[label]["folder"] = output
        print(f"decoder {label:8} perplexity {rows[label]['metrics']['perplexity']['mean']:.3f}", file=sys.stderr)
    return rows


def section(args, checks, check_adalora):
    """Lines of the page; adds what must come out to `checks`."""
    folder = os.path.join(args.runs, "decoder")
    model, parts = prepare(args, folder)
    before = run(args, "eval", model, "--data", parts["eval"], "--task", "lm")["perplexity"]
    rows = rows_of(args, folder, model, parts)
    text = ["## A decoder", "",
            f"14.5 M parameters (LLaMA's blocks, {LAYERS} of width {D}, 1,000 pieces), trained from nothing for {args.decoder_steps} steps of 1,024",
            f"tokens on WikiText-2, then tuned for {args.decoder_steps // 2} steps to 300,000 characters of Shakespeare. Perplexity of a token on",
            f"50,000 others; before tuning it is {before:.3f}.", "",
            "| method | lr | perplexity | trained | by formula | s a run | peak memory |", "|---|---:|---:|---:|---:|---:|---:|"]
    for label, _, _, rate, formula in METHODS:
        if label not in rows:
            checks.add(f"decoder: {label} runs", False, "it ended with an error")
            continue
        row = rows[label]
        found = row["metrics"]["perplexity"]
        text.append(f"| {label} | {rate} | {found['mean']:.3f} ± {found['sd']:.3f} | {row['trainable']:,} | {formula:,} | "
                    f"{row['seconds']:.0f} | {row['peak_bytes'] / 2**20:.0f} MiB |")
        checks.add(f"decoder: {label} trains its formula's number and lowers the perplexity",
                   row["trainable"] == formula and found["mean"] < before, f"{before:.2f} to {found['mean']:.2f}")
    if "lora" in rows and "qlora" in rows:
        gap = rows["qlora"]["metrics"]["loss"]["mean"] / rows["lora"]["metrics"]["loss"]["mean"] - 1
        with open(os.path.join(rows["qlora"]["folder"], "qlora-seed-1", "run.json"), encoding="utf-8") as file:
            storage = json.load(file)["storage"]
        share = storage["bytes"] / (2 * storage["weights"])
        checks.add("QLoRA keeps the adapted projections in at most 0.30 of their bytes in bf16", share <= 0.30, f"{share:.3f}")
        checks.add("QLoRA's loss is within 3 % of LoRA's after as many steps", abs(gap) <= 0.03, f"{100 * gap:+.2f} %")
    if "adalora" in rows:
        check_adalora(checks, rows["adalora"], args.seeds)
    return text + [""]
