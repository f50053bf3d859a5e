"""Makes tests/golden/bert: tiny random BERT checkpoints of odd shapes and what transformers computes with them.

    python tests/golden/bert.py [--out tests/golden/bert]

Everything is computed in double precision from the stored weights and written as float32, so the only rounding left
is that of the program under test. Needs torch and transformers; run by hand, its results are committed.
"""
import argparse
import json
import os
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import (BertConfig, BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification,
                          BertForTokenClassification, BertModel)

LENGTHS = (1, 2, 7, 13)
LABELLED = 2                       # the input whose loss and gradients are kept

# name: class, keywords of the class, layout of the file, configuration
CASES = {
    "base": (BertModel, {}, "plain", dict(
        hidden_size=24, num_attention_heads=3, intermediate_size=20, num_hidden_layers=1, vocab_size=61)),
    "base-no-pooler": (BertModel, {"add_pooling_layer": False}, "prefixed", dict(
        hidden_size=40, num_attention_heads=5, intermediate_size=56, num_hidden_layers=1, vocab_size=67,
        type_vocab_size=3, hidden_act="gelu_new", layer_norm_eps=1e-5)),
    "classify": (BertForSequenceClassification, {}, "legacy", dict(
        hidden_size=12, num_attention_heads=3, intermediate_size=28, num_hidden_layers=3, vocab_size=71,
        num_labels=5)),
    "regress": (BertForSequenceClassification, {}, "plain", dict(
        hidden_size=16, num_attention_heads=2, intermediate_size=20, num_hidden_layers=2, vocab_size=64,
        hidden_act="relu", num_labels=1, problem_type="regression")),
    "classify-multi": (BertForSequenceClassification, {}, "sharded", dict(
        hidden_size=18, num_attention_heads=6, intermediate_size=22, num_hidden_layers=2, vocab_size=60,
        type_vocab_size=1, layer_norm_eps=1e-5, num_labels=4, problem_type="multi_label_classification")),
    "tag": (BertForTokenClassification, {}, "plain", dict(
        hidden_size=20, num_attention_heads=1, intermediate_size=17, num_hidden_layers=2, vocab_size=97,
        num_labels=7)),
    "qa": (BertForQuestionAnswering, {}, "half", dict(
        hidden_size=24, num_attention_heads=4, intermediate_size=32, num_hidden_layers=1, vocab_size=80)),
    "mlm": (BertForMaskedLM, {}, "plain", dict(
        hidden_size=16, num_attention_heads=4, intermediate_size=24, num_hidden_layers=2, vocab_size=73,
        hidden_act="gelu_pytorch_tanh")),
    "mlm-untied": (BertForMaskedLM, {}, "plain", dict(
        hidden_size=12, num_attention_heads=3, intermediate_size=16, num_hidden_layers=1, vocab_size=51,
        tie_word_embeddings=False)),
    "mlm-parted": (BertForMaskedLM, {}, "parted", dict(
        hidden_size=12, num_attention_heads=3, intermediate_size=16, num_hidden_layers=1, vocab_size=51)),
    "mlm-decoder": (BertForMaskedLM, {}, "decoder", dict(
        hidden_size=12, num_attention_heads=3, intermediate_size=16, num_hidden_layers=1, vocab_size=51)),
}
TABLE, BIAS, DECODER = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "cls.predictions.decoder."


def lively(model, generator):
    """Weights far from their start, so that a wrong epsilon or activation shows."""
    for name, value in model.named_parameters():
        norm_weight = "LayerNorm.weight" in name
        std = 0.4 if value.dim() > 1 else 0.3
        noise = torch.randn(value.shape, generator=generator) * std
        value.data = noise + 1 if norm_weight else noise


def checkpoint_name(name, case, layout):
    """The name of a parameter in the file."""
    if layout == "prefixed":
        name = "bert." + name
    if layout == "legacy":
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    if layout == "decoder":     # the output's names for what the two share
        name = {TABLE: DECODER + "weight", BIAS: DECODER + "bias"}.get(name, name)
    return name


