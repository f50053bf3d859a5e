"""Writes generated.json beside the tiny language models of tests/golden: what transformers generates from them.

    python tests/golden/generated.py

Greedily and by beam search, in double precision, one prompt at a time. Needs torch and transformers; run by hand (models.py
runs it too), its results are committed.
"""
import json
import os

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

ROOT = os.path.dirname(os.path.abspath(__file__))
CASES = {"llama/lm": AutoModelForCausalLM, "llama/tied-llama3": AutoModelForCausalLM, "t5/lm": AutoModelForSeq2SeqLM,
         "t5/lm-untied": AutoModelForSeq2SeqLM}
TOKENS = 20


def run(model, prompts, encoder, eos, beams, penalty):
    new_tokens = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        more = {"length_penalty": penalty} if beams > 1 else {}
        # No cache for T5: 5.23 makes one of the encoder's depth, which fails when the decoder is deeper.
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=beams,
                               max_new_tokens=TOKENS, pad_token_id=0, eos_token_id=eos or -1, use_cache=not encoder,
                               **more)[0].tolist()
        new_tokens.append(found[1 if encoder else len(prompt):])
    return new_tokens


def generate(folder, kind, seed):
    model = kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    config, draw = model.config, torch.Generator().manual_seed(seed)
    encoder = bool(getattr(config, "is_encoder_decoder", False))
    record = {"max_new_tokens": TOKENS, "prompts": [], "runs": []}
    if encoder:
        record["decoder_start_token_id"] = config.decoder_start_token_id
    for length in (1, 6, 11):
        record["prompts"].append(torch.randint(2, config.vocab_size, (length,), generator=draw).tolist())
    plain = run(model, record["prompts"], encoder, [], 1, 1.0)
    ends = [plain[1][7], plain[0][4]]  # tokens that occur, so that sequences end
    for eos in (ends[:1], ends, []):
        for beams, penalty in ((1, 1.0), (2, 1.0), (4, 1.0), (3, 0.0), (3, 2.0)):
            record["runs"].append({"eos": eos, "beams": beams, "length_penalty": penalty,
                                   "new_tokens": run(model, record["prompts"], encoder, eos, beams, penalty)})
    with open(os.path.join(folder, "generated.json"), "w", encoding="utf-8") as out:
        json.dump(record, out)
    every = [tokens for entry in record["runs"] for tokens in entry["new_tokens"]]
    print(folder, sum(len(tokens) < TOKENS for tokens in every), "of", len(every), "ended")


def main():
    torch.set_num_threads(1)
    for number, (name, kind) in enumerate(CASES.items()):
        generate(os.path.join(ROOT, name), kind, 300 + number)


if __name__ == "__main__":
    main()
