"""Adapters of PEFT through Attune and back: PEFT must load what Attune exports and compute the same logits.

    python tests/compare/peft_roundtrip.py build/release/bin/attune [--golden tests/golden/peft]

For every golden adapter: `attune export ADAPTER --to peft`, then PEFT's logits of the export against those PEFT computed
from its own file (1e-4), and `attune forward` of the export against them too. Warnings of PEFT about missing or unknown
keys count as failures. Needs torch, transformers, peft.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

TOLERANCE = 1e-4


def peft_logits(base, adapter, lines):
    model = BertForSequenceClassification.from_pretrained(base, attn_implementation="eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, adapter).eval()
    complaints = [str(w.message) for w in caught if "key" in str(w.message)]
    if complaints:
        raise SystemExit(f"{adapter}: PEFT complains: {complaints}")
    result = []
    with torch.no_grad():
        for line in lines:
            ids = torch.tensor([line["input_ids"]])
            types = torch.tensor([line["token_type_ids"]])
            result.append(model(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids)).logits[0])
    return result


def worst(values, expected):
    return max((a - b).abs().max().item() for a, b in zip(values, expected))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attune")
    parser.add_argument("--golden", default=os.path.join(here, "..", "golden", "peft"))
    args = parser.parse_args()
    golden = os.path.abspath(args.golden)
    base = os.path.join(golden, "base")
    inputs = os.path.join(golden, "inputs.jsonl")
    with open(inputs, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    expected = load_file(os.path.join(golden, "expected.safetensors"))
    failed = 0
    for name in sorted(os.listdir(golden)):
        if not os.path.exists(os.path.join(golden, name, "adapter_config.json")):
            continue
        with tempfile.TemporaryDirectory() as folder:
            source, out = os.path.join(folder, "source"), os.path.join(folder, "out")
            shutil.copytree(os.path.join(golden, name), source)
            path = os.path.join(source, "adapter_config.json")
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            config["base_model_name_or_path"] = base
            with open(path, "w", encoding="utf-8") as file:
                json.dump(config, file)
            subprocess.run([args.attune, "export", source, "--to", "peft", "-o", out], check=True,
                           stdout=subprocess.DEVNULL)
            written = os.path.join(folder, "logits.safetensors")
            subprocess.run([args.attune, "forward", out, "--input", inputs, "--want", "logits", "-o", written],
                           check=True, stdout=subprocess.DEVNULL)
            ours = load_file(written)
            want = [expected[f"{name}/{i}/logits"] for i in range(len(lines))]
            theirs = worst(peft_logits(base, out, lines), want)
            mine = worst([ours[f"{i}/logits"].reshape(-1) for i in range(len(lines))], want)
            ok = max(theirs, mine) <= TOLERANCE
            failed += not ok
            print(f"{name:16} PEFT reads the export: {theirs:.1e}   attune reads it: {mine:.1e}   {'ok' if ok else 'FAIL'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
