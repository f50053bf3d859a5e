"""Whole sentences of SST-2: GLUE's training part holds every phrase of a sentence's parse beside it, with a label of its own.

python3 tests/compare/sentences.py SST2_FOLDER OUTPUT_FOLDER writes train.tsv, dev.tsv and test.tsv. A row is a sentence when it
ends as one does and no other row of the three files ends with it.
"""
import os
import re
import sys

END = re.compile(r"[.?!]( ''| \)| `)*$")


def rows_of(folder, part):
    with open(os.path.join(folder, f"{part}.tsv"), encoding="utf-8") as file:
        next(file)
        for line in file:
            text, label = line.rstrip("\n").split("\t")
            yield text.strip(), label


def prepare(folder, output):
    parts = {part: list(rows_of(folder, part)) for part in ("train", "dev", "test")}
    # Backwards and in order, a row's longer forms stand right behind it.
    backwards = sorted({text[::-1] for rows in parts.values() for text, _ in rows})
    inner = {text for text, longer in zip(backwards, backwards[1:]) if longer.startswith(text)}
    os.makedirs(output, exist_ok=True)
    for part, rows in parts.items():
        with open(os.path.join(output, f"{part}.tsv"), "w", encoding="utf-8") as out:
            out.write("sentence\tlabel\n")
            for text, label in dict(rows).items():
                if END.search(text) and text[::-1] not in inner:
                    out.write(f"{text}\t{label}\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    prepare(sys.argv[1], sys.argv[2])
