"""Makes tests/golden/peft: one folder a family of models, with a tiny base model, adapters of every PEFT type that PEFT
wrote for it, and the logits PEFT computes.

    python tests/golden/peft_adapters.py [--out tests/golden/peft] [--models bert,llama]

Values are computed in double precision from the stored files. Needs torch, transformers, peft; its results are
committed. tests/compare/peft_interchange.py uses the functions here.
"""
import argparse
import json
import os
import shutil
import warnings

import peft
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM, T5Config,
                          T5ForConditionalGeneration, ViTConfig, ViTForImageClassification)

LENGTHS = (1, 2, 7, 13)
SEED = 7


class Family:
    """A tiny model: how it is made, and what goes into it."""

    def __init__(self, name, model_class, config, task):
        self.name, self.model_class, self.config, self.task = name, model_class, config, task
        self.vocabulary = getattr(config, "vocab_size", 0)

    def load(self, folder, dtype=torch.float64):
        return self.model_class.from_pretrained(folder, attn_implementation="eager", dtype=dtype).eval()

    def lines(self, generator, folder):
        """Lines of inputs.jsonl."""
        def ids(length):
            return torch.randint(3, self.vocabulary, (length,), generator=generator).tolist()

        result = []
        for i, length in enumerate(LENGTHS):
            if self.name == "vit":
                name = f"image{i}.safetensors"
                size = self.config.image_size
                save_file({"pixel_values": torch.randn(3, size, size, generator=generator)}, os.path.join(folder, name))
                result.append({"tensors": name})
                continue
            line = {"input_ids": ids(length)}
            if self.name == "bert":
                line["token_type_ids"] = torch.randint(0, 2, (length,), generator=generator).tolist()
            if self.name == "t5":
                line["decoder_input_ids"] = [0] + ids(LENGTHS[-1 - i] // 2)
            result.append(line)
        return result

    def inputs(self, line, folder):
        if self.name == "vit":
            return {"pixel_values": load_file(os.path.join(folder, line["tensors"]))["pixel_values"][None]}
        inputs = {name: torch.tensor([line[name]]) for name in line}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs

    def logits(self, model, lines, folder):
        """One tensor a line; rows that a prompt added are left out."""
        model.eval()
        dtype = next(model.parameters()).dtype
        result = []
        with torch.no_grad():
            for line in lines:
                inputs = self.inputs(line, folder)
                inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
                logits = model(**inputs).logits[0]
                if logits.dim() == 2:
                    wanted = inputs.get("decoder_input_ids", inputs.get("input_ids")).shape[1]
                    logits = logits[-wanted:]
                result.append(logits)
        return result


FAMILIES = {
    "bert": Family("bert", BertForSequenceClassification, BertConfig(
        hidden_size=12, num_attention_heads=3, intermediate_size=20, num_hidden_layers=2, vocab_size=60,
        max_position_embeddings=20, num_labels=3), "SEQ_CLS"),
    "llama": Family("llama", LlamaForCausalLM, LlamaConfig(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24, num_hidden_layers=2,
        vocab_size=50, max_position_embeddings=64, tie_word_embeddings=False), "CAUSAL_LM"),
    "llama-tied": Family("llama-tied", LlamaForCausalLM, LlamaConfig(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24, num_hidden_layers=1,
        vocab_size=50, max_position_embeddings=64, tie_word_embeddings=True), "CAUSAL_LM"),
    "t5": Family("t5", T5ForConditionalGeneration, T5Config(
        d_model=16, d_kv=4, num_heads=4, d_ff=24, num_layers=2, vocab_size=50, feed_forward_proj="relu",
        tie_word_embeddings=True), "SEQ_2_SEQ_LM"),
    "vit": Family("vit", ViTForImageClassification, ViTConfig(
        hidden_size=12, num_attention_heads=3, intermediate_size=20, num_hidden_layers=2, image_size=8, patch_size=4,
        num_labels=3), None),
}

# What each family calls a projection of attention, one of the feed-forward part and the norms.
NAMES = {
    "bert": dict(q="query", v="value", k="key", up="intermediate.dense", down="output.dense", norms=["LayerNorm"]),
    "llama": dict(q="q_proj", v="v_proj", k="k_proj", up="up_proj", down="down_proj",
                  norms=["input_layernorm", "post_attention_layernorm", "norm"]),
    "t5": dict(q="q", v="v", k="k", up="wi", down="wo", norms=["layer_norm", "final_layer_norm"]),
    "vit": dict(q="q_proj", v="v_proj", k="k_proj", up="fc1", down="fc2",
                norms=["layernorm_before", "layernorm_after", "layernorm"]),
}


def plain_cases(n):
    """One adapter a type, at the places `n` names."""
    qv, three = [n["q"], n["v"]], [n["q"], n["v"], n["up"]]
    return {
        "lora": ("LoraConfig", dict(r=4, lora_alpha=12, target_modules=three)),
        "lora-dora": ("LoraConfig", dict(r=2, lora_alpha=6, use_dora=True, target_modules=three)),
        "adalora": ("AdaLoraConfig", dict(init_r=4, target_r=2, lora_alpha=6, total_step=10, target_modules=three)),
        "ia3": ("IA3Config", dict(target_modules=[n["k"], n["v"], n["down"]], feedforward_modules=[n["down"]])),
        "vera": ("VeraConfig", dict(r=6, target_modules=three)),
        "loha": ("LoHaConfig", dict(r=2, alpha=3, target_modules=three)),
        "lokr": ("LoKrConfig", dict(r=1, alpha=2, target_modules=three)),
        "oft": ("OFTConfig", dict(oft_block_size=4, target_modules=three)),
        "boft": ("BOFTConfig", dict(boft_block_size=4, target_modules=three)),
        "fourierft": ("FourierFTConfig", dict(n_frequency=9, scaling=30.0, target_modules=three)),
        "ln-tuning": ("LNTuningConfig", dict(target_modules=n["norms"])),
        "randlora": ("RandLoraConfig", dict(r=4, randlora_alpha=6, target_modules=three)),
        "c3a": ("C3AConfig", dict(block_size=4, target_modules=three)),
        "miss": ("MissConfig", dict(r=4, target_modules=three)),
        "shira": ("ShiraConfig", dict(r=1, random_seed=3, target_modules=three)),
        "prefix-tuning": ("PrefixTuningConfig", dict(num_virtual_tokens=3)),
        "prompt-tuning": ("PromptTuningConfig", dict(num_virtual_tokens=3)),
        "p-tuning": ("PromptEncoderConfig", dict(num_virtual_tokens=3, encoder_hidden_size=5)),
    } | ({} if n["q"] == "query" else {"lora-all": ("LoraConfig", dict(r=2, lora_alpha=3, target_modules="all-linear"))})


def bert_cases():
    """What the types can do besides."""
    qv = ["query", "value"]
    one, last = "bert.encoder.layer.0.attention.self.query", r"layer\.1\.output\.dense"
    return {
        "lora-rslora": ("LoraConfig", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["query", "key", "value"])),
        "lora-bias-all": ("LoraConfig", dict(r=2, lora_alpha=4, bias="all", target_modules=qv)),
        "lora-bias-only": ("LoraConfig", dict(r=2, lora_alpha=4, bias="lora_only", target_modules=qv)),
        # Every projection of the body, the pooler's too, with ranks and alphas of their own.
        "lora-patterns": ("LoraConfig", dict(r=3, lora_alpha=6, target_modules="all-linear",
                                             rank_pattern={"query": 2, last: 5}, alpha_pattern={"value": 9, last: 4})),
        "lora-one-layer": ("LoraConfig", dict(r=4, lora_alpha=8, target_modules=["attention.output.dense"],
                                              layers_to_transform=[1])),
        "lora-layers-pattern": ("LoraConfig", dict(r=2, lora_alpha=8, target_modules=qv, layers_to_transform=0,
                                                   layers_pattern="layer")),
        # No task type: the classifier is saved because the configuration says so.
        "lora-head": ("LoraConfig", dict(r=4, lora_alpha=4, target_modules=["query"], modules_to_save=["classifier"],
                                         task_type=None)),
        "lora-embedding": ("LoraConfig", dict(r=2, lora_alpha=6, target_modules=["query", "word_embeddings"])),
        "lora-exclude": ("LoraConfig", dict(r=2, lora_alpha=6, target_modules=r".*self\.(query|value)",
                                            exclude_modules=["layer.0.attention.self.value"], fan_in_fan_out=True)),
        "lora-saved-norm": ("LoraConfig", dict(r=2, lora_alpha=6, target_modules=qv,
                                               modules_to_save=["classifier", "layer.1.output.LayerNorm"])),
        "lora-dora-patterns": ("LoraConfig", dict(r=2, lora_alpha=6, use_dora=True, use_rslora=True, target_modules=qv,
                                                  rank_pattern={one: 3}, alpha_pattern={one: 5})),
        "adalora-pruned": ("AdaLoraConfig", dict(init_r=4, target_r=2, lora_alpha=6, total_step=10, target_modules=qv)),
        "ia3-attention": ("IA3Config", dict(target_modules=qv, feedforward_modules=[])),
        "vera-drawn": ("VeraConfig", dict(r=6, projection_prng_key=11, save_projection=False, bias="vera_only",
                                          target_modules=["query", "intermediate.dense"])),
        "loha-patterns": ("LoHaConfig", dict(r=2, alpha=3, target_modules=qv, rank_pattern={one: 3},
                                             alpha_pattern={"value": 5})),
        "lokr-both": ("LoKrConfig", dict(r=1, alpha=2, decompose_both=True, decompose_factor=4,
                                         target_modules=["query", "output.dense"])),
        "lokr-whole": ("LoKrConfig", dict(r=8, alpha=2, target_modules=qv, init_weights="lycoris",
                                          rank_pattern={one: 1})),
        "oft-exact": ("OFTConfig", dict(oft_block_size=5, use_cayley_neumann=False, bias="oft_only", target_modules=qv)),
        "oft-shared": ("OFTConfig", dict(r=3, oft_block_size=0, block_share=True, target_modules=qv)),
        "oft-constrained": ("OFTConfig", dict(oft_block_size=4, coft=True, eps=0.3, use_cayley_neumann=False,
                                              target_modules=qv)),
        "boft-blocks": ("BOFTConfig", dict(boft_block_num=2, boft_block_size=0, bias="boft_only",
                                           target_modules=["query", "output.dense"])),
        "fourierft-patterns": ("FourierFTConfig", dict(n_frequency=9, scaling=30.0, random_loc_seed=5, target_modules=qv,
                                                       n_frequency_pattern={"layer.0.attention.self.query": 20})),
        "randlora-drawn": ("RandLoraConfig", dict(r=4, randlora_alpha=6, save_projection=False, projection_prng_key=3,
                                                  target_modules=["query", "intermediate.dense"])),
        "randlora-sparse": ("RandLoraConfig", dict(r=5, randlora_alpha=6, save_projection=False, sparse=True,
                                                   bias="randlora_only", target_modules=qv)),
        "randlora-very-sparse": ("RandLoraConfig", dict(r=5, randlora_alpha=6, save_projection=False, very_sparse=True,
                                                        target_modules=qv)),
        "c3a-patterns": ("C3AConfig", dict(block_size=4, bias="c3a_only", target_modules=qv,
                                           block_size_pattern={r"layer.1.attention.self.value": 6})),
        "miss-bat": ("MissConfig", dict(r=3, init_weights="bat", bias="MiSS_only", target_modules=qv)),
        "miss-mini": ("MissConfig", dict(r=4, init_weights="mini", mini_r=3, target_modules=qv)),
        "prefix-projection": ("PrefixTuningConfig", dict(num_virtual_tokens=3, prefix_projection=True,
                                                         encoder_hidden_size=5)),
        "p-tuning-lstm": ("PromptEncoderConfig", dict(num_virtual_tokens=3, encoder_hidden_size=4,
                                                      encoder_reparameterization_type="LSTM")),
    }


