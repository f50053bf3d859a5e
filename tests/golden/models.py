"""Makes tests/golden/{llama,t5,vit}: tiny random checkpoints of odd shapes and what transformers computes with them.

    python tests/golden/models.py [--out tests/golden] [--family llama]

generated.py writes what transformers generates from the language models among them. Everything is computed in double precision from the stored weights and written as float32, so the only rounding left
is that of the program under test. Needs torch and transformers; run by hand, its results are committed.
"""
import argparse
import json
import os
import random
import shutil
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "compare"))
from families import FAMILIES  # noqa: E402

LLAMA = dict(bos_token_id=1, eos_token_id=2, intermediate_size=13, max_position_embeddings=16, rms_norm_eps=1e-5)
T5 = dict(decoder_start_token_id=0, relative_attention_num_buckets=8, relative_attention_max_distance=12)

# folder: case (families.py), layout of the file, configuration
CASES = {
    "llama": {
        "lm": ("lm", "plain", dict(
            hidden_size=12, num_attention_heads=6, num_key_value_heads=2, head_dim=4, num_hidden_layers=2, vocab_size=41,
            attention_bias=True, mlp_bias=True, rope_parameters=dict(rope_type="default", rope_theta=500.0), **LLAMA)),
        "tied-llama3": ("lm-tied", "half", dict(
            hidden_size=10, num_attention_heads=5, num_key_value_heads=1, num_hidden_layers=1, vocab_size=43,
            tie_word_embeddings=True, rope_parameters=dict(
                rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=8), **LLAMA)),
        "base-yarn": ("base", "prefixed", dict(
            hidden_size=12, num_attention_heads=3, num_key_value_heads=3, head_dim=8, num_hidden_layers=1, vocab_size=40,
            rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=8),
            **LLAMA)),
        "classify-longrope": ("classify-pad", "sharded", dict(
            hidden_size=12, num_attention_heads=2, num_key_value_heads=1, head_dim=6, num_hidden_layers=2, vocab_size=39,
            pad_token_id=0, num_labels=3, rope_parameters=dict(
                rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=8,
                short_factor=[1.0, 1.1, 1.2], long_factor=[2.0, 2.3, 2.6]), **LLAMA)),
        "tag-dynamic": ("tag", "plain", dict(
            hidden_size=12, num_attention_heads=4, num_key_value_heads=2, head_dim=6, num_hidden_layers=1, vocab_size=37,
            num_labels=4, rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), **LLAMA)),
        "qa-linear": ("qa", "plain", dict(
            hidden_size=9, num_attention_heads=3, num_key_value_heads=1, head_dim=2, num_hidden_layers=1, vocab_size=36,
            rope_theta=100.0, rope_scaling=dict(type="linear", factor=3.0), **LLAMA)),
    },
    "t5": {
        "lm": ("lm", "every-table", dict(
            d_model=10, d_kv=3, d_ff=14, num_layers=2, num_decoder_layers=1, num_heads=5, vocab_size=38, **T5)),
        "lm-untied": ("lm-untied", "plain", dict(
            d_model=11, d_kv=4, d_ff=9, num_layers=1, num_decoder_layers=2, num_heads=2, vocab_size=37,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, **T5)),
        "encoder": ("encoder", "encoder-table", dict(
            d_model=9, d_kv=5, d_ff=12, num_layers=2, num_heads=3, vocab_size=36, **T5)),
        "classify": ("classify", "plain", dict(
            d_model=12, d_kv=4, d_ff=10, num_layers=1, num_heads=3, vocab_size=35, num_labels=3,
            feed_forward_proj="gated-silu", **T5)),
        "tag": ("tag", "half", dict(
            d_model=8, d_kv=6, d_ff=11, num_layers=1, num_heads=1, vocab_size=34, num_labels=4, **T5)),
        "qa": ("qa", "plain", dict(d_model=8, d_kv=2, d_ff=7, num_layers=1, num_heads=3, vocab_size=33, **T5)),
    },
    "vit": {
        "base": ("base", "plain", dict(
            hidden_size=15, num_attention_heads=3, intermediate_size=20, num_hidden_layers=2, image_size=[7, 9],
            patch_size=[3, 3], num_channels=2, pooler_output_size=7, layer_norm_eps=1e-6)),
        "classify": ("classify", "new-names", dict(
            hidden_size=12, num_attention_heads=4, intermediate_size=17, num_hidden_layers=2, image_size=8, patch_size=4,
            num_channels=3, qkv_bias=False, num_labels=5, hidden_act="gelu_new")),
        "base-no-pooler": ("base-no-pooler", "prefixed", dict(
            hidden_size=10, num_attention_heads=5, intermediate_size=9, num_hidden_layers=1, image_size=[4, 10],
            patch_size=[2, 5], num_channels=1)),
    },
}
LENGTHS = {"llama": (1, 9, 21), "t5": (1, 5, 17), "vit": (0, 0)}


def make(family_name, name, root, seed):
    family = FAMILIES[family_name]
    case, layout, shape = CASES[family_name][name]
    folder = os.path.join(root, family_name, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    torch.manual_seed(seed)
    kind = family.kind(case)
    model = kind(kind.config_class(**shape), **family.keywords(case))
    family.lively(model, generator, 1.2)
    family.after_lively(model, case, rng, generator)
    family.save(model, folder, case, layout)
    # Read back as transformers does, so that the file, not the object in memory, is what the values belong to.
    model = family.load(folder, case)
    lines = family.lines(model, case, rng, generator, folder, True, LENGTHS[family_name])
    expected = {}
    with open(os.path.join(folder, "inputs.jsonl"), "w", encoding="utf-8") as out:
        for i, (line, arguments, labels) in enumerate(lines):
            values, grads = family.reference(model, case, layout, arguments, labels)
            expected.update({f"{i}/{key}": value for key, value in values.items()})
            if i + 1 == len(lines):
                expected.update({f"{i}/grad/{key}": value for key, value in grads.items()})
            out.write(json.dumps(line) + "\n")
    expected = {key: value.detach().float().contiguous().clone() for key, value in expected.items()}
    save_file(expected, os.path.join(folder, "expected.safetensors"), metadata={"format": "pt"})
    size = sum(os.path.getsize(os.path.join(folder, file)) for file in os.listdir(folder))
    print(f"{family_name}/{name}: {size} bytes, {len(expected)} tensors, {sorted(os.listdir(folder))}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--family", choices=sorted(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for family in [options.family] if options.family else CASES:
        for number, name in enumerate(CASES[family]):
            make(family, name, options.out, 200 + number)


if __name__ == "__main__":
    main()