def save(model, folder, case, layout):
    if layout == "half":
        model = model.half()
    size = "15KB" if layout == "sharded" else "1GB"
    model.save_pretrained(folder, max_shard_size=size)
    if layout in ("prefixed", "legacy", "parted", "decoder"):
        path = os.path.join(folder, "model.safetensors")
        tensors = {checkpoint_name(name, case, layout): value for name, value in load_file(path).items()}
        if layout == "parted":  # an output of its own, whatever the configuration says
            tensors |= {DECODER + "weight": tensors[TABLE].flip(0) * 0.9, DECODER + "bias": tensors[BIAS].flip(0)}
        save_file(tensors, path, metadata={"format": "pt"})


def labels_for(case, config, length, generator):
    """Labels as `attune forward` takes them and as transformers does."""
    def draw(high, count):
        return torch.randint(0, high, (count,), generator=generator).tolist()

    if case == "regress":
        return 0.75, {"labels": torch.tensor([0.75], dtype=torch.float64)}
    if case == "classify":
        return 3, {"labels": torch.tensor([3])}
    if case == "classify-multi":
        return [1, 0, 1, 1], {"labels": torch.tensor([[1, 0, 1, 1]], dtype=torch.float64)}
    if case == "tag":
        labels = draw(config.num_labels, length)
        labels[0] = labels[-1] = -100
        return labels, {"labels": torch.tensor([labels])}
    if case.startswith("mlm"):
        labels = [value if i % 3 == 1 else -100 for i, value in enumerate(draw(config.vocab_size, length))]
        return labels, {"labels": torch.tensor([labels])}
    if case == "qa":
        return None, {"start_positions": torch.tensor([2]), "end_positions": torch.tensor([4])}
    return None, {}


def logits_of(output, case):
    if case == "qa":
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
    logits = output.logits[0]
    return logits


def compute(model, case, layout, generator):
    config, lines, expected = model.config, [], {}
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(0, config.vocab_size, (length,), generator=generator)
        types = torch.randint(0, config.type_vocab_size, (length,), generator=generator)
        line = {"input_ids": ids.tolist(), "token_type_ids": types.tolist()}
        written, labels = labels_for(case, config, length, generator) if i == LABELLED else (None, {})
        if written is not None:
            line["labels"] = written
        lines.append(line)
        model.zero_grad(set_to_none=True)
        output = model(input_ids=ids[None], token_type_ids=types[None], attention_mask=torch.ones(1, length).long(),
                       output_hidden_states=True, **labels)
        for k, state in enumerate(output.hidden_states):
            expected[f"{i}/hidden.{k}"] = state[0]
        expected[f"{i}/final"] = output.hidden_states[-1][0]
        if isinstance(model, BertModel):
            if output.pooler_output is not None:
                expected[f"{i}/pooled"] = output.pooler_output[0]
        else:
            expected[f"{i}/logits"] = logits_of(output, case)
        if labels:
            output.loss.backward()
            expected[f"{i}/loss"] = output.loss
            for name, value in model.named_parameters():
                if name == BIAS and model.cls.predictions.decoder.bias is not value:
                    continue    # unused
                grad = torch.zeros_like(value) if value.grad is None else value.grad
                expected[f"{i}/grad/{checkpoint_name(name, case, layout)}"] = grad
    return lines, {name: value.detach().float().contiguous().clone() for name, value in expected.items()}


def make(case, root, seed):
    kind, keywords, layout, shape = CASES[case]
    folder = os.path.join(root, case)
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    config = BertConfig(max_position_embeddings=14, pad_token_id=0, **shape)
    torch.manual_seed(seed)
    model = kind(config, **keywords)
    lively(model, generator)
    model.tie_weights()
    save(model, folder, case, layout)
    # Read back as transformers does, so that the file, not the object in memory, is what the values belong to.
    model, report = kind.from_pretrained(folder, attn_implementation="eager", output_loading_info=True,
                                         dtype=torch.float64, **keywords)
    assert not report["missing_keys"] and not report["unexpected_keys"], (case, report)
    model.eval()
    lines, expected = compute(model, case, layout, generator)
    with open(os.path.join(folder, "inputs.jsonl"), "w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")
    save_file(expected, os.path.join(folder, "expected.safetensors"), metadata={"format": "pt"})
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    print(f"{case}: {size} bytes, {sorted(os.listdir(folder))}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "bert"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for number, case in enumerate(CASES):
        make(case, options.out, 100 + number)


if __name__ == "__main__":
    main()