def later_cases(family):
    """Types that came later: behind the others, whose values they leave alone."""
    n = NAMES[family.name]
    cases = {"hra": ("HRAConfig", dict(r=4, target_modules=[n["q"], n["v"], n["up"]]))}
    if family.name == "bert":
        cases["hra-gram-schmidt"] = ("HRAConfig", dict(r=3, apply_GS=True, bias="hra_only", target_modules=["query"]))
        cases["lora-up-bias"] = ("LoraConfig", dict(r=2, lora_alpha=6, lora_bias=True, target_modules=["query", "output.dense"],
                                                    alpha_pattern={"query": 3}))
    if family.name == "llama":  # projections without a bias of their own
        cases["lora-up-bias"] = ("LoraConfig", dict(r=2, lora_alpha=6, lora_bias=True, target_modules=["q_proj", "up_proj"]))
        # Rows of a table and of an output.
        cases["lora-tokens"] = ("LoraConfig", dict(r=2, target_modules=["v_proj"],
                                                   trainable_token_indices={"embed_tokens": [7, 3, 30], "lm_head": [1]}))
    if family.name == "vit":    # a convolution, one the whole of
        patches = ["projection", "q_proj"]
        cases["lora-patches"] = ("LoraConfig", dict(r=2, lora_alpha=6, lora_bias=True, target_modules=patches))
        cases["lora-dora-patches"] = ("LoraConfig", dict(r=2, lora_alpha=6, use_dora=True, target_modules=patches))
        cases["lora-saved-patches"] = ("LoraConfig", dict(r=2, target_modules=["q_proj"],
                                                          modules_to_save=["classifier", "projection"]))
    if family.name == "t5":     # a copy of the output, whose input stays scaled
        cases["lora-saved-output"] = ("LoraConfig", dict(r=2, target_modules=["q"], modules_to_save=["lm_head"]))
    return cases


