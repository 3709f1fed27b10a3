"""Evaluation sets: their files, the items in these, and the index that is made of them (operators/dedup/ngrams.py)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from operators.dedup.ngrams import Index, Keys, indexed, item_keys
from operators.document import Pinned

MOST_BYTES = 1 << 30  # of an evaluation set, decompressed
CODECS = {"gz": "gzip", "zst": "zstd"}


@dataclass(frozen=True)
class EvaluationSets:
    """What makes an index: (name, file, fields) of each set, and which n-grams are keys."""

    sets: tuple[tuple[str, Pinned, tuple[str, ...]], ...]
    ngram: int
    shortest: int

    def load(self) -> Index:
        """Raises ValueError naming a set and what is wrong with it."""
        found: list[Keys] = []
        for name, file, fields in self.sets:
            try:
                texts = list(items(file, fields))
            except ValueError as error:
                raise ValueError(f"sets.{name}: {file.path}: {error}") from None
            keys = item_keys([form for text in texts for form in _forms(text)], self.ngram, self.shortest)
            if not len(keys.key):
                raise ValueError(
                    f"sets.{name}: {file.path}: no item of at least {self.shortest} words, of {len(texts)}"
                )
            found.append(keys)
        of = np.repeat(np.arange(len(found)), [len(keys.key) for keys in found])
        together = Keys._make(np.concatenate(columns) for columns in zip(*found, strict=True))
        return indexed(together, of, [name for name, _, _ in self.sets], self.shortest)


def items(file: Pinned, fields: Sequence[str]) -> Iterator[str]:
    """The texts of a set's items: of each item every string in it, or those of `fields`; of lists every string.
    JSON lines, also as .gz or .zst, or Parquet. Raises ValueError."""
    data = file.read()
    seen: set[str] = set()
    size = 0
    for row in _parquet(data, fields) if data[:4] == b"PAR1" else _lines(_plain(file.path, data)):
        for name in fields or row:
            if name in row:
                seen.add(name)
                for text in _strings(row[name]):
                    size = _within_bounds(size + len(text))  # values that a Parquet file has once may be in all items
                    yield text
    if missing := [name for name in fields if name not in seen]:
        raise ValueError(f"no item has a field {missing[0]!r}")


def _parquet(data: bytes, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    size = 0
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [name for name in file.schema_arrow.names if not fields or name in fields]
        for batch in file.iter_batches(64, columns=names):
            size = _within_bounds(size + batch.nbytes)
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a Parquet file that can be read: {error}") from error


def _plain(path: str, data: bytes) -> bytes:
    if codec := CODECS.get(path.rpartition(".")[2]):
        try:
            data = pa.CompressedInputStream(pa.BufferReader(data), codec).read(MOST_BYTES + 1)
        except OSError as error:
            raise ValueError(f"cannot be decompressed: {error}") from error
    _within_bounds(len(data))
    return data


def _within_bounds(size: int) -> int:
    if size > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return size


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield row


def _strings(value: Any) -> Iterator[str]:
    """The strings in a JSON value, each an item of its own."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            stack.extend(reversed(one.values()))
        elif isinstance(one, (list, tuple)):
            stack.extend(reversed(one))


def _forms(text: str) -> set[str]:
    """The text, composed as cleaned texts are, and in capitals where these are more letters: ß is SS."""
    capitals = text.upper()
    return {text, unicodedata.normalize("NFC", text), text if len(capitals) == len(text) else capitals}
