"""Random BERT checkpoints of unusual shapes: `attune forward` against transformers, every hidden state and logit.

    python tests/compare/forward_parity.py build/release/bin/attune [--count 20] [--seed 1] [--precision fp32] [--grad]
        [--keep DIR]

A checkpoint is drawn (class, widths, heads, layers, vocabulary, token types, positions, activation, epsilon, way of
storing), saved as Hugging Face files, and run on texts of odd lengths. The reference is transformers in double
precision. Accepted: |a - b| <= tolerance (1 + |b|) with 3e-5 for fp32, 3e-2 for bf16, 1e-6 for fp64 (results are
written as float32). In bf16 on weights this lively, transformers' own bf16 passes 3e-2 now and then: there a tensor is
also accepted when its error is no larger than theirs.
--grad compares the loss and the gradient of every parameter too: relative 3e-4 of its norm; gradients that are mere
rounding (key biases) against 1e-4 of the whole gradient's norm. Needs torch and transformers.
"""
import argparse
import copy
import json
import os
import random
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import bert as golden  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402
from transformers import BertForMaskedLM, BertForQuestionAnswering  # noqa: E402
from transformers import BertForSequenceClassification, BertForTokenClassification  # noqa: E402

TOLERANCE = {"fp32": 3e-5, "bf16": 3e-2, "fp64": 1e-6}
KINDS = [
    ("base", BertModel, {}),
    ("base-no-pooler", BertModel, {"add_pooling_layer": False}),
    ("classify", BertForSequenceClassification, {}),
    ("regress", BertForSequenceClassification, {}),
    ("classify-multi", BertForSequenceClassification, {}),
    ("tag", BertForTokenClassification, {}),
    ("qa", BertForQuestionAnswering, {}),
    ("mlm", BertForMaskedLM, {}),
]


def draw_config(case, rng):
    head_size = rng.choice([1, 2, 3, 4, 5, 7, 8, 11, 16, 20, 32, 64])
    heads = rng.choice([1, 2, 3, 5, 6, 7, 12])
    while heads * head_size > 400 or heads * head_size < 4:
        heads, head_size = rng.choice([1, 2, 3, 5, 6, 7, 12]), rng.choice([2, 3, 4, 5, 7, 8, 11, 16, 20, 32])
    shape = dict(
        hidden_size=heads * head_size, num_attention_heads=heads, intermediate_size=rng.randint(3, 300),
        num_hidden_layers=rng.randint(1, 5), vocab_size=rng.randint(40, 700), type_vocab_size=rng.randint(1, 5),
        max_position_embeddings=rng.choice([40, 77, 130]), layer_norm_eps=rng.choice([1e-12, 1e-7, 1e-5, 1e-3]),
        hidden_act=rng.choice(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]))
    if case == "classify":
        shape.update(num_labels=rng.randint(2, 40))
    if case == "regress":
        shape.update(num_labels=1, problem_type="regression")
    if case == "classify-multi":
        shape.update(num_labels=4, problem_type="multi_label_classification")
    if case == "tag":
        shape.update(num_labels=rng.randint(2, 17))
    return BertConfig(pad_token_id=0, **shape)


def checkpoint(folder, case, kind, keywords, rng, seed, precision):
    config = draw_config(case, rng)
    if case == "classify":
        config.num_labels = max(config.num_labels, 4)   # the label that the golden script gives is 3
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = kind(config, **keywords)
    gain = 0.6 if precision == "bf16" else 1.2
    # Wide layers add many terms: weights shrink with the width so that every shape stays in a lively range.
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        fan_in = value.shape[-1] if value.dim() > 1 and "embeddings" not in name else 1
        std = 0.4 if value.dim() > 1 and fan_in == 1 else 0.3 if value.dim() == 1 else gain / fan_in ** 0.5
        value.data = noise * std + (1 if "LayerNorm.weight" in name else 0)
    model.tie_weights()
    layouts = ["plain", "legacy", "sharded", "half"] + (["prefixed"] if kind is BertModel else [])
    layout = rng.choice(layouts)
    golden.save(model, folder, case, layout)
    model, report = kind.from_pretrained(folder, attn_implementation="eager", output_loading_info=True,
                                         dtype=torch.float64, **keywords)
    if report["missing_keys"] or report["unexpected_keys"]:
        raise SystemExit(f"the generated checkpoint {folder} is faulty: {report}")
    return model.eval(), layout, generator


def make_lines(model, case, rng, generator, grad):
    config, lines, kept = model.config, [], []
    lengths = [1, 1, 2, 3, rng.randint(4, 20), rng.randint(5, config.max_position_embeddings),
               config.max_position_embeddings]
    for length in lengths:
        line = {"input_ids": torch.randint(0, config.vocab_size, (length,), generator=generator).tolist()}
        if rng.random() < 0.7:
            line["token_type_ids"] = torch.randint(0, config.type_vocab_size, (length,), generator=generator).tolist()
        labels = {}
        if grad and case != "qa" and length > 2:
            written, labels = golden.labels_for(case, config, length, generator)
            if written is not None:
                line["labels"] = written
        lines.append(line)
        kept.append(labels)
    return lines, kept


