"""Prints python_bytes.h: run with safetensors 0.8.0 and torch 2.15.0. Nothing in it is random."""
import textwrap

import torch
from safetensors.torch import save

OWN = {
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 3),
    "f32": torch.tensor([[1.0, -2.0], [0.5, 3.0]]),
    "f64": torch.tensor([1e-300, 2.0], dtype=torch.float64),
    "f16": torch.tensor([1.0, 65504.0], dtype=torch.float16),
    "bf16": torch.tensor([1.0, -3.0, 0.5], dtype=torch.bfloat16),
    "i8": torch.tensor([-1, 2], dtype=torch.int8),
    "u8": torch.tensor([255, 0], dtype=torch.uint8),
    "i16": torch.tensor([-300], dtype=torch.int16),
    "i32": torch.tensor([70000], dtype=torch.int32),
    "i64": torch.tensor([-(2**40)], dtype=torch.int64),
    "bool": torch.tensor([True, False, True]),
    "c64": torch.tensor([1 + 2j], dtype=torch.complex64),
}
UNSIGNED = {
    "u16": torch.tensor([65535], dtype=torch.uint16),
    "u32": torch.tensor([2**32 - 1], dtype=torch.uint32),
    "u64": torch.tensor([2**63 - 1], dtype=torch.uint64),
}
FP8 = {
    "kE5m2": torch.float8_e5m2,
    "kE4m3": torch.float8_e4m3fn,
    "kE4m3fnuz": torch.float8_e4m3fnuz,
    "kE5m2fnuz": torch.float8_e5m2fnuz,
    "kE8m0": torch.float8_e8m0fnu,
}


def constant(name, content):
    print(f"inline constexpr std::string_view {name} =")
    print("\n".join(f'    "{line}"' for line in textwrap.wrap(content.hex(), 96)) + ";\n")


print("#pragma once\n// Made by python_bytes.py, which stands beside this file.\n#include <string_view>\n")
print("namespace attune {\n")
print("/// safetensors.torch.save of one tensor of every dtype that LibTorch 1.13 holds, a scalar and an empty tensor,")
print("/// with metadata format=pt; as hexadecimal digits.")
constant("kEveryDtype", save(OWN, {"format": "pt"}))
print("/// The same for the unsigned dtypes it does not hold: 65535, 2^32 - 1, 2^63 - 1.")
constant("kUnsigned", save(UNSIGNED, {"format": "pt"}))
print("/// The float32 values of codes 0 to 255 (NaN as 7fc00000), little-endian, one table a dtype.")
for name, dtype in FP8.items():
    values = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype).to(torch.float32)
    constant(name, torch.where(values.isnan(), torch.tensor(float("nan")), values).numpy().tobytes())
print("}  // namespace attune")
