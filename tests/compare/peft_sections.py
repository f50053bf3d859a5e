"""The sections task with transformers + PEFT: the reference for Attune's quality and time.

    python tests/compare/peft_sections.py --model cache/models/all-MiniLM-L6-v2 [--method lora-all] [--pool mean]
        [--seeds 1,2,3] [--out results.json]

Same settings as examples/recipes/sections-*.yaml: AdamW (decay 0.01, none on biases and norms), linear schedule with
6 % warm-up, clipping at 1.0, the configuration's dropout, 3 epochs of batches of 32, 256 tokens, a head drawn
N(0, 0.02) with zero bias. Needs torch, transformers, peft, scikit-learn; for comparison only.
"""
import argparse
import json
import os
import random
import time

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification, BertModel

from common import machine, read_jsonl, scores, versions

SITES = {
    "lora-qv": r".*encoder\.layer\.\d+\.attention\.self\.(query|value)",
    "lora-all": r".*encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|(attention\.)?(output|intermediate)\.dense)",
}
DEFAULT_LR = {"lora-qv": 1e-3, "lora-all": 1e-3, "full": 1e-4}


class MeanPooled(nn.Module):
    """BertModel, the mean of the real rows, dropout, a linear head."""

    def __init__(self, path, config):
        super().__init__()
        self.bert = BertModel.from_pretrained(path, config=config, add_pooling_layer=False, dtype=torch.float32)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        nn.init.normal_(self.classifier.weight, std=config.initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids, attention_mask):
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(1) / mask.sum(1)
        return self.classifier(self.dropout(pooled))


class Pooled(nn.Module):
    """transformers' own class, reduced to its logits."""

    def __init__(self, path, config):
        super().__init__()
        self.model = BertForSequenceClassification.from_pretrained(path, config=config, dtype=torch.float32)

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def build(options, labels):
    config = AutoConfig.from_pretrained(options.model, num_labels=len(labels))
    model = (MeanPooled if options.pool == "mean" else Pooled)(options.model, config)
    if options.method != "full":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=0.0,
                          target_modules=SITES[options.method], modules_to_save=["classifier"])
        model = get_peft_model(model, lora)
    return model


def optimizer_and_schedule(model, steps, options):
    decay, plain = [], []
    for name, value in model.named_parameters():
        if value.requires_grad:
            (plain if value.dim() == 1 or "LayerNorm" in name else decay).append(value)
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.999), eps=1e-8)
    warmup = max(1, round(0.06 * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: step / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup)))
    return optimizer, schedule


def encode(tokenizer, rows, max_length):
    return tokenizer([row["description"] for row in rows], truncation=True, max_length=max_length)["input_ids"]


def batch_of(ids, which):
    longest = max(len(ids[i]) for i in which)
    tokens = torch.zeros(len(which), longest, dtype=torch.long)
    mask = torch.zeros(len(which), longest, dtype=torch.long)
    for row, i in enumerate(which):
        tokens[row, : len(ids[i])] = torch.tensor(ids[i])
        mask[row, : len(ids[i])] = 1
    return tokens, mask


def train(model, ids, gold, options, seed):
    order = random.Random(seed)
    steps = options.epochs * ((len(ids) + options.batch - 1) // options.batch)
    optimizer, schedule = optimizer_and_schedule(model, steps, options)
    trained = [value for value in model.parameters() if value.requires_grad]
    model.train()
    done, started = 0, time.time()
    for _ in range(options.epochs):
        shuffled = list(range(len(ids)))
        order.shuffle(shuffled)
        for begin in range(0, len(shuffled), options.batch):
            which = shuffled[begin : begin + options.batch]
            tokens, mask = batch_of(ids, which)
            loss = nn.functional.cross_entropy(model(tokens, mask), torch.tensor([gold[i] for i in which]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done % 50 == 0:
                print(f"  step {done}/{steps} loss {loss.item():.3f} {time.time() - started:.0f} s", flush=True)
    return time.time() - started


@torch.no_grad()
def predict(model, ids):
    model.eval()
    result = [0] * len(ids)
    by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for begin in range(0, len(by_length), 128):
        which = by_length[begin : begin + 128]
        for i, best in zip(which, model(*batch_of(ids, which)).argmax(-1).tolist()):
            result[i] = best
    return result


def one_seed(options, seed):
    torch.manual_seed(seed)
    rows = read_jsonl(os.path.join(options.data, options.train + ".jsonl"))
    labels = sorted({row["section"] for row in rows})
    index = {label: i for i, label in enumerate(labels)}
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = build(options, labels)
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    seconds = train(model, encode(tokenizer, rows, options.max_length), [index[row["section"]] for row in rows],
                    options, seed)
    result = {"seed": seed, "train_seconds": round(seconds, 1), "trainable": trained}
    for name in ("eval", "eval-2000"):
        held_out = read_jsonl(os.path.join(options.data, name + ".jsonl"))
        predicted = predict(model, encode(tokenizer, held_out, options.max_length))
        result[name] = scores([row["section"] for row in held_out], [labels[i] for i in predicted])
    print(json.dumps(result), flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cache/models/all-MiniLM-L6-v2")
    parser.add_argument("--data", default="cache/sections")
    parser.add_argument("--train", default="train-8000", help="name of the training file without .jsonl")
    parser.add_argument("--method", choices=("lora-all", "lora-qv", "full"), default="lora-all")
    parser.add_argument("--pool", choices=("mean", "pooler"), default="mean")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--lr", type=float, help="default 1e-3 for LoRA, 1e-4 for full")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.lr is None:
        options.lr = DEFAULT_LR[options.method]
    torch.set_num_threads(options.threads)
    runs = [one_seed(options, int(seed)) for seed in options.seeds.split(",")]
    if options.out:
        report = {"options": vars(options), "machine": machine(),
                  "versions": versions("torch", "transformers", "peft", "scikit-learn"), "runs": runs}
        with open(options.out, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=2)


if __name__ == "__main__":
    main()
