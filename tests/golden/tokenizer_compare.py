#!/usr/bin/env python3
"""Reference values for the tokenizers, made with the `tokenizers` package.

    tokenizer_compare.py --tokenizer DIR --out DIR [--count 20000] [--seed 1] [--variants uncased,cased]
    tokenizer_kinds.py --data DIR --out DIR [--count 20000] [--kinds gpt2,llama2]
    ATTUNE_TOKENIZER_COMPARE=OUT test_text --gtest_filter='TokenizerCompare.*'

The first: DIR holds a WordPiece tokenizer.json; for every variant, OUT/<variant>/ gets a tokenizer.json and a
reference.jsonl with `count` texts. The second does so for BPE and Unigram. The test reads every such folder.

    tokenizer_compare.py --small OUT

writes the small fixture of the unit test (own vocabulary, about 400 texts).
Made with tokenizers 0.23.3, seed 1.
"""
import argparse, json, os, random
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BLOCKS = {
    "latin": [(0x41, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)], "greek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "cyrillic": [(0x400, 0x52F)], "armenian": [(0x530, 0x58F)], "hebrew": [(0x590, 0x5F4)],
    "arabic": [(0x600, 0x6FF), (0x8A0, 0x8FF), (0xFB50, 0xFDFF)], "syriac": [(0x700, 0x74F)],
    "devanagari": [(0x900, 0x97F)], "bengali": [(0x980, 0x9FF)], "tamil": [(0xB80, 0xBFF)],
    "telugu": [(0xC00, 0xC7F)], "thai": [(0xE00, 0xE7F)], "tibetan": [(0xF00, 0xFFF)],
    "georgian": [(0x10A0, 0x10FF), (0x1C90, 0x1CBF)], "ethiopic": [(0x1200, 0x137F)],
    "khmer": [(0x1780, 0x17FF)], "mongolian": [(0x1800, 0x18AF)],
    "hiragana": [(0x3040, 0x309F)], "katakana": [(0x30A0, 0x30FF), (0xFF65, 0xFF9F)],
    "han": [(0x4E00, 0x9FFF), (0x3400, 0x34FF), (0xF900, 0xFAFF), (0x20000, 0x200FF), (0x2F800, 0x2FA1F)],
    "hangul": [(0xAC00, 0xD7A3)], "jamo": [(0x1100, 0x11FF), (0x3130, 0x318F)],
    "emoji": [(0x1F300, 0x1FAFF), (0x2600, 0x27BF), (0x1F1E6, 0x1F1FF), (0xFE0F, 0xFE0F), (0x200D, 0x200D)],
    "combining": [(0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0x302A, 0x302F)],
    "control": [(0, 0x20), (0x7F, 0xA0), (0x200B, 0x200F), (0x2028, 0x202F), (0x2060, 0x206F), (0xFEFF, 0xFEFF)],
    "symbols": [(0x2010, 0x2BFF), (0x3000, 0x303F), (0xFF00, 0xFFEF), (0xA1, 0xBF)],
    "private": [(0xE000, 0xE0FF), (0xF0000, 0xF00FF), (0x10FFF0, 0x10FFFF)],
    "unassigned": [(0x378, 0x379), (0xFFF0, 0xFFFF), (0x1FFF0, 0x1FFFF), (0xE0080, 0xE00FF), (0x2FE0, 0x2FEF)],
    "supplementary": [(0x10000, 0x1FFFF), (0xE0000, 0xE01EF)],
    "anything": [(0, 0xD7FF), (0xE000, 0x10FFFF)],
}
SPECIALS = ["[SEP]", "[MASK]", "[CLS]", "[UNK]", "[PAD]", "[sep]", "[MASK", "MASK]", "[[MASK]]", "[SEP][SEP]"]
FIXED = ["", " ", "\n", "\t\t", "a", "İstanbul IĞDIR ıi", "ΑΣ ΟΔΟΣ ς σ", "ß ẞ ﬁ ﬀ", "x" * 100, "x" * 101,
         "é" * 100, "é" * 101, "e\u0301" * 60, "a\u0315\u0300\u0323b", "\u0344a", "q\u0323\u0307 q\u0307\u0323",
         "한국어 \u1112\u1161\u11AB", "中文abc中", "\ufffd\x00a\u200bb", "don't do not", "a\u0300[MASK]\u0301b",
         "\u0301 start", "[MASK]\u0301", "a\x01b\x02\x03c", "\x01", "\u202eabc\u202c", "1,000.50 $5 50%", "\u1E9B\u0323"]


