#!/usr/bin/env python3
"""Reference values for BPE and Unigram tokenizers, made with the `tokenizers` package; see tokenizer_compare.py.

    tokenizer_kinds.py --data DIR --out OUT [--count 20000] [--seed 1] [--kinds gpt2,llama2,...]
    tokenizer_kinds.py --data DIR --out OUT --every-character [--kinds ...]
    tokenizer_kinds.py --small OUT [--seed 1]

The first trains a tokenizer of every kind on texts below DIR (datasets/, models/ as listed in KINDS) and writes
OUT/<kind>/ with the tokenizer's files and reference.jsonl; the second does so with texts in which every code point
stands beside letters, digits, blanks, marks and itself. The third writes the small fixtures of the unit test: tiny
vocabularies trained on text made up here. Folders whose name begins with "files_" have no tokenizer.json: their reference
is what transformers makes of the other files.
Made with tokenizers 0.23.3, sentencepiece 0.2.3, transformers 5.23.0, seed 1.
"""
import argparse, glob, io, json, os, random, shutil, unicodedata
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizer_compare import BLOCKS, FIXED, a_char, a_text, case, entry

P, N, D, M = pre_tokenizers, normalizers, decoders, models
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
            r"\s*[\r\n]+|\s+(?!\S)|\s+")
MORE = ["  two", "end  ", "a" + " " * 40 + "b", " " * 130, "\r\n\r\n x\r\ny", "I'LL we'Ve 'ſ don'T 'K it'ſ", "▁ ▁▁ a▁b ▁", "Ġ Ċ Ġa",
        "<0x41><0xFF> <0x0A>", "\u0085\u00a0\u2003x", "1234567 ١٢٣٤ ⅣⅤ ²³", "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷🇹", "e\u0301\u0301 ①\u0301 ﬁ\u0301 Å\u0301", "\u3000全角ＡＢＣ",
        "™\x1eg", "\x1e™", "\x1e\x1ea", "㍿ ㌔ ﷺ ½ ² ﷽", "\u1100\u1161\u11A8 각", "ab\u200dc \u200b", "\ufeffbom", "क्षत्रिय क्षा\u0301", "x" * 700, "é" * 300,
        "a\u0301" * 40, "''quoted'' ``so''", "line\nline\n\n\nline\n", "\t\ttabs\t", "\U0010ffff\U000e0001", "𝒜𝓁𝓅𝒽𝒶", "ﬀ ﬃ ﬅ", "\u0600\u0661",
        "=====-----", "a.b,c;d", "http://x.y/z?q=1&r=2#f", "snake_case camelCase", "ꟛ\U00010D50\U00010D70\U00011DE0", "\u0378\uffff",
        "\u001c\u001d\u001e\u001f", "<unk> </s> <s>", "NULL\x00NULL"]


def corpus(data):
    def texts(path):
        for line in open(path, encoding="utf-8", errors="ignore"):
            yield line.rstrip("\n")
    out = []
    for name in ["de", "en", "tr"]:
        for a in json.load(open(f"{data}/datasets/xquad/xquad.{name}.json"))["data"]:
            out += [p["context"] for p in a["paragraphs"]]
    for path, count in [("lm-pool/wiki_demo.txt", 4000), ("code-trans/train.java-cs.txt.java", 1500), ("masakhanews/yor/train.tsv", 400),
                        ("masakhanews/lin/train.tsv", 200), ("germeval2018/germeval2018.training.txt", 1500)]:
        out += list(texts(f"{data}/datasets/{path}"))[:count]
    return [x for x in out if x.strip()]


def made_up(seed, lines=400):
    rng = random.Random(seed)
    words = "the of and in to a library files package data for with this provides tools don't it's we'll 2024 13 naïve café Straße слово мир λόγος".split()
    out = [" ".join(rng.choice(words) for _ in range(8)) + rng.choice([".", "!", "?\n", "  "]) for _ in range(lines)]
    for _ in range(lines):
        name = rng.choice(sorted(BLOCKS))
        out.append("".join(a_char(rng, [(b[0], min(b[1], b[0] + 40)) for b in BLOCKS[name][:1]]) for _ in range(4)))
    return out