def tied_cases():
    """An embedding and an output that are one tensor, of which PEFT trains a copy each, or one for both."""
    def saving(*modules, **more):
        return ("LoraConfig", dict(r=2, target_modules=["q_proj"], modules_to_save=list(modules), **more))

    return {"lora-saved-embedding": saving("embed_tokens"), "lora-saved-output": saving("lm_head"),
            "lora-saved-both": saving("embed_tokens", "lm_head"),
            "lora-tied": saving("embed_tokens", ensure_weight_tying=True),
            "lora-tokens": ("LoraConfig", dict(r=2, target_modules=["v_proj"], trainable_token_indices=[7, 3, 30])),
            "lora-tokens-output": ("LoraConfig", dict(r=2, target_modules=["v_proj"],
                                                      trainable_token_indices={"lm_head": [1, 4]})),
            "lora-embedding-layers": ("LoraConfig", dict(r=2, target_modules=["v_proj"]))}


def cases_of(family):
    if family.name == "llama-tied":
        return tied_cases()
    cases = plain_cases(NAMES[family.name])
    if family.name == "bert":
        cases |= bert_cases()
    cases |= later_cases(family)
    if family.name == "vit":    # no token rows; PEFT's prompt learning asks for a task type, of which none is for images
        return {name: case for name, case in cases.items() if not name.startswith("p")}
    return cases


