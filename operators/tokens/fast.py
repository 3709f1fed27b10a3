"""The ids of a tokenizer.json at a multiple of the speed of `tokenizers`, where they proved to be the same."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import fastokens
import numpy as np
import orjson
import tokenizers
import xxhash
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

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
        theirs, ours = by_tokenizers(reference, trials), fast._by_fastokens(trials)
        same = np.array_equal(theirs.lengths, ours.lengths) and np.array_equal(theirs.ids, ours.ids)
        return fast if same else None

    def encode(self, texts: list[str]) -> Encoded:
        """ValueError where the engines differ."""
        if self._misread and any(self._misread in text for text in texts):
            return by_tokenizers(self._reference, texts)
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
        right = by_tokenizers(self._reference, [text]).ids
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


def by_tokenizers(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> Encoded:
    return flat([e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)])


def flat(lists: list[list[int]]) -> Encoded:
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