def byte_bpe(texts, size, pre, specials):
    t = Tokenizer(M.BPE())
    t.pre_tokenizer = pre
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=P.ByteLevel.alphabet(), special_tokens=[], show_progress=False))
    t.decoder = D.ByteLevel()
    t.add_special_tokens(specials)
    return t


def set_model(t, **changes):
    """The same tokenizer with other fields in its model."""
    value = json.loads(t.to_str())
    value["model"].update(changes)
    return Tokenizer.from_str(json.dumps(value))


def template(single, pair, t):
    names = sorted({x for x in (single + " " + pair).replace(":0", "").replace(":1", "").split() if not x.startswith("$")})
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[(x, t.token_to_id(x)) for x in names])


def splits(*patterns):
    return P.Sequence([P.Split(Regex(x), "isolated") for x in patterns] + [P.ByteLevel(add_prefix_space=False, use_regex=False)])


def spm(texts, size, kind, small, **options):
    """A trained SentencePiece model as bytes; `small`: a character map of a few entries instead of nmt_nfkc."""
    import sentencepiece
    out = io.BytesIO()
    if small:
        with open("/tmp/attune_rules.tsv", "w") as f:
            for c in [0x2122, 0xBD, 0xB2, 0xFB01, 0x2460, 0xFF21, 0x3000, 0xA0, 0x9, 0xA, 0x1E, 0x212B, 0xC5, 0xFDFA]:
                form = " ".join("%X" % ord(x) for x in (" " if c in (9, 10, 0xA0) else "" if c == 0x1E else unicodedata.normalize("NFKC", chr(c))))
                if form != "%X" % c:
                    f.write("%X\t%s\n" % (c, form))
            f.write("65 301\tE9\n61 30A\tE5\nD A\t20\n1F1E9 1F1EA\t44 45\n")
        options["normalization_rule_tsv"] = "/tmp/attune_rules.tsv"
    else:
        options.setdefault("normalization_rule_name", "nmt_nfkc")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=out, vocab_size=size, model_type=kind, minloglevel=3,
                                             hard_vocab_limit=False, num_threads=1,
                                             character_coverage=0.98 if small else 0.999, **options)
    return out.getvalue()


def proto_of(blob):
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(blob)
    return proto


def sp_bpe(proto):
    from transformers.convert_slow_tokenizer import generate_merges
    scores = {p.piece: p.score for p in proto.pieces}
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    t = Tokenizer(M.BPE(vocab, generate_merges(vocab, scores), unk_token="<unk>", fuse_unk=True, byte_fallback=proto.trainer_spec.byte_fallback))
    t.decoder = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in ["<unk>", "<s>", "</s>"]])
    t.post_processor = template("<s> $A", "<s> $A <s>:1 $B:1", t)
    return t


def sp_unigram(proto, head=None, tail=(), unk=None, byte_fallback=False):
    pieces = [(p.piece, p.score) for p in proto.pieces]
    if head:
        pieces = [(x, 0.0) for x in head] + pieces[3:]
    t = Tokenizer(M.Unigram(pieces + [(x, 0.0) for x in tail], unk if unk is not None else proto.trainer_spec.unk_id, byte_fallback))
    return t