def a_char(rng, blocks):
    while True:
        first, last = rng.choice(blocks)
        c = rng.randint(first, last)
        if not 0xD800 <= c <= 0xDFFF:
            return chr(c)


def a_word(rng, pieces, names):
    kind = rng.random()
    if kind < 0.5:
        word = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 3)))
        if rng.random() < 0.3:
            word = rng.choice([str.upper, str.title, str.swapcase])(word)
        if rng.random() < 0.1:
            at = rng.randint(0, len(word))
            word = word[:at] + a_char(rng, BLOCKS[rng.choice(["combining", "control", "symbols"])]) + word[at:]
        return word
    length = rng.randint(60, 140) if kind > 0.992 else rng.randint(1, 8)
    block = BLOCKS[rng.choice(names)]
    return "".join(a_char(rng, block) for _ in range(length))


def a_text(rng, pieces, longest=14, specials=SPECIALS):
    names = rng.sample(sorted(BLOCKS), rng.randint(1, 3))
    out = []
    for _ in range(rng.randint(1, longest)):
        out.append(a_word(rng, pieces, names))
        roll = rng.random()
        if roll < 0.6:
            out.append(" ")
        elif roll < 0.75:
            out.append(rng.choice([", ", ". ", "-", "'", "!?", "…", "  ", "\t", "\u00a0", "\u3000", "(", "“"]))
        elif roll < 0.8:
            out.append(rng.choice(specials))
    return "".join(out)


def entry(e):
    return {"ids": e.ids, "type_ids": e.type_ids, "word_ids": [-1 if w is None else w for w in e.word_ids],
            "sequence_ids": [-1 if s is None else s for s in e.sequence_ids],
            "offsets": [x for o in e.offsets for x in o], "special": e.special_tokens_mask}


def case(rng, t, pieces, text, small, specials=SPECIALS):
    kind = rng.choice(["text"] * 6 + ["pair", "words", "truncate", "truncate_pair", "windows", "windows_pair"])
    row = {"kind": kind, "text": text, "special_tokens": rng.random() < 0.85}
    other = a_text(rng, pieces, 2 if small else 6, specials)
    if "pair" in kind:
        row["pair"] = other
    t.no_truncation()
    if kind == "words":
        row["words"] = text.split(" ")
    if kind.startswith("truncate") or kind.startswith("windows"):
        row["max_length"] = rng.randint(4, 24)
        strategies = ["longest_first", "only_first"] + (["only_second"] if "pair" in kind else [])
        row["strategy"] = rng.choice(strategies if kind != "windows" else ["longest_first"])
        row["stride"] = rng.randint(0, 2) if kind.startswith("windows") else 0
        t.enable_truncation(row["max_length"], stride=row["stride"], strategy=row["strategy"])
    try:
        if kind == "words":
            e = t.encode(row["words"], is_pretokenized=True, add_special_tokens=row["special_tokens"])
        elif "pair" in kind:
            e = t.encode(text, other, add_special_tokens=row["special_tokens"])
        else:
            e = t.encode(text, add_special_tokens=row["special_tokens"])
        row["encodings"] = [entry(e)] + ([entry(x) for x in e.overflowing] if kind.startswith("windows") else [])
        if isinstance(t.post_processor, processors.RobertaProcessing):
            for x in row["encodings"]:  # the reference forgets the type ids of overflow windows
                x["type_ids"] = [0] * len(x["ids"])
        if t.post_processor is None and kind == "windows_pair":
            for x in row["encodings"]:  # and their sequence ids when there is no post-processor
                x["sequence_ids"] = x["type_ids"]
        if kind.startswith("windows") and any(
                set(x["sequence_ids"]) - set(row["encodings"][0]["sequence_ids"]) for x in row["encodings"]):
            raise ValueError("a sequence without room: the reference returns one over-long window, Attune refuses")
        if len(row["encodings"]) > (4 if small else 50):
            return case(rng, t, pieces, text, small, specials)
        row["decoded"] = t.decode(e.ids, skip_special_tokens=True)
        row["decoded_all"] = t.decode(e.ids, skip_special_tokens=False)
    except BaseException as error:  # a Rust panic is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        row = {k: v for k, v in row.items() if k != "encodings"}; row["error"] = True
    return row


