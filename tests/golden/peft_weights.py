"""Makes tests/golden/peft_weights.json: single projections, adapters of PEFT's methods over them with random values, and
the weight PEFT merges them to. Names of methods, options and tensors are this project's.

    python tests/golden/peft_weights.py [--out tests/golden/peft_weights.json]

Needs torch, peft; its results are committed.
"""
import sys

# A neighbour is named like the package this uses: its own folder must not come first.
sys.path.pop(0)

import argparse  # noqa: E402
import json  # noqa: E402

import peft.tuners.boft.layer as boft_layer  # noqa: E402
import torch  # noqa: E402
from peft import (BOFTConfig, C3AConfig, FourierFTConfig, HRAConfig, IA3Config, MissConfig, OFTConfig,  # noqa: E402
                  ShiraConfig, get_peft_model)

SEED = 11


class BlockDiagonal:
    """What PEFT's CUDA extension computes; without it PEFT allows one butterfly factor only."""

    @staticmethod
    def apply(blocks):
        return torch.stack([torch.block_diag(*torch.unbind(factor)) for factor in blocks])


class Net(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.proj = torch.nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.proj(x)


def skew_rows(matrix):
    """The upper triangle of the skew-symmetric part, row by row."""
    rows, cols = torch.triu_indices(matrix.shape[-1], matrix.shape[-1], 1)
    return (0.5 * (matrix - matrix.transpose(-1, -2)))[..., rows, cols]


def oft(layer):
    return {"rotation": layer.oft_R["default"].weight}


def boft(layer):
    return {"rotation": skew_rows(layer.boft_R["default"]), "scale": layer.boft_s["default"].reshape(-1)}


def miss(layer):
    block = layer.miss_block["default"]
    return {"blocks": block} if block.dim() == 3 else {"up": block.T}


CASES = [
    # name, method, options here, inputs, outputs, PEFT's configuration, tensors of a layer
    ("ia3-output", "ia3", {"sites": "*.q"}, 6, 4, IA3Config(target_modules=["proj"], feedforward_modules=[]),
     lambda layer: {"scale": layer.ia3_l["default"].reshape(-1)}),
    ("ia3-input", "ia3", {"sites": "*.q", "feedforward": "*.q"}, 6, 4,
     IA3Config(target_modules=["proj"], feedforward_modules=["proj"]),
     lambda layer: {"scale": layer.ia3_l["default"].reshape(-1)}),
    ("oft", "oft", {"sites": "*.q", "block_size": 4}, 12, 5, OFTConfig(target_modules=["proj"], oft_block_size=4), oft),
    ("oft-terms", "oft", {"sites": "*.q", "block_size": 4, "neumann_terms": 3}, 12, 5,
     OFTConfig(target_modules=["proj"], oft_block_size=4, num_cayley_neumann_terms=3), oft),
    ("oft-exact", "oft", {"sites": "*.q", "block_size": 4, "neumann_terms": 0}, 12, 5,
     OFTConfig(target_modules=["proj"], oft_block_size=4, use_cayley_neumann=False), oft),
    ("oft-adjusted", "oft", {"sites": "*.q", "block_size": 5, "neumann_terms": 0}, 12, 5,
     OFTConfig(target_modules=["proj"], oft_block_size=5, use_cayley_neumann=False), oft),
    ("oft-blocks-shared", "oft", {"sites": "*.q", "blocks": 4, "block_share": True}, 12, 5,
     OFTConfig(target_modules=["proj"], r=4, oft_block_size=0, block_share=True), oft),
    ("oft-constrained", "oft", {"sites": "*.q", "block_size": 4, "coft": True, "eps": 0.3, "neumann_terms": 0}, 12, 5,
     OFTConfig(target_modules=["proj"], oft_block_size=4, coft=True, eps=0.3, use_cayley_neumann=False), oft),
    ("boft", "boft", {"sites": "*.q", "block_size": 4}, 12, 5, BOFTConfig(target_modules=["proj"], boft_block_size=4),
     boft),
    ("boft-factors", "boft", {"sites": "*.q", "block_size": 2, "factors": 3}, 16, 5,
     BOFTConfig(target_modules=["proj"], boft_block_size=2, boft_n_butterfly_factor=3), boft),
    ("boft-blocks", "boft", {"sites": "*.q", "blocks": 4, "factors": 2}, 24, 3,
     BOFTConfig(target_modules=["proj"], boft_block_size=0, boft_block_num=4, boft_n_butterfly_factor=2), boft),
    ("fourierft", "fourierft", {"sites": "*.q", "frequencies": 9, "scaling": 3}, 7, 6,
     FourierFTConfig(target_modules=["proj"], n_frequency=9, scaling=3.0),
     lambda layer: {"spectrum": layer.fourierft_spectrum["default"]}),
    ("fourierft-seed", "fourierft", {"sites": "*.q", "frequencies": 20, "scaling": 30, "entry_seed": 5}, 8, 5,
     FourierFTConfig(target_modules=["proj"], n_frequency=20, scaling=30.0, random_loc_seed=5),
     lambda layer: {"spectrum": layer.fourierft_spectrum["default"]}),
    ("c3a", "c3a", {"sites": "*.q", "block_size": 4}, 12, 8, C3AConfig(target_modules=["proj"], block_size=4),
     lambda layer: {"kernels": layer.c3a_kernel["default"]}),
    ("miss", "miss", {"sites": "*.q", "rank": 4}, 12, 6, MissConfig(target_modules=["proj"], r=4), miss),
    ("miss-remainder", "miss", {"sites": "*.q", "rank": 5}, 12, 6, MissConfig(target_modules=["proj"], r=5), miss),
    ("miss-bat", "miss", {"sites": "*.q", "rank": 3, "variant": "bat"}, 12, 6,
     MissConfig(target_modules=["proj"], r=3, init_weights="bat"), miss),
    ("miss-mini", "miss", {"sites": "*.q", "rank": 4, "variant": "mini", "mini_rank": 3}, 12, 6,
     MissConfig(target_modules=["proj"], r=4, init_weights="mini", mini_r=3), miss),
    ("shira", "shira", {"sites": "*.q", "rank": 2}, 12, 6, ShiraConfig(target_modules=["proj"], r=2, random_seed=3),
     lambda layer: {"values": layer.shira_weight["default"]}),
    ("hra", "hra", {"sites": "*.q", "rank": 4}, 12, 6, HRAConfig(target_modules=["proj"], r=4),
     lambda layer: {"u": layer.hra_u["default"]}),
    ("hra-odd", "hra", {"sites": "*.q", "rank": 3}, 7, 8, HRAConfig(target_modules=["proj"], r=3),
     lambda layer: {"u": layer.hra_u["default"]}),
    ("hra-gram-schmidt", "hra", {"sites": "*.q", "rank": 4, "gram_schmidt": True}, 12, 6,
     HRAConfig(target_modules=["proj"], r=4, apply_GS=True, init_weights=False),
     lambda layer: {"u": layer.hra_u["default"]}),
]


def stored(tensor):
    return {"shape": list(tensor.shape), "values": [float(f"{v:.9g}") for v in tensor.detach().reshape(-1).tolist()]}


def case(name, method, options, inputs, outputs, config, tensors, generator):
    net = Net(inputs, outputs).double()
    for value in net.parameters():
        value.data = torch.randn(value.shape, generator=generator, dtype=torch.double)
    result = {"name": name, "method": method, "options": options, "weight": stored(net.proj.weight),
              "bias": stored(net.proj.bias)}
    model = get_peft_model(net, config).double()
    for key, value in model.named_parameters():
        if value.requires_grad:
            value.data = value.data + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.double)
    layer = model.base_model.model.proj
    result["parameters"] = {key: stored(value.clone()) for key, value in tensors(layer).items()}
    result["positions"] = {}
    if method == "shira":
        result["positions"] = stored(layer.shira_indices["default"])
    if method == "fourierft":
        result["positions"] = stored(layer.indices["default"])
    merged = model.merge_and_unload().proj
    result["merged"] = {"weight": stored(merged.weight), "bias": stored(merged.bias)}
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="tests/golden/peft_weights.json")
    arguments = parser.parse_args()
    boft_layer.get_fbd_cuda = lambda: True
    boft_layer.FastBlockDiag = BlockDiagonal
    generator = torch.Generator().manual_seed(SEED)
    cases = [case(*entry, generator) for entry in CASES]
    with open(arguments.out, "w") as out:
        json.dump(cases, out)
        out.write("\n")


if __name__ == "__main__":
    main()
