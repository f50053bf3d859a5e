"""Sentences of abstracts and what each is for (background, objective, method, result, other), from CSFCube's candidates.

No paper stands in two parts: the part is a hash of its number. Standard library only.
"""
import hashlib
import json
import os
import re

from common import write_lines

PARTS = ("train", "dev", "test")
_PAPER = re.compile(r"^paper_id: (\S+);", re.MULTILINE)
_SENTENCE = re.compile(r"^(?:ABSTRACT: )?(\w+)_label: (.*\S)\s*$", re.MULTILINE)


def sentences(folder):
    """Rows by the number of their paper; a paper that is a candidate twice counts once."""
    papers = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith("-background-adju.txt"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            blocks = re.split(r"^=+\n", file.read(), flags=re.MULTILINE)
        for block in blocks:
            paper = _PAPER.search(block)
            if paper:
                papers.setdefault(paper.group(1), [{"text": text, "label": label} for label, text in _SENTENCE.findall(block)])
    return papers


def part_of(paper):
    """70 % to train, 10 % to choose by, 20 % to test."""
    place = hashlib.sha256(paper.encode()).digest()[0] / 256
    return "test" if place < 0.2 else "dev" if place < 0.3 else "train"


def prepare(folder, output):
    """Writes output/{train,dev,test}.jsonl unless they are there."""
    os.makedirs(output, exist_ok=True)
    if all(os.path.exists(os.path.join(output, f"{part}.jsonl")) for part in PARTS):
        return
    parts = {part: [] for part in PARTS}
    for paper, rows in sorted(sentences(folder).items()):
        parts[part_of(paper)].extend(rows)
    for part, rows in parts.items():
        write_lines(os.path.join(output, f"{part}.jsonl"), (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
