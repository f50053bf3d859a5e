"""Random checkpoints of unusual shapes: `attune forward` against transformers, every hidden state, logit and gradient.

    python tests/compare/forward_parity.py build/release/bin/attune [--family bert|llama|t5|vit] [--count 20] [--seed 1]
        [--precision fp32] [--grad] [--as-drawn] [--keep DIR]

A checkpoint is drawn (class, widths, heads, layers, positions, activation, epsilon, way of storing: families.py), saved
as Hugging Face files, and run on inputs of odd lengths. The reference is transformers in double precision. Accepted:
|a - b| <= tolerance (1 + |b|) with 3e-5 for fp32, 3e-2 for bf16, 1e-6 for fp64 (results are written as float32, and
transformers takes its RMS norms, angles and softmax in single precision whatever the type: 3e-6 where a family has
them). In bf16 transformers' own values pass 3e-2 now and then, too: there a tensor is also accepted when its root mean
square error over all inputs is at most 1.1 times theirs (largest errors of few numbers are noise). How much of an error is the
checkpoint's own is said beside it: double precision throughout, only the matrices rounded to bf16 ("their weights alone").
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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from families import FAMILIES  # noqa: E402

TOLERANCE = {"fp32": 3e-5, "bf16": 3e-2, "fp64": 1e-6}


def tolerance_of(options):
    single = options.precision == "fp64" and options.family != "bert"
    return 3e-6 if single else TOLERANCE[options.precision]


def checkpoint(options, family, folder, case, rng, number):
    seed = options.seed * 1000 + number
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = family.kind(case)(family.config(case, rng, number), **family.keywords(case))
    if not options.as_drawn:
        family.lively(model, generator, 0.6 if options.precision == "bf16" else 1.2)
        family.after_lively(model, case, rng, generator)
    layout = rng.choice(family.layouts + family.extra_layouts(case))
    family.save(model, folder, case, layout)
    return family.load(folder, case), layout, generator


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
    relative = {"fp32": 3e-4, "fp64": 3e-6, "bf16": 1e-1}[precision]
    return error / max(relative * want.norm().item(), relative / 3 * whole * (want.norm().item() < 1e-4 * whole), 1e-30)


def run_attune(options, folder, names):
    wanted = sorted({name for name in names if name != "loss"})
    out = os.path.join(folder, "out.safetensors")
    command = [options.attune, "forward", folder, "--input", os.path.join(folder, "inputs.jsonl"),
               "--want", ",".join(wanted), "-o", out, "--precision", options.precision]
    if options.grad:
        command.append("--grad")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")
    return load_file(out)


def compare_line(options, got, number, expected, theirs, worsts, squares, missing):
    values, grads = expected
    for name, want in values.items():
        found = got.get(f"{number}/{name}")
        if found is None:
            missing.append(f"{number}/{name}")
            continue
        worsts[name] = max(worsts.get(name, 0), worst(found, want, tolerance_of(options)))
        if name in theirs:
            ours, others = squares.get(name, (0, 0))
            squares[name] = (ours + ((found.double().reshape(want.shape) - want) ** 2).sum().item(),
                             others + ((theirs[name].double() - want) ** 2).sum().item())
    for name, want in grads.items():
        found = got.get(f"{number}/grad/{name}")
        if found is None:
            missing.append(f"{number}/grad/{name}")
            continue
        error = worst_grad(found, want, grads, options.precision)
        worsts["grad/" + name] = max(worsts.get("grad/" + name, 0), error)


def compare(options, folder, number):
    family = FAMILIES[options.family]
    rng = random.Random(options.seed * 1000 + number)
    case = list(family.cases)[number % len(family.cases)]
    model, layout, generator = checkpoint(options, family, folder, case, rng, number)
    lines = family.lines(model, case, rng, generator, folder, options.grad)
    with open(os.path.join(folder, "inputs.jsonl"), "w", encoding="utf-8") as out:
        for line, _, _ in lines:
            out.write(json.dumps(line) + "\n")
    expected = [family.reference(model, case, layout, arguments, labels) for _, arguments, labels in lines]
    if not options.grad:
        for values, grads in expected:
            values.pop("loss", None)
            grads.clear()
    got = run_attune(options, folder, expected[0][0])
    worsts, squares, missing = {}, {}, []
    half = copy.deepcopy(model).bfloat16() if options.precision == "bf16" else None
    coarse = with_rounded_matrices(model) if half else None
    alone = 0.0
    for i, (_, arguments, labels) in enumerate(lines):
        theirs = family.reference(half, case, layout, halved(arguments), halved(labels))[0] if half else {}
        compare_line(options, got, i, expected[i], theirs, worsts, squares, missing)
        if coarse:
            values = family.reference(coarse, case, layout, arguments, labels)[0]
            alone = max([alone] + [worst(values[name], want, tolerance_of(options)) for name, want in expected[i][0].items()])
    strict = max(worsts.values(), default=float("inf"))
    for part, (ours, others) in squares.items():
        if worsts[part] > 1 and ours <= 1.1 ** 2 * others:
            worsts[part] = 1.0
    name, error = max(worsts.items(), key=lambda item: item[1]) if worsts else ("nothing", float("inf"))
    good = error <= 1 and not missing
    print(f"{'ok  ' if good else 'FAIL'} {number}: {options.family} {case} {layout} {shape_of(model.config)}: worst "
          f"{name} at {error:.3f} of what is allowed"
          + (f" (strictly {strict:.3f}, their weights alone {alone:.3f})" if coarse else "")
          + (f"; missing {missing[:5]} ({len(missing)})" if missing else ""), flush=True)
    if not good:
        for part, value in sorted(worsts.items(), key=lambda item: -item[1])[:8]:
            print(f"       {part}: {value:.3f}")
    return good, error, strict, alone


def with_rounded_matrices(model):
    coarse = copy.deepcopy(model)
    for value in coarse.parameters():
        if value.dim() > 1:
            value.data = value.data.bfloat16().to(value.dtype)
    return coarse


def halved(arguments):
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in arguments.items()}


def shape_of(config):
    parts = [f"hidden {config.hidden_size}", f"heads {config.num_attention_heads}", f"layers {config.num_hidden_layers}"]
    for key in ("num_key_value_heads", "head_dim", "intermediate_size", "d_ff", "type_vocab_size", "hidden_act",
                "feed_forward_proj", "relative_attention_num_buckets", "image_size", "patch_size"):
        if getattr(config, key, None) is not None:
            parts.append(f"{key.split('_')[-1]} {getattr(config, key)}")
    rope = getattr(config, "rope_parameters", None)
    return ", ".join(parts) + (f", rope {rope['rope_type']}" if rope else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attune")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="bert")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", choices=sorted(TOLERANCE), default="fp32")
    parser.add_argument("--grad", action="store_true")
    parser.add_argument("--as-drawn", action="store_true", help="weights as transformers draws them, not made lively")
    parser.add_argument("--keep", help="leave the checkpoints in this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed, largest, strictly, alone_within = 0, 0.0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.count):
            folder = os.path.join(options.keep or scratch, str(number))
            os.makedirs(folder, exist_ok=True)
            try:
                good, error, strict, alone = compare(options, folder, number)
                largest = max(largest, error)
                strictly += strict <= 1
                alone_within += alone <= 1
            except RuntimeError as error:
                good = False
                print(f"FAIL {number}: {error}", flush=True)
            failed += not good
    print(f"{options.count - failed} of {options.count} equal within tolerance ({options.precision}); "
          f"worst {largest:.3f} of what is allowed")
    if options.precision == "bf16":
        print(f"strictly within {TOLERANCE['bf16']}: {strictly}; double precision with the matrices alone rounded: {alone_within}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