def write(t, folder, count, seed, pieces, small=False):
    os.makedirs(folder, exist_ok=True)
    t.no_truncation(); t.no_padding()
    t.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    rng = random.Random(seed)
    with open(os.path.join(folder, "reference.jsonl"), "w", encoding="utf-8") as out:
        for i in range(count):
            text = FIXED[i] if i < len(FIXED) else a_text(rng, pieces, 3 if small else 14)
            row = case(rng, t, pieces, text, small)
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(folder, count, "texts")


def added(t):
    from tokenizers import AddedToken as A
    t.add_tokens([A("Hello World", normalized=True), A("café", normalized=True, single_word=True),
                  A("<tag>", normalized=False, lstrip=True, rstrip=True), A("the", normalized=False, single_word=True),
                  A("<t", normalized=False), A("ing", normalized=True, rstrip=True)])
    t.add_special_tokens(["<extra>"])


def variant(path, name):
    t = Tokenizer.from_file(path)
    n, p = normalizers, pre_tokenizers
    bert = lambda **k: n.BertNormalizer(**{**dict(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True), **k})
    if name == "uncased": pass
    elif name == "cased": t.normalizer = bert(lowercase=False)
    elif name == "accents": t.normalizer = bert(strip_accents=False)
    elif name == "stripped_cased": t.normalizer = bert(strip_accents=True, lowercase=False)
    elif name == "dirty": t.normalizer = bert(clean_text=False, handle_chinese_chars=False)
    elif name == "added": added(t)
    elif name == "nfkc":
        t.normalizer = n.Sequence([n.NFKC(), n.Lowercase(), n.StripAccents()]); t.pre_tokenizer = p.Whitespace()
    elif name == "nfkd":
        t.normalizer = n.Sequence([n.NFKD(), n.StripAccents(), n.Lowercase(), n.Strip()])
        t.pre_tokenizer = p.Sequence([p.WhitespaceSplit(), p.Punctuation("contiguous"), p.Digits(individual_digits=True)])
        t.post_processor = processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))
        added(t)
    elif name == "nfc":
        t.normalizer = n.Sequence([n.NFC(), n.Replace(Regex(r"\s+"), " "), n.Replace("a", "bc"), n.Prepend("x "), n.Strip(left=True, right=False)])
        t.pre_tokenizer = p.Sequence([p.Split(" ", "merged_with_next"), p.Punctuation("merged_with_previous"), p.Digits()])
        t.post_processor = processors.RobertaProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")), trim_offsets=False)
    elif name == "plain":  # no \d: PCRE2 10.42 knows the digits of Unicode 14 only
        t.normalizer = n.NFD(); t.pre_tokenizer = p.Split(Regex(r"[a-z]+|[0-9]"), "isolated", invert=True)
        t.post_processor = None; t.decoder = None
    else: raise SystemExit("unknown variant " + name)
    return t


def own_vocabulary(seed):
    rng = random.Random(seed)
    words = "the of and in to a library files package data for with this provides tools development support python network image text user server system".split()
    corpus = [" ".join(rng.choice(words) for _ in range(8)) for _ in range(300)]
    for _ in range(2500):
        name = rng.choice(sorted(BLOCKS))
        corpus.append("".join(a_char(rng, BLOCKS[name][:1]) for _ in range(4)))
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(); t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=2600, min_frequency=1, limit_alphabet=1400, special_tokens=special, show_progress=False))
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                     special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return t


ALL = "uncased,cased,accents,stripped_cased,dirty,added,nfkc,nfkd,nfc,plain"
if __name__ == "__main__":
    args = argparse.ArgumentParser()
    for name, kind, default in [("tokenizer", str, ""), ("out", str, ""), ("small", str, ""), ("count", int, 20000),
                                ("seed", int, 1), ("variants", str, ALL)]:
        args.add_argument("--" + name, type=kind, default=default)
    args = args.parse_args()
    if args.small:
        t = own_vocabulary(args.seed)
        write(t, args.small, 400, args.seed, [w.replace("##", "") for w in sorted(t.get_vocab()) if "[" not in w and len(w) > 1], True)
    else:
        path = os.path.join(args.tokenizer, "tokenizer.json")
        pieces = [w.replace("##", "") for w in sorted(Tokenizer.from_file(path).get_vocab()) if "[" not in w]
        for name in args.variants.split(","):
            write(variant(path, name), os.path.join(args.out, name), args.count, args.seed, pieces)
