"""Tokenizers from files, behind one small protocol: text in, flat token ids out, and no text becomes a special token.

Three traps are closed here for all of them. Untrusted text that spells a special token (`<|endoftext|>`) is encoded as
plain text. Post-processing, truncation and padding that a tokenizer.json brings along are switched off. tiktoken's
own loader would copy ranks into a cache folder, so the ranks file is parsed here. Nothing is ever downloaded.

The ids of a tokenizer.json are by definition those of the `tokenizers` library. `fastokens` gives the same ids at a
multiple of the speed for byte-level BPE; which of the two encodes is a property of the file (fast.py).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import orjson
import re2
import sentencepiece
import tiktoken
import tokenizers
from numpy.typing import NDArray

from operators.document import Pinned
from operators.tokens.fast import Encoded, Fast, by_tokenizers, flat

# One thread a process: Ray runs as many processes as there are cores. All are read when work starts.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")  # with more it also keeps every word it has seen

EOS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|im_end|>")
BOS = ("<|startoftext|>", "<s>", "<|begin_of_text|>", "<bos>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>")
PAD = ("<pad>", "<|pad|>", "<|padding|>", "[PAD]", "<|finetune_right_pad_id|>")

Engine = Literal["auto", "tokenizers"]


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
        return self._fast.encode(texts) if self._fast else by_tokenizers(self._tokenizer, texts)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


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
        _check_pattern(pattern)
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


def _check_pattern(pattern: str) -> None:
    """ValueError for a pattern that could take for ever on some text, or that matches nothing at all.

    Patterns without look-around run in linear time, and so do the published ones, whose only look-ahead is the branch
    `\\s+(?!\\S)`. RE2 takes exactly the former. Possessive repeats change what matches, not how long it takes.
    """
    plain = re.sub(r"(?<=[+*?}])\+", "", pattern.replace(r"|\s+(?!\S)", "").replace(r"|\s+$", ""))
    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(plain, options)
    except re2.error as error:
        raise ValueError(f"pattern: {pattern!r} is no pattern of linear time: {error}") from error
    if found.fullmatch(""):
        raise ValueError(f"pattern: {pattern!r} matches nothing at all, so it does not split text")


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
        return flat(self._processor.encode(texts, out_type=int, num_threads=1))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(ids)))
