"""Tokenizers from files, behind one small protocol: text in, flat token ids out, and no text becomes a special token.

Three traps are closed here for all of them. Untrusted text that spells a special token (`<|endoftext|>`) is encoded as
plain text. Post-processing, truncation and padding that a tokenizer.json brings along are switched off. tiktoken's
own loader would copy ranks into a cache folder, so the ranks file is parsed here. Nothing is ever downloaded.

The ids of a tokenizer.json are by definition those of the `tokenizers` library. `fastokens` gives the same ids at a
multiple of the speed for byte-level BPE; which of the two encodes is a property of the file, see `Fast`.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import fastokens  # type: ignore[import-untyped]
import numpy as np
import orjson
import sentencepiece
import tiktoken
import tokenizers
import xxhash
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

from operators.document import Pinned

# One thread a process: Ray runs as many processes as there are cores. All are read when work starts.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")  # with more it also keeps every word it has seen

EOS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|im_end|>")
BOS = ("<|startoftext|>", "<s>", "<|begin_of_text|>", "<bos>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>")
PAD = ("<pad>", "<|pad|>", "<|padding|>", "[PAD]", "<|finetune_right_pad_id|>")

Engine = Literal["auto", "tokenizers"]
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2_SPLIT = ""  # what a ByteLevel pre-tokenizer does by itself
# Of the splits that fastokens may do, what it splits otherwise: found by trying every code point in twenty contexts.
SPLITS: dict[str, str | None] = {GPT2_SPLIT: None, LLAMA3_SPLIT: "'\u017f", O200K_SPLIT: "'\u017f"}
CHECKED_SHARE = 256  # one document in so many is encoded by both engines


class Encoded(NamedTuple):
    """Token ids of many texts: `ids` end to end, `lengths` a text, -1 for a text that cannot be encoded."""

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]


class Backend(Protocol):
    @property
    def engine(self) -> str: ...  # the package that encodes

    vocab_size: int  # highest id, special tokens included, plus one
    eos: str | None  # the names it has for its own end, beginning and padding
    bos: str | None
    pad: str | None

    def id_of(self, token: str) -> int | None: ...
    def encode(self, texts: list[str]) -> Encoded: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class BackendFile:
    """Which backend reads which file; a Model (see operators/document.py), loaded once a process."""

    kind: str
    file: Pinned
    pattern: str | None = None
    special: tuple[tuple[str, int], ...] = ()
    engine: Engine = "auto"

    def load(self) -> Backend:
        data = self.file.read()
        try:
            if self.kind == "tiktoken":
                return Tiktoken(data, self.pattern or "", dict(self.special))
            return SentencePiece(data) if self.kind == "sentencepiece" else HuggingFace(data, self.engine)
        except (ValueError, OSError) as error:  # json, base64 and pattern errors are ValueErrors
            raise ValueError(f"{self.file.path}: not a {self.kind} tokenizer: {error}") from error


class HuggingFace:
    """A tokenizer.json, with the ids that the `tokenizers` library gives."""

    def __init__(self, data: bytes, engine: Engine = "auto") -> None:
        if "model" not in orjson.loads(data):
            raise ValueError("no `model` in it")
        self._tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        self._tokenizer.encode_special_tokens = True  # encode their spelling, not them
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        special = {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        self.eos, self.bos, self.pad = (next((n for n in names if n in special), None) for names in (EOS, BOS, PAD))
        self._fast = Fast.of(self._tokenizer) if engine == "auto" else None

    @property
    def engine(self) -> str:
        return "fastokens" if self._fast else "tokenizers"

    def id_of(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encode(self, texts: list[str]) -> Encoded:
        return self._fast.encode(texts) if self._fast else _by_tokenizers(self._tokenizer, texts)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


class Fast:
    """`fastokens` in the place of `tokenizers`, for the files that it reads the same way, and never on trust.

    It is used for byte-level BPE with one of SPLITS, no normalizer and no added tokens but special ones, and then only
    if it encodes TRIALS and every token of the vocabulary as `tokenizers` does. While it works, documents are encoded
    by both where the bytes of the ids are not as many as those of the text, and one in CHECKED_SHARE by hash of text.
    """

    def __init__(self, reference: tokenizers.Tokenizer, spec: dict[str, Any], misread: str | None) -> None:
        self._reference = reference
        self._misread = misread
        vocab: dict[str, int] = spec["model"]["vocab"]
        self._widths = np.zeros(max(vocab.values()) + 1, np.int64)
        self._widths[list(vocab.values())] = [len(token) for token in vocab]  # a character of theirs is a byte
        plain = spec | {"added_tokens": [], "post_processor": None}  # so that no text can be a special token
        self._fast = fastokens.Tokenizer.from_json_str(orjson.dumps(plain).decode())

    @classmethod
    def of(cls, reference: tokenizers.Tokenizer) -> Fast | None:
        """None where `tokenizers` has to do the work: it depends on the file alone."""
        spec = orjson.loads(reference.to_str())
        split, model, added = _split(spec["pre_tokenizer"]), spec["model"], spec["added_tokens"]
        if split not in SPLITS or spec["normalizer"] or model["type"] != "BPE":
            return None
        variants = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if any(model[name] for name in variants) or not all(token["special"] for token in added):
            return None
        if not model["vocab"].keys() >= set(pre_tokenizers.ByteLevel.alphabet()):  # text would be lost
            return None
        try:
            fast = cls(reference, spec, SPLITS[split])
        except ValueError:
            return None
        named = [f"{token['content']} a{token['content']}b" for token in added]
        every = reference.decode_batch([[i] for i in range(len(fast._widths))], skip_special_tokens=False)
        trials = [*TRIALS, *named, *every]
        theirs, ours = _by_tokenizers(reference, trials), fast._by_fastokens(trials)
        same = np.array_equal(theirs.lengths, ours.lengths) and np.array_equal(theirs.ids, ours.ids)
        return fast if same else None

    def encode(self, texts: list[str]) -> Encoded:
        """ValueError where the engines differ."""
        if self._misread and any(self._misread in text for text in texts):
            return _by_tokenizers(self._reference, texts)
        encoded = self._by_fastokens(texts)
        raw = [text.encode() for text in texts]
        ends = np.cumsum(encoded.lengths)
        seen = np.concatenate([[0], np.cumsum(self._widths[encoded.ids])])
        suspect = seen[ends] - seen[ends - encoded.lengths] != [len(data) for data in raw]
        suspect |= np.array([xxhash.xxh3_64_intdigest(data) % CHECKED_SHARE == 0 for data in raw], np.bool_)
        for i in np.flatnonzero(suspect):
            self._compare(texts[i], encoded.ids[ends[i] - encoded.lengths[i] : ends[i]])
        return encoded

    def _by_fastokens(self, texts: list[str]) -> Encoded:
        ids, offsets = self._fast.encode_batch_flat(texts)
        ends = np.frombuffer(offsets, np.int64)
        return Encoded(np.frombuffer(ids, np.int32), ends[1:] - ends[:-1])

    def _compare(self, text: str, ids: NDArray[np.int32]) -> None:
        right = _by_tokenizers(self._reference, [text]).ids
        if np.array_equal(ids, right):
            return
        size = min(len(ids), len(right))
        at = int(np.argmax(np.append(ids[:size] != right[:size], True)))
        before = self._reference.decode(right[:at].tolist(), skip_special_tokens=False)
        raise ValueError(
            f"fastokens and tokenizers differ from token {at} of a document on, {text[len(before) :][:40]!r}: give the"
            f" tokenizer `engine: tokenizers` ({ids[at : at + 4].tolist()}, {right[at : at + 4].tolist()})"
        )


def _split(spec: dict[str, Any] | None) -> str | None:
    """Which of SPLITS a pre-tokenizer does, if it is one that can do them."""
    spec = spec or {"type": None}
    if spec["type"] == "ByteLevel":
        return GPT2_SPLIT if spec["use_regex"] and not spec["add_prefix_space"] else None
    if spec["type"] != "Sequence" or [part["type"] for part in spec["pretokenizers"]] != ["Split", "ByteLevel"]:
        return None
    split, level = spec["pretokenizers"]
    plain = split["behavior"] == "Isolated" and not (split["invert"] or level["use_regex"] or level["add_prefix_space"])
    pattern: str | None = split["pattern"].get("Regex")
    return pattern if plain else None


def _by_tokenizers(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> Encoded:
    return _flat([e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)])


class Tiktoken:
    """A ranks file (`base64 rank` a line) with the pattern that splits text and the ids of special tokens."""

    engine: ClassVar[str] = "tiktoken"

    def __init__(self, data: bytes, pattern: str, special: dict[str, int]) -> None:
        ranks: dict[bytes, int] = {}
        for number, line in enumerate(data.splitlines(), 1):
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as error:
                raise ValueError(f"line {number} is not `base64 rank`") from error
        if not ranks:
            raise ValueError("it is empty")
        self._special = special or {EOS[0]: max(ranks.values()) + 1}
        self._encoding = tiktoken.Encoding(
            "corpus", pat_str=pattern, mergeable_ranks=ranks, special_tokens=self._special
        )
        self.vocab_size = self._encoding.max_token_value + 1
        self.eos, self.bos, self.pad = (
            next((n for n in names if n in self._special), None) for names in (EOS, BOS, PAD)
        )

    def id_of(self, token: str) -> int | None:
        return self._special.get(token)

    def encode(self, texts: list[str]) -> Encoded:
        arrays = [self._one(text) for text in texts]
        lengths = np.array([-1 if a is None else len(a) for a in arrays], np.int64)
        found = [a for a in arrays if a is not None]
        return Encoded(np.concatenate(found).astype(np.int32) if found else np.zeros(0, np.int32), lengths)

    def _one(self, text: str) -> NDArray[np.uint32] | None:
        try:
            return self._encoding.encode_to_numpy(text, disallowed_special=())
        except ValueError:  # its pattern ran out of stack: a megabyte of blanks does that
            return None

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(list(ids))


class SentencePiece:
    """A SentencePiece .model; its control symbols are never matched in text."""

    engine: ClassVar[str] = "sentencepiece"

    def __init__(self, data: bytes) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        self.vocab_size = int(self._processor.vocab_size())
        self.eos, self.bos, self.pad = (
            str(self._processor.id_to_piece(i)) if i >= 0 else None
            for i in (self._processor.eos_id(), self._processor.bos_id(), self._processor.pad_id())
        )

    def id_of(self, token: str) -> int | None:
        found = int(self._processor.piece_to_id(token))
        return None if found == self._processor.unk_id() else found

    def encode(self, texts: list[str]) -> Encoded:
        return _flat(self._processor.encode(texts, out_type=int, num_threads=1))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(ids)))


def _flat(lists: list[list[int]]) -> Encoded:
    lengths = np.array([len(ids) for ids in lists], np.int64)
    return Encoded(np.fromiter(itertools.chain.from_iterable(lists), np.int32, int(lengths.sum())), lengths)


TRIALS = (
    "",
    *(c * n for c in " \n\t\r\u00a0\u3000a7-'" for n in (1, 2, 3, 17, 5000)),
    "\r\n\r\n \t x\n \n  \n y \u0085z\u2028\u2029\u180e\u200b\ufeff",
    "I'm we'll THEY'RE she'D it's IT'S 'tis don''t 'S'll'",
    "1 12 123 1234 12345678901234567890 3.14 -1e-9 0x1F 1,000,000 \u0663\u0664 ½ Ⅳ \uff11\uff12",
    "def f(x):\n\treturn {k: v**2 for k, v in x.items() if k != '__a__'}  # TODO\n\n\nprint(f({}));;//**/\n",
    '<a href="https://example.org/?q=1&r=%20#x">A\\b</a> <|endoftext|><|im_start|> </s> [PAD] <0x0A>',
    "naïve nai\u0308ve A\u030a\u0327\u0301 \u1100\u1161\u11a8 \u0300x Straße \u0130stanbul \ufb01 \u01c5",
    "Мельница μύλος טחנה \u202eطاحونة\u200f नमस्ते โรงสี 물레방아 \u30ab\uff9e",
    "水車が回る。\uff34\uff25\uff38\uff34 \U00020000\U0002a6df \U0001d538\U0001d7d8 ©™",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f\U0001f44d\U0001f3fd",
    "".join(map(chr, range(0x300))) + "\ue000\uf8ff\ufdd0\ufffe\uffff\ufffd\U0010ffff\U000e0001",
    "Donaudampfschifffahrtsgesellschaft" * 50 + "aAbB" * 500 + "x1" * 500 + ".-" * 500 + " \n" * 500,
)
