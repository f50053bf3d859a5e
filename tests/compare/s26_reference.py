"""The two claims of S26 that SST-2 does not bear out, once more without Attune: the same methods written out in PyTorch.

    python tests/compare/s26_reference.py --train runs/s26/sst2/train.tsv --test DATASETS/sst2/test.tsv [--method mam --seeds 1,2,3]

Definitions are those of He et al. 2022 (arXiv 2110.04366); weights, tokens, rates, schedule, clipping, decay, dropout and
epochs those of `scripts/results s26`; products in bf16, the rest in fp32. Draws are PyTorch's own, so that runs agree in their
means only. Needs torch, safetensors, tokenizers; for comparison only.
"""
import argparse
import csv
import json
import math
import os
import random
import time

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

from common import machine, versions

# Method: rate of its tensors, of the prefix's keys and values in it.
RATES = {"full": (1e-4, 0), "mam": (1e-3, 3e-2), "prefix_small": (0, 3e-2), "mh_pa_small": (3e-3, 0), "pa_attn_small": (1e-3, 0)}
HEAD_RATE, DECAY, WARMUP, EPOCHS, BATCH, LENGTH = 1e-2, 0.01, 0.06, 3, 16, 96


def kaiming(rows, columns):
    return torch.empty(rows, columns).uniform_(-1, 1) / math.sqrt(columns)


class Model:
    """BERT, the mean of a text's rows, dropout and a linear head. Rows of all texts are one after another, without padding."""

    def __init__(self, folder, method):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        self.w = {name: value.float() for name, value in load_file(os.path.join(folder, "model.safetensors")).items()
                  if "pooler" not in name and "position_ids" not in name}
        self.method, self.training, self.width = method, False, self.config["hidden_size"]
        self.heads, self.layers = self.config["num_attention_heads"], self.config["num_hidden_layers"]
        self.new = {}
        for layer in range(self.layers):
            self.attach(layer)
        self.head = {"weight": torch.randn(2, self.width) * 0.02, "bias": torch.zeros(2)}

    def attach(self, layer):
        d, m, new = self.width, self.method, {}
        if m in ("mam", "prefix_small"):
            length = 12 if m == "mam" else 2
            new |= {"keys": torch.randn(length, d) * 0.02, "values": torch.randn(length, d) * 0.02}
        if m in ("mam", "pa_attn_small"):
            size = 12 if m == "mam" else 2
            new |= {"down": kaiming(size, d), "down_bias": torch.zeros(size), "up": torch.zeros(d, size), "up_bias": torch.zeros(d)}
        if m == "mh_pa_small":
            wide = d // self.heads
            new |= {"head_down": kaiming(self.heads * 2, wide).view(self.heads, 2, wide), "head_up": torch.zeros(self.heads, 2, wide)}
        self.new |= {f"{layer}.{name}": value for name, value in new.items()}

    def groups(self):
        """(tensor, rate, decay) of everything that trains."""
        rate, prefix_rate = RATES[self.method]
        chosen = [(value, prefix_rate if name.endswith(("keys", "values")) else rate) for name, value in self.new.items()]
        if self.method == "full":
            chosen += [(value, rate) for value in self.w.values()]
        chosen += [(value, HEAD_RATE) for value in self.head.values()]
        norms = {id(value) for name, value in self.w.items() if "LayerNorm" in name}
        return [(value.requires_grad_(), rate, 0 if value.dim() == 1 or id(value) in norms else DECAY) for value, rate in chosen]

    def freeze(self):
        """Frozen matrices in bf16 once, where no method trains them."""
        if self.method != "full":
            self.w = {name: value.bfloat16() if value.dim() == 2 and "embeddings" not in name else value for name, value in self.w.items()}

    def linear(self, x, name):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def norm(self, x, name):
        return F.layer_norm(x.float(), (self.width,), self.w[name + ".weight"], self.w[name + ".bias"], self.config["layer_norm_eps"])

    def drop(self, x):
        return F.dropout(x, self.config["hidden_dropout_prob"], self.training)

    def adapter(self, x, layer, scale):
        inner = torch.relu(F.linear(x, self.new[f"{layer}.down"], self.new[f"{layer}.down_bias"]))
        return scale * F.linear(inner, self.new[f"{layer}.up"], self.new[f"{layer}.up_bias"])

    def attention(self, x, layer, name, places, mask):
        wide, (batch, longest) = self.width // self.heads, mask.shape

        def spread(rows):
            """[rows, width] to [texts, heads, longest, wide]"""
            padded = rows.new_zeros(batch * longest, self.width).index_copy(0, places, rows)
            return padded.view(batch, longest, self.heads, wide).transpose(1, 2)

        query = self.linear(x, name + ".query")
        q, k, v = spread(query), spread(self.linear(x, name + ".key")), spread(self.linear(x, name + ".value"))
        visible = mask
        if f"{layer}.keys" in self.new:
            length = self.new[f"{layer}.keys"].shape[0]

            def rows(part):
                own = self.new[f"{layer}.{part}"].to(k.dtype).view(length, self.heads, wide).transpose(0, 1)
                return own.unsqueeze(0).expand(batch, -1, -1, -1)

            k, v = torch.cat([rows("keys"), k], 2), torch.cat([rows("values"), v], 2)
            visible = torch.cat([mask.new_ones(batch, length), mask], 1)
        share = self.config["attention_probs_dropout_prob"] if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None, :], dropout_p=share)
        out = out.transpose(1, 2).reshape(batch * longest, self.width).index_select(0, places)
        if self.method == "pa_attn_small":
            out = out + self.adapter(x, layer, 1)
        if self.method == "mh_pa_small":
            by_head = query.view(-1, self.heads, wide).transpose(0, 1)  # [heads, rows, wide], not scaled
            inner = torch.relu(torch.matmul(by_head, self.new[f"{layer}.head_down"].transpose(1, 2)))
            out = out + torch.matmul(inner, self.new[f"{layer}.head_up"]).transpose(0, 1).reshape(out.shape)
        return out

    def logits(self, texts):
        longest = max(map(len, texts))
        ids = torch.tensor([token for text in texts for token in text])
        position = torch.cat([torch.arange(len(text)) for text in texts])
        owner = torch.cat([torch.full((len(text),), i) for i, text in enumerate(texts)])
        places = owner * longest + position
        mask = torch.zeros(len(texts) * longest, dtype=torch.bool).index_fill(0, places, True).view(len(texts), longest)
        e = "embeddings."
        x = F.embedding(ids, self.w[e + "word_embeddings.weight"]) + F.embedding(position, self.w[e + "position_embeddings.weight"])
        x = self.drop(self.norm(x + self.w[e + "token_type_embeddings.weight"][0], e + "LayerNorm"))
        for layer in range(self.layers):
            b = f"encoder.layer.{layer}."
            out = self.attention(x, layer, b + "attention.self", places, mask)
            x = self.norm(self.drop(self.linear(out, b + "attention.output.dense")) + x, b + "attention.output.LayerNorm")
            out = self.linear(F.gelu(self.linear(x, b + "intermediate.dense")), b + "output.dense")
            if self.method == "mam":
                out = out + self.adapter(x, layer, 2)
            x = self.norm(self.drop(out) + x, b + "output.LayerNorm")
        sums = torch.zeros(len(texts), self.width).index_add(0, owner, x.float())
        pooled = self.drop(sums / torch.tensor([len(text) for text in texts]).unsqueeze(1))
        return F.linear(pooled.float(), self.head["weight"], self.head["bias"])