def kinds(args, small):
    """name -> a function that makes (tokenizer, texts' special tokens)."""
    texts = made_up(args.seed) if small else corpus(args.data)
    sp_texts = texts[:460] if small else texts  # few scripts: SentencePiece keeps nearly every character
    size = (lambda n: 600) if small else (lambda n: n)
    cache = {}

    def once(name, make):
        if name not in cache:
            cache[name] = make()
        return cache[name]

    def gpt2(**k):
        if small:
            return byte_bpe(texts, 600, P.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])
        folder = args.data + "/models/tokenizer-gpt2/"
        merges = [tuple(x.split()) for x in open(folder + "vocab.bpe", encoding="utf-8").read().split("\n")[1:] if x]
        t = Tokenizer(M.BPE(json.load(open(folder + "encoder.json")), merges, **k))
        t.pre_tokenizer = P.ByteLevel(add_prefix_space=False); t.decoder = D.ByteLevel()
        t.add_special_tokens(["<|endoftext|>"])
        return t

    def gpt2_like():
        t = gpt2(); t.post_processor = processors.ByteLevel(trim_offsets=not small)
        return t

    def roberta():
        t = gpt2()
        t.add_special_tokens(["<s>", "</s>", "<pad>", AddedToken("<mask>", lstrip=True, special=True)])
        t.add_tokens([AddedToken(" wide ", rstrip=True, normalized=False), AddedToken("word", single_word=True), "Ġ"])
        t.pre_tokenizer = P.ByteLevel(add_prefix_space=True)
        t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")), True, True)
        return t

    def llama3():
        t = once("llama3", lambda: byte_bpe(texts, size(20000), splits(LLAMA3), ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]))
        t = set_model(t, ignore_merges=True)
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True, add_prefix_space=False),
                                                template("<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", t)])
        return t

    def on_llama3(pre, normalizer=None, **model):
        t = set_model(llama3(), **model) if model else llama3()
        t.pre_tokenizer = pre; t.normalizer = normalizer
        return t

    def clip():
        t = Tokenizer(M.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
        t.normalizer = N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()])
        t.pre_tokenizer = P.Sequence([P.Split(Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"),
                                              "removed", invert=True), P.ByteLevel(add_prefix_space=False)])
        t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size(8000), end_of_word_suffix="</w>", initial_alphabet=P.ByteLevel.alphabet(),
                                                         special_tokens=["<|startoftext|>", "<|endoftext|>"], show_progress=False))
        t.decoder = D.Sequence([D.ByteLevel(), D.Replace("</w>", " ")])
        t.post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), False, False)
        return t

    def word_bpe():
        t = Tokenizer(M.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        t.normalizer = N.BertNormalizer(); t.pre_tokenizer = P.BertPreTokenizer()
        t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size(6000), limit_alphabet=200, end_of_word_suffix="</w>", special_tokens=["<unk>"],
                                                         show_progress=False))
        t.decoder = D.BPEDecoder("</w>")
        return t

    def prefix_bpe(unk):
        t = Tokenizer(M.BPE(unk_token=unk, continuing_subword_prefix="##", fuse_unk=True))
        t.pre_tokenizer = P.Whitespace()
        t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size(4000), limit_alphabet=100, continuing_subword_prefix="##",
                                                         special_tokens=["[UNK]"], show_progress=False))
        t.decoder = D.WordPiece("##", False)
        return t

    def bpe_proto(**k):
        return once("bpe" + str(k), lambda: proto_of(spm(sp_texts, size(8000), "bpe", small, byte_fallback=True, **k)))

    def unigram_proto(**k):
        return once("uni" + str(k), lambda: proto_of(spm(sp_texts, size(8000), "unigram", small, **k)))

    def llama2():
        t = sp_bpe(bpe_proto(normalization_rule_name="identity") if not small else bpe_proto())
        t.normalizer = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
        return t

    def llama2_first():
        t = sp_bpe(bpe_proto()); t.pre_tokenizer = P.Metaspace("▁", "first", split=False)
        t.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("Name", normalized=True, single_word=True)])
        return t

    def llama2_never():
        t = set_model(sp_bpe(bpe_proto(user_defined_symbols=["▁▁", "a▁b"])), byte_fallback=False)
        t.pre_tokenizer = P.Metaspace("▁", "never", split=False); t.decoder = D.Metaspace("▁", "never", split=False)
        return t

    def gemma():
        t = sp_bpe(bpe_proto()); t.normalizer = N.Replace(" ", "▁"); t.pre_tokenizer = P.Split(" ", "merged_with_previous")
        t.decoder = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse()])
        t = set_model(t, fuse_unk=False, unk_token="<unk>", byte_fallback=True)
        return t

    def partial_bytes():
        """Byte fallback where some bytes have no token, and no unknown token."""
        t = sp_bpe(bpe_proto())
        value = json.loads(t.to_str())
        for x in ["<0xC3>", "<0xE3>", "<0xF0>", "<0x20>"]:
            value["model"]["vocab"]["gone" + x] = value["model"]["vocab"].pop(x)
        if not small:
            value["model"]["unk_token"] = None
        t = Tokenizer.from_str(json.dumps(value))
        t.normalizer = N.Replace(" ", "▁")
        return t

    def t5():
        proto = unigram_proto(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        extra = 3 if small else 100
        t = sp_unigram(proto, tail=[f"<extra_id_{i}>" for i in range(extra - 1, -1, -1)])
        t.normalizer = N.Sequence([N.Precompiled(proto.normalizer_spec.precompiled_charsmap), N.Strip(left=False, right=True), N.Replace(Regex(" {2,}"), "▁")])
        t.pre_tokenizer = P.Metaspace("▁", "always"); t.decoder = D.Metaspace("▁", "always")
        t.add_special_tokens(["<pad>", "</s>", "<unk>"] + [f"<extra_id_{i}>" for i in range(extra)])
        t.post_processor = template("$A </s>", "$A </s> $B </s>", t)
        return t

    def xlmr(scheme="always"):
        proto = unigram_proto()
        t = sp_unigram(proto, ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], 3)
        t.normalizer = N.Precompiled(proto.normalizer_spec.precompiled_charsmap)
        t.pre_tokenizer = P.Sequence([P.WhitespaceSplit(), P.Metaspace("▁", scheme)]); t.decoder = D.Metaspace("▁", scheme)
        t.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)])
        t.post_processor = template("<s> $A </s>", "<s> $A </s> </s> $B </s>", t)
        return t

    def albert():
        if small:
            proto = unigram_proto()
        else:
            proto = proto_of(open(args.data + "/models/tokenizer-sentencepiece/spiece_albert_30k_unigram.model", "rb").read())
        t = sp_unigram(proto)
        t.normalizer = N.Sequence([N.Replace("``", '"'), N.Replace("''", '"'), N.NFKD(), N.StripAccents(), N.Lowercase(),
                                   N.Precompiled(proto.normalizer_spec.precompiled_charsmap), N.Replace(Regex(" {2,}"), " ")])
        t.pre_tokenizer = P.Metaspace("▁", "always"); t.decoder = D.Metaspace("▁", "always")
        if not small:
            t.add_special_tokens(["[CLS]", "[SEP]", AddedToken("[MASK]", lstrip=True, special=True), "<pad>", "<unk>"])
            t.add_tokens([AddedToken("Café Noir", normalized=True), AddedToken("½", normalized=True, rstrip=True)])
            t.post_processor = template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", t)
        return t

    def unigram_bytes():
        proto = unigram_proto(byte_fallback=True)
        t = sp_unigram(proto, byte_fallback=True)
        t.normalizer = N.Sequence([N.Precompiled(proto.normalizer_spec.precompiled_charsmap), N.Replace(" ", "▁")])
        t.pre_tokenizer = P.Metaspace("▁", "first", split=False)
        t.decoder = D.Sequence([D.Replace(Regex("▁"), " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
        return t

    def deberta():
        proto = unigram_proto()
        t = sp_unigram(proto)
        t.normalizer = N.Sequence([N.Lowercase(), N.Strip(), N.Precompiled(proto.normalizer_spec.precompiled_charsmap), N.Replace(Regex(" {2,}"), " ")])
        t.pre_tokenizer = P.Sequence([P.Punctuation("isolated"), P.Metaspace("▁", "first")]); t.decoder = D.Metaspace("▁", "first")
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", t)])
        return t

    def byte_normalized():
        t = llama3(); t.normalizer = N.Sequence([N.NFC(), N.ByteLevel()]); t.pre_tokenizer = P.Split(Regex("Ġ?[^Ġ]+"), "isolated")
        t.add_tokens([AddedToken("new token", normalized=True)])
        return t

    def word_level():
        t = Tokenizer(M.WordLevel(unk_token="<unk>"))
        t.normalizer = N.Sequence([N.Nmt(), N.Lowercase()])
        t.pre_tokenizer = P.Sequence([P.WhitespaceSplit(), P.UnicodeScripts()])
        t.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=size(4000), special_tokens=["<unk>", "<pad>"], show_progress=False))
        t.decoder = D.CTC(pad_token="<pad>", word_delimiter_token="z")
        t.post_processor = template("$A <pad>", "$A <pad> $B:1", t)
        return t

    def fixed_length():
        t = Tokenizer(M.WordLevel(unk_token="<unk>"))
        t.normalizer = N.Nmt()
        t.pre_tokenizer = P.Sequence([P.UnicodeScripts(), P.FixedLength(length=2)])
        t.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=size(4000), special_tokens=["<unk>"], show_progress=False))
        t.decoder = D.Sequence([D.CTC(pad_token="e", cleanup=False), D.Fuse()])
        return t

    def files(name, cls, **config):
        """What transformers makes of a folder without tokenizer.json."""
        folder = os.path.join(args.small or args.out, "files_" + name)
        shutil.rmtree(folder, ignore_errors=True); os.makedirs(folder)
        if cls in ("GPT2Tokenizer", "RobertaTokenizer", "Qwen2Tokenizer"):
            gpt2().model.save(folder)
        else:
            kind, file = {"LlamaTokenizer": ("bpe", "tokenizer.model"), "T5Tokenizer": ("unigram", "spiece.model"),
                          "AlbertTokenizer": ("unigram", "spiece.model"), "XLMRobertaTokenizer": ("unigram", "sentencepiece.bpe.model")}[cls]
            options = {"T5Tokenizer": dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1), "LlamaTokenizer": dict(byte_fallback=True),
                       "AlbertTokenizer": dict(pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"], user_defined_symbols=["(", "€"])}
            with open(os.path.join(folder, file), "wb") as f:
                f.write(spm(sp_texts, size(4000), kind, small, **options.get(cls, {})))
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
            json.dump({"tokenizer_class": cls, **config}, f)
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import AutoTokenizer
        return AutoTokenizer.from_pretrained(folder)._tokenizer

    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    out = {
        "gpt2": gpt2_like, "roberta": roberta, "llama3": llama3, "qwen2": lambda: on_llama3(splits(QWEN2), N.NFC(), ignore_merges=False),
        "o200k": lambda: on_llama3(splits(O200K)),
        "deepseek": lambda: on_llama3(splits(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK), ignore_merges=False),
        "falcon": lambda: on_llama3(P.Sequence([P.Punctuation("contiguous"), P.ByteLevel(add_prefix_space=False), P.Digits(),
                                                P.Split(Regex("[0-9][0-9][0-9]"), "isolated")]), ignore_merges=False),
        "starcoder": lambda: on_llama3(P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]), ignore_merges=False),
        "anchors": lambda: on_llama3(splits(r"^\w+|\W$|\h{2}|[[:punct:]]+|(?m:x.y)|\d+|[\w\-]{3}"), ignore_merges=False),
        "byte_normalized": byte_normalized, "clip": clip, "word_bpe": word_bpe, "prefix_bpe": lambda: prefix_bpe("[UNK]"),
        "no_unk_bpe": lambda: prefix_bpe(None), "llama2": llama2, "llama2_first": llama2_first, "llama2_never": llama2_never, "gemma": gemma,
        "partial_bytes": partial_bytes, "t5": t5, "xlmr": xlmr, "xlmr_never": lambda: xlmr("never"), "albert": albert, "unigram_bytes": unigram_bytes,
        "deberta": deberta,
        "word_level": word_level, "fixed_length": fixed_length,
        "files_gpt2": lambda: files("gpt2", "GPT2Tokenizer"),
        "files_gpt2_bos": lambda: files("gpt2_bos", "GPT2Tokenizer", add_bos_token=True, add_prefix_space=True, pad_token="<pad>"),
        "files_roberta": lambda: files("roberta", "RobertaTokenizer", mask_token=mask),
        "files_qwen2": lambda: files("qwen2", "Qwen2Tokenizer", extra_special_tokens=["<|im_start|>", "<|im_end|>"]),
        "files_llama": lambda: files("llama", "LlamaTokenizer", add_bos_token=True, add_eos_token=True, pad_token="<pad>"),
        "files_llama_legacy": lambda: files("llama_legacy", "LlamaTokenizer", legacy=True, add_bos_token=True),
        "files_mistral": lambda: files("mistral", "LlamaTokenizer", add_prefix_space=False),
        "files_t5": lambda: files("t5", "T5Tokenizer"), "files_t5_more": lambda: files("t5_more", "T5Tokenizer", extra_ids=7),
        "files_albert": lambda: files("albert", "AlbertTokenizer"),
        "files_albert_cased": lambda: files("albert_cased", "AlbertTokenizer", do_lower_case=False, keep_accents=True),
        "files_xlmr": lambda: files("xlmr", "XLMRobertaTokenizer", mask_token=mask)}
    return out


