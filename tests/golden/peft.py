"""Makes tests/golden/peft: a tiny BERT classifier, adapters that PEFT wrote for it, and the logits PEFT computes.

    python tests/golden/peft.py [--out tests/golden/peft]

Values are computed in double precision from the stored files. Needs torch, transformers, peft; its results are
committed.
"""
import sys

# This file is named like the package it uses: its own folder must not come first.
sys.path.pop(0)

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402

import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification  # noqa: E402

LENGTHS = (1, 2, 7, 13)
ATTENTION = ["query", "value"]
CASES = {
    "qv": dict(r=4, lora_alpha=12, target_modules=ATTENTION),
    "rslora": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["query", "key", "value"]),
    "bias-all": dict(r=2, lora_alpha=4, bias="all", target_modules=ATTENTION),
    "bias-lora-only": dict(r=2, lora_alpha=4, bias="lora_only", target_modules=ATTENTION),
    # Every projection of the body, the pooler's too, with ranks and alphas of their own.
    "patterns": dict(r=3, lora_alpha=6, target_modules="all-linear",
                     rank_pattern={"query": 2, r"layer\.1\.output\.dense": 5},
                     alpha_pattern={"value": 9, r"layer\.1\.output\.dense": 4}),
    "one-layer": dict(r=4, lora_alpha=8, target_modules=["attention.output.dense"], layers_to_transform=[1]),
    # No task type: the classifier is saved because the configuration says so.
    "head": dict(r=4, lora_alpha=4, target_modules=["query"], modules_to_save=["classifier"], task_type=None),
}


def lively(model, generator):
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator) * (0.4 if value.dim() > 1 else 0.3)
        value.data = noise + 1 if "LayerNorm.weight" in name else noise


def trained(model, generator):
    """As if training had changed everything that trains: LoRA's B starts at zero and would hide mistakes."""
    for name, value in model.named_parameters():
        if value.requires_grad:
            value.data = value.data * 0.5 + torch.randn(value.shape, generator=generator) * 0.3


def logits(model, lines):
    model.eval()
    result = []
    with torch.no_grad():
        for line in lines:
            ids = torch.tensor([line["input_ids"]])
            result.append(model(input_ids=ids, token_type_ids=torch.tensor([line["token_type_ids"]]),
                                attention_mask=torch.ones_like(ids)).logits[0])
    return result


def load_base(folder):
    return BertForSequenceClassification.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "peft"))
    root = parser.parse_args().out
    torch.set_num_threads(1)
    shutil.rmtree(root, ignore_errors=True)
    base = os.path.join(root, "base")
    generator = torch.Generator().manual_seed(7)
    config = BertConfig(hidden_size=12, num_attention_heads=3, intermediate_size=20, num_hidden_layers=2,
                        vocab_size=60, max_position_embeddings=14, num_labels=3)
    model = BertForSequenceClassification(config)
    lively(model, generator)
    model.save_pretrained(base)

    lines = []
    for length in LENGTHS:
        lines.append({"input_ids": torch.randint(0, 60, (length,), generator=generator).tolist(),
                      "token_type_ids": torch.randint(0, 2, (length,), generator=generator).tolist()})
    with open(os.path.join(root, "inputs.jsonl"), "w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")

    plain = logits(load_base(base), lines)
    expected = {f"base/{i}/logits": value for i, value in enumerate(plain)}
    for number, (name, settings) in enumerate(CASES.items()):
        torch.manual_seed(number)
        settings = {"task_type": "SEQ_CLS", "lora_dropout": 0.0, **settings}
        model = BertForSequenceClassification.from_pretrained(base, dtype=torch.float32)
        adapted = get_peft_model(model, LoraConfig(**settings))
        trained(adapted, generator)
        folder = os.path.join(root, name)
        adapted.save_pretrained(folder)
        path = os.path.join(folder, "adapter_config.json")
        with open(path, encoding="utf-8") as file:
            written = json.load(file)
        written["base_model_name_or_path"] = "base"      # not the folder of whoever ran this
        if written.get("target_modules"):
            written["target_modules"] = sorted(written["target_modules"])
        with open(path, "w", encoding="utf-8") as file:
            json.dump(written, file, indent=2, sort_keys=True)
        if os.path.exists(os.path.join(folder, "README.md")):
            os.remove(os.path.join(folder, "README.md"))
        # From the files again, in double precision.
        read = PeftModel.from_pretrained(load_base(base), folder, autocast_adapter_dtype=False).double()
        values = logits(read, lines)
        assert max((a - b).abs().max() for a, b in zip(values, logits(adapted, lines))) < 1e-4, name
        changed = min((a - b).abs().max().item() for a, b in zip(values, plain))
        assert changed > 1e-2, (name, changed)
        expected.update({f"{name}/{i}/logits": value for i, value in enumerate(values)})
        print(name, sorted(os.listdir(folder)), f"changed by at least {changed:.3f}")
    save_file({name: value.float().contiguous() for name, value in expected.items()},
              os.path.join(root, "expected.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main()