def rows_of(path, limit=None):
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:limit]
    return [row["sentence"].strip() for row in rows], [int(row["label"]) for row in rows]


def train(model, texts, gold, seed):
    steps = EPOCHS * -(-len(texts) // BATCH)
    trained = model.groups()
    model.freeze()
    optimizer = torch.optim.AdamW([{"params": [value], "lr": rate, "weight_decay": decay} for value, rate, decay in trained], eps=1e-8)
    warmup = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup)))
    order = random.Random(seed)
    model.training = True
    for _ in range(EPOCHS):
        shuffled = list(range(len(texts)))
        order.shuffle(shuffled)
        for begin in range(0, len(shuffled), BATCH):
            which = shuffled[begin:begin + BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model.logits([texts[i] for i in which])
            loss = F.cross_entropy(logits.float(), torch.tensor([gold[i] for i in which]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([value for value, _, _ in trained], 1.0)
            optimizer.step()
            schedule.step()
    model.training = False


@torch.no_grad()
def accuracy(model, texts, gold):
    right = 0
    for begin in range(0, len(texts), 64):
        with torch.autocast("cpu", torch.bfloat16):
            best = model.logits(texts[begin:begin + 64]).argmax(-1).tolist()
        right += sum(a == b for a, b in zip(best, gold[begin:begin + 64]))
    return 100 * right / len(texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cache/models/all-MiniLM-L6-v2")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--method", choices=list(RATES), default="mam")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--limit", type=int, help="of the rows to train on")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    (texts, gold), (test_texts, test_gold) = rows_of(args.train, args.limit), rows_of(args.test)
    ids, test_ids = ([encoding.ids for encoding in tokenizer.encode_batch(part)] for part in (texts, test_texts))
    print(json.dumps({"machine": machine(), "versions": versions("torch", "tokenizers"), "method": args.method}), flush=True)
    for seed in map(int, args.seeds.split(",")):
        torch.manual_seed(seed)
        model, started = Model(args.model, args.method), time.time()
        count = sum(value.numel() for value in model.new.values())
        train(model, ids, gold, seed)
        print(json.dumps({"method": args.method, "seed": seed, "trained": count, "accuracy": round(accuracy(model, test_ids, test_gold), 2),
                          "seconds": round(time.time() - started)}), flush=True)


if __name__ == "__main__":
    main()
