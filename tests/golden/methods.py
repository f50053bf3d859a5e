"""Makes tests/golden/methods/peft.json: weights that PEFT's layers have in effect, and what its AdaLoRA prunes.

    python tests/golden/methods.py [--out tests/golden/methods]

Three projections with random weights, one PEFT method a case with random parameters; the weight in effect is read off
the forward pass of the unit vectors, in double precision. Needs torch and peft; its results are committed.
"""
import sys

# peft.py of this folder is named like the package: its own folder must not come first.
sys.path.pop(0)

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402

import torch  # noqa: E402
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, RandLoraConfig, VeraConfig, get_peft_model  # noqa: E402
from peft.tuners.adalora.layer import RankAllocator  # noqa: E402

SHAPES = {"q": (6, 6), "up": (8, 6), "down": (6, 8)}  # [out, in]
CASES = {
    "lora": LoraConfig(r=2, lora_alpha=6),
    "lora_rslora": LoraConfig(r=3, lora_alpha=6, use_rslora=True),
    "lora_patterns": LoraConfig(r=2, lora_alpha=6, rank_pattern={"up": 3}, alpha_pattern={"down": 5}),
    "dora": LoraConfig(r=2, lora_alpha=5, use_dora=True),
    "dora_rslora": LoraConfig(r=4, lora_alpha=3, use_dora=True, use_rslora=True),
    "loha": LoHaConfig(r=2, alpha=5),
    "lokr": LoKrConfig(r=1, alpha=3),
    "lokr_both": LoKrConfig(r=1, alpha=3, decompose_both=True, decompose_factor=4),
    "lokr_factor": LoKrConfig(r=1, alpha=3, decompose_factor=4),
    "lokr_whole": LoKrConfig(r=4, alpha=3),
    "vera": VeraConfig(r=3, d_initial=0.1),
    "vera_large": VeraConfig(r=13, d_initial=0.1),
    "randlora": RandLoraConfig(r=2, randlora_alpha=8),
    "randlora_uneven": RandLoraConfig(r=4, randlora_alpha=8),
    "adalora": AdaLoraConfig(init_r=3, target_r=2, lora_alpha=6, total_step=10),
}


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, (out, inner) in SHAPES.items():
            setattr(self, name, torch.nn.Linear(inner, out))

    def forward(self, x):
        return self.down(self.up(self.q(x)))


def numbers(tensor):
    return [numbers(row) for row in tensor] if tensor.dim() else round(tensor.item(), 9)


def rounded(model):
    """Random parameters with few digits, so that the file holds them exactly."""
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            if "ranknum" in key:
                continue  # a constant that PEFT keeps as a parameter
            p.copy_(torch.round(torch.randn(p.shape, dtype=torch.double) * 0.5 * 1e4) / 1e4)
        for _, b in sorted(model.named_buffers()):
            b.copy_(torch.round(b.double() * 1e4) / 1e4)


def effective(layer, inner):
    zero = layer(torch.zeros(1, inner, dtype=torch.double))
    return (layer(torch.eye(inner, dtype=torch.double)) - zero).T


def case(config):
    base = Layers().double()
    config.target_modules = list(SHAPES)
    model = get_peft_model(base, config, autocast_adapter_dtype=False).double().eval()
    rounded(model)
    with torch.no_grad():
        result = {"base": {}, "effective": {}, "tensors": {}}
        for name, (_, inner) in SHAPES.items():
            layer = getattr(model.base_model.model, name)
            result["base"][name] = numbers(layer.base_layer.weight)
            result["effective"][name] = numbers(effective(layer, inner))
        for key, value in sorted(model.state_dict().items()):
            if "base_layer" in key or "ranknum" in key:
                continue
            key = key.replace("base_model.model.", "").replace("base_model.", "").replace(".default", "")
            if key.split(".")[0] not in SHAPES and key.count(".") > 0:
                key = key.split(".")[-1]
            if any(key.endswith(suffix) for suffix in ("vera_A", "vera_B", "randlora_A", "randlora_B")):
                key = key.split(".")[-1]  # shared by all layers
            result["tensors"][key.replace(".weight", "")] = numbers(value)
    return result


def allocation():
    """Importance and masks of PEFT's rank allocator over a run in which every value and gradient is given."""
    config = AdaLoraConfig(init_r=3, target_r=1, tinit=2, tfinal=3, deltaT=2, total_step=12, beta1=0.8, beta2=0.7,
                           lora_alpha=4)
    config.target_modules = list(SHAPES)
    model = get_peft_model(Layers().double(), config, autocast_adapter_dtype=False).double()
    allocator = RankAllocator(model.base_model.model, model.peft_config["default"], "default")
    steps = []
    for step in range(1, 13):
        record = {"values": {}, "gradients": {}, "kept": {}}
        for key, p in sorted(model.named_parameters()):
            if "lora_" not in key:
                continue
            short = key.replace("base_model.model.", "").replace(".default", "")
            p.grad = torch.round(torch.randn_like(p) * 1e3) / 1e3
            with torch.no_grad():
                p.copy_(torch.round(torch.randn_like(p) * 1e3) / 1e3 + 1e-4)
            record["values"][short], record["gradients"][short] = numbers(p), numbers(p.grad)
        model.base_model.rankallocator = allocator
        model.base_model.update_and_allocate(step)
        for name in SHAPES:
            e = getattr(model.base_model.model, name).lora_E["default"]
            record["kept"][name] = [int(v != 0) for v in e.view(-1)]
        record["budget"] = allocator.budget_schedule(step)[0]
        steps.append(record)
    return steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "methods"))
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(3)
    result = {name: case(config) for name, config in CASES.items()}
    result["allocation"] = allocation()
    with open(os.path.join(out, "peft.json"), "w") as f:
        json.dump(result, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