def lively(model, generator):
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator) * (0.4 if value.dim() > 1 else 0.3)
        norm = "norm" in name.lower() and name.endswith("weight")
        value.data = noise + 1 if norm else noise


def trained(model, generator):
    """As if training had changed everything that trains: factors that start at zero would hide mistakes."""
    for _, value in model.named_parameters():
        if value.requires_grad:
            value.data = value.data * 0.5 + torch.randn(value.shape, generator=generator) * 0.3


def prune(adapted):
    """AdaLoRA's state after its budget fell: some singular values have lost their place."""
    config = adapted.peft_config["default"]
    config.rank_pattern = {}
    for i, (name, value) in enumerate(adapted.base_model.model.named_parameters()):
        if ".lora_E." not in name:
            continue
        kept = [(i + j) % 3 != 0 for j in range(value.shape[0])]
        value.data[~torch.tensor(kept)] = 0
        config.rank_pattern[name] = kept


def base_of(family, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return family.load(folder)


def read_adapter(family, base, folder):
    """PEFT's model of a directory, in double precision. Its complaints about keys are errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(family.load(base), folder, autocast_adapter_dtype=False)
    # Two of its warnings mean nothing here: projections drawn again, and AdaLoRA's masks not being LoRA's ranks.
    harmless = ("prng", "rank_pattern keys did not match")
    complaints = [str(w.message) for w in caught
                  if "key" in str(w.message) and not any(word in str(w.message) for word in harmless)]
    if complaints:
        raise SystemExit(f"{folder}: PEFT complains: {complaints}")
    return model.double()


def tidy(folder):
    """What depends on who ran this."""
    path = os.path.join(folder, "adapter_config.json")
    with open(path, encoding="utf-8") as file:
        written = json.load(file)
    written["base_model_name_or_path"] = "base"
    for field in ("target_modules", "feedforward_modules", "exclude_modules", "modules_to_save"):
        if isinstance(written.get(field), list):
            written[field] = sorted(written[field])
    with open(path, "w", encoding="utf-8") as file:
        json.dump(written, file, indent=2, sort_keys=True)
        file.write("\n")
    if os.path.exists(os.path.join(folder, "README.md")):
        os.remove(os.path.join(folder, "README.md"))


def make_family(family, root):
    shutil.rmtree(root, ignore_errors=True)
    base = os.path.join(root, "base")
    generator = torch.Generator().manual_seed(SEED)
    model = family.model_class(family.config)
    lively(model, generator)
    model.save_pretrained(base)
    lines = family.lines(generator, root)
    with open(os.path.join(root, "inputs.jsonl"), "w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")
    plain = family.logits(base_of(family, base), lines, root)
    expected = {f"base/{i}/logits": value for i, value in enumerate(plain)}
    for number, (name, (kind, settings)) in enumerate(cases_of(family).items()):
        torch.manual_seed(number)
        config = getattr(peft, kind)(**{"task_type": family.task, **settings})
        adapted = get_peft_model(family.load(base, torch.float32), config)
        trained(adapted, generator)
        if name == "adalora-pruned":
            prune(adapted)
        folder = os.path.join(root, name)
        adapted.save_pretrained(folder, save_embedding_layers=True if name == "lora-embedding-layers" else "auto")
        tidy(folder)
        values = family.logits(read_adapter(family, base, folder), lines, root)
        again = family.logits(adapted, lines, root)
        drift = max(((a - b).abs() / (1 + b.abs())).max().item() for a, b in zip(again, values))
        changed = min((a - b).abs().max().item() for a, b in zip(values, plain))
        print(f"{family.name:6} {name:22} drift {drift:.1e} changed by at least {changed:.3f}", flush=True)
        assert drift < 1e-4 and changed > 1e-2, name
        expected.update({f"{name}/{i}/logits": value for i, value in enumerate(values)})
    save_file({name: value.float().contiguous() for name, value in expected.items()},
              os.path.join(root, "expected.safetensors"), metadata={"format": "pt"})


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(here, "peft"))
    parser.add_argument("--models", default=",".join(FAMILIES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.models.split(","):
        make_family(FAMILIES[name], os.path.join(args.out, name))


if __name__ == "__main__":
    main()