def reference(model, case, layout, line, labels):
    ids = torch.tensor([line["input_ids"]])
    types = torch.tensor([line["token_type_ids"]]) if "token_type_ids" in line else None
    model.zero_grad(set_to_none=True)
    output = model(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids), output_hidden_states=True,
                   **labels)
    values = {"final": output.hidden_states[-1][0], "embed.out": output.hidden_states[0][0]}
    for k, state in enumerate(output.hidden_states[1:]):
        values[f"enc.{k}.resid.out"] = state[0]
    if not isinstance(model, BertModel):
        values["logits"] = golden.logits_of(output, case)
    grads = {}
    if labels:
        output.loss.backward()
        values["loss"] = output.loss
        for name, value in model.named_parameters():
            if value.grad is not None:
                grads[golden.checkpoint_name(name, case, layout)] = value.grad.clone()
    return {name: value.detach() for name, value in values.items()}, grads


def worst(got, want, tolerance):
    """The largest error as a multiple of what is allowed."""
    if list(got.shape) != list(want.shape) and got.numel() != want.numel():
        return float("inf")
    got = got.double().reshape(want.shape)
    if not torch.isfinite(got).all():
        return float("inf")
    return ((got - want).abs() / (tolerance * (1 + want.abs()))).max().item()


def worst_grad(got, want, grads, precision):
    whole = torch.sqrt(sum((value ** 2).sum() for value in grads.values())).item()
    error = (got.double().reshape(want.shape) - want).norm().item()
    relative = {"fp32": 3e-4, "fp64": 1e-6, "bf16": 1e-1}[precision]
    return error / max(relative * want.norm().item(), relative / 3 * whole * (want.norm().item() < 1e-4 * whole), 1e-30)


def run_attune(options, folder, base_model):
    wanted = ["enc.*.resid.out", "*embed.out", "final"] + ([] if base_model else ["logits"])
    out = os.path.join(folder, "out.safetensors")
    command = [options.attune, "forward", folder, "--input", os.path.join(folder, "inputs.jsonl"),
               "--want", ",".join(wanted), "-o", out, "--precision", options.precision]
    if options.grad:
        command.append("--grad")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")
    return load_file(out)


def compare(options, folder, number):
    rng = random.Random(options.seed * 1000 + number)
    case, kind, keywords = KINDS[number % len(KINDS)]
    model, layout, generator = checkpoint(folder, case, kind, keywords, rng, options.seed * 1000 + number,
                                          options.precision)
    lines, labels = make_lines(model, case, rng, generator, options.grad)
    with open(os.path.join(folder, "inputs.jsonl"), "w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")
    got = run_attune(options, folder, kind is BertModel)
    worsts, missing = {}, []
    # Labels of regression and of several labels are floats of the model's type, so bf16 is compared without them.
    half = copy.deepcopy(model).bfloat16() if options.precision == "bf16" else None
    for i, line in enumerate(lines):
        values, grads = reference(model, case, layout, line, labels[i])
        theirs = reference(half, case, layout, line, {})[0] if half else {}
        for name, want in values.items():
            found = got.get(f"{i}/{name}", got.get(f"{i}/enc.{name}"))
            if found is None:
                missing.append(f"{i}/{name}")
                continue
            error = worst(found, want, TOLERANCE[options.precision])
            if error > 1 and name in theirs:
                error /= max(1, worst(theirs[name], want, TOLERANCE[options.precision]))
            worsts[name] = max(worsts.get(name, 0), error)
        for name, want in grads.items():
            found = got.get(f"{i}/grad/{name}")
            if found is None:
                missing.append(f"{i}/grad/{name}")
                continue
            error = worst_grad(found, want, grads, options.precision)
            worsts["grad/" + name] = max(worsts.get("grad/" + name, 0), error)
    config = model.config
    shape = (f"{case} {layout} hidden {config.hidden_size} heads {config.num_attention_heads} inner "
             f"{config.intermediate_size} layers {config.num_hidden_layers} types {config.type_vocab_size} "
             f"{config.hidden_act} eps {config.layer_norm_eps:g}")
    name, error = max(worsts.items(), key=lambda item: item[1]) if worsts else ("nothing", float("inf"))
    good = error <= 1 and not missing
    print(f"{'ok  ' if good else 'FAIL'} {number}: {shape}: worst {name} at {error:.3f} of what is allowed"
          + (f"; missing {missing[:5]} ({len(missing)})" if missing else ""), flush=True)
    if not good:
        for part, value in sorted(worsts.items(), key=lambda item: -item[1])[:8]:
            print(f"       {part}: {value:.3f}")
    return good, error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attune")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", choices=sorted(TOLERANCE), default="fp32")
    parser.add_argument("--grad", action="store_true")
    parser.add_argument("--keep", help="leave the checkpoints in this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed, largest = 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.count):
            folder = os.path.join(options.keep or scratch, str(number))
            os.makedirs(folder, exist_ok=True)
            try:
                good, error = compare(options, folder, number)
                largest = max(largest, error)
            except RuntimeError as error:
                good = False
                print(f"FAIL {number}: {error}", flush=True)
            failed += not good
    print(f"{options.count - failed} of {options.count} equal within tolerance ({options.precision}); "
          f"worst {largest:.3f} of what is allowed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