SMALL = ["gpt2", "llama3", "llama2", "t5", "xlmr", "word_level", "fixed_length", "files_llama", "files_t5"]


def every_character():
    for begin in range(0, 0x110000, 16):
        yield "".join(f"a{c} {c}b{c}{c} 1{c}\u0301{c}" for c in map(chr, range(begin, begin + 16)) if not 0xD800 <= ord(c) <= 0xDFFF)


def write(name, t, root, count, seed, small, lines, texts=None):
    folder = os.path.join(root, name)
    os.makedirs(folder, exist_ok=True)
    t.no_truncation(); t.no_padding()
    if not name.startswith("files_"):
        t.save(os.path.join(folder, "tokenizer.json"), pretty=False)
        t = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))  # its scores, as read from JSON
    added = t.get_added_tokens_decoder()
    content = {i: a.content for i, a in added.items()}
    specials = list(content.values()) or ["<none>"]
    specials = specials + [specials[0] + specials[0], specials[-1][:-1], specials[0].upper(), " " + specials[-1] + " ", specials[-1] + "  x"]
    pieces = [w.replace("##", "").replace("</w>", "").replace("▁", " ") for w in sorted(t.get_vocab()) if w not in specials]
    if isinstance(t.decoder, D.ByteLevel):
        pieces = [p for p in (t.decoder.decode([w]) for w in sorted(t.get_vocab())) if p and "\ufffd" not in p]
    rng = random.Random(seed)
    size = t.get_vocab_size()
    bytes_ = [i for i in (t.token_to_id("<0x%02X>" % b) for b in range(256)) if i is not None]
    with open(os.path.join(folder, "reference.jsonl"), "w", encoding="utf-8") as out:
        for text in texts or []:
            if text:
                row = {"kind": "text", "text": text, "special_tokens": True}
                row["encodings"] = [entry(t.encode(text))]
                for key, skip in [("decoded", True), ("decoded_all", False)]:
                    row[key] = t.decode(row["encodings"][0]["ids"], skip_special_tokens=skip)
                out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        for i in range(0 if texts else count):
            fixed = (FIXED + MORE)[i] if i < len(FIXED) + len(MORE) else None
            if small and fixed:
                fixed = fixed[:130]
            text = fixed if fixed is not None else rng.choice(lines) if rng.random() < 0.2 else a_text(rng, pieces, 3 if small else 14, specials)
            row = case(rng, t, pieces, text, small, specials)
            if "encodings" in row:
                if row["kind"] == "windows_pair" and 1 in row["encodings"][0]["sequence_ids"] and 1 not in row["encodings"][0]["type_ids"]:
                    for x in row["encodings"]:  # the reference forgets the template's type ids in overflow windows
                        x["type_ids"] = [0] * len(x["ids"])
                row["tokens"] = [content.get(x) or t.id_to_token(x) for x in row["encodings"][0]["ids"]]
            row["ids"] = [rng.choice(bytes_) if bytes_ and rng.random() < 0.5 else rng.randrange(size) for _ in range(rng.randint(1, 8))]
            row["ids_decoded"] = t.decode(row["ids"], skip_special_tokens=True)
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(folder, count, "texts", flush=True)


if __name__ == "__main__":
    args = argparse.ArgumentParser()
    for name, kind, default in [("data", str, ""), ("out", str, ""), ("small", str, ""), ("count", int, 20000), ("seed", int, 1), ("kinds", str, "")]:
        args.add_argument("--" + name, type=kind, default=default)
    args.add_argument("--every-character", action="store_true")
    args = args.parse_args()
    small = bool(args.small)
    table = kinds(args, small)
    lines = [x[:300] for x in (made_up(args.seed + 1, 100) if small else corpus(args.data))]
    for name in args.kinds.split(",") if args.kinds else SMALL if small else table:
        write(name, table[name](), args.small or args.out, 90 if small else args.count, args.seed, small, lines, every_character() if args.every_character else None)
