"""Whole sentences of SST-2. GLUE's training part holds every phrase of a sentence's parse beside it, with a label of its own; the
sets of sentences that are used elsewhere do not.

A row is a sentence when it ends as one does and no other row of the files ends with it. Standard library only.
"""
import os
import re

from common import write_lines

PARTS = ("train", "dev", "test")
_END = re.compile(r"[.?!]( ''| \)| `)*$")


def rows_of(folder, part):
    with open(os.path.join(folder, f"{part}.tsv"), encoding="utf-8") as file:
        next(file)
        return [(text.strip(), label) for text, label in (line.rstrip("\n").split("\t") for line in file)]


def prepare(folder, output):
    """Writes output/{train,dev,test}.tsv unless they are there."""
    os.makedirs(output, exist_ok=True)
    if all(os.path.exists(os.path.join(output, f"{part}.tsv")) for part in PARTS):
        return
    parts = {part: rows_of(folder, part) for part in PARTS}
    # Backwards and in order, what ends with a row stands right behind it.
    backwards = sorted({text[::-1] for rows in parts.values() for text, _ in rows})
    inner = {text for text, longer in zip(backwards, backwards[1:]) if longer.startswith(text)}
    for part, rows in parts.items():
        whole = [(text, label) for text, label in dict(rows).items() if _END.search(text) and text[::-1] not in inner]
        write_lines(os.path.join(output, f"{part}.tsv"), ["sentence\tlabel\n", *(f"{text}\t{label}\n" for text, label in whole)])
