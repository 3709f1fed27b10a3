"""Finds personal data and keys in text, and replaces or masks them or drops the document.

What is found, and what passes for it, is the table in pii_patterns.py: rules, no model, as datatrove applied to FineWeb
(arXiv:2406.17557) and Dolma (arXiv:2402.00159), so names and postal addresses are not found. Addresses that nobody
outside a network can reach, those of documentation (192.0.2.1, example.com) and numbers for fiction (415-555-0123) are
nobody's: they are left alone, and are what to take for placeholders that look real.

The result is looked at again until nothing is found in it, so that the operator never finds anything in its own output.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Operator, Rule, drop, drop_by_rules, parameters, utf8, with_columns
from operators.text.pii_patterns import Spans, find
from operators.text.pii_tables import DIGIT, KINDS, LOWER, UPPER, tables
from operators.text.segment import frozen

Kind = Literal["email", "ip", "phone", "iban", "card", "secret"]
ROUNDS = 8  # of looking again; random text took three
STAR = 42


@parameters
class Pii(Operator):
    """Replaces `text`, or drops documents as `found` or `too_many`; adds the number of finds, one column a kind.

    What is left of a document that is dropped as `too_many` is without the finds, too. Nulls have none.
    """

    name: ClassVar[str] = "pii"
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("email", "ip", "phone", "iban", "card", "secret")
    action: Literal["replace", "mask", "drop"] = "replace"  # mask: a star for each letter and digit
    placeholders: dict[Kind, str] = Field(default_factory=dict)  # for kinds not named: <email>, <ip>, ...
    max_found: Annotated[int, Field(ge=0)] | None = None  # documents with more are dropped; Dolma: 5
    public_ips_only: bool = True  # otherwise also private, reserved and documentation addresses
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.placeholders and self.action != "replace":
            raise ValueError(f"placeholders: action {self.action} uses none")
        if self.max_found is not None and self.action == "drop":
            raise ValueError(f"max_found: {self.max_found} does nothing, action drop drops for any find")
        for kind, text in self.placeholders.items():
            if kind not in self.kinds:
                raise ValueError(f"placeholders: {kind} is not among kinds")
            if self._find(*utf8(pa.array([text], pa.large_string()))).row.size:
                raise ValueError(f"placeholders: {text!r} for {kind} would be found itself")
        return self

    @property
    def adds(self) -> tuple[str, ...]:
        return tuple(f"pii_{kind}" for kind in KINDS if kind in self.kinds)

    @property
    def counts(self) -> tuple[str, ...]:
        return self.adds

    def __call__(self, docs: pa.Table) -> pa.Table:
        texts = pa.concat_arrays([pa.array([], pa.large_string()), *docs["text"].cast(pa.large_string()).chunks])
        found = np.zeros((len(KINDS), docs.num_rows), np.int32)
        part, rows = texts, np.arange(docs.num_rows)  # what is looked at, and which rows of `docs` that is
        for _ in range(ROUNDS):
            data, offsets = utf8(part)
            spans = self._find(data, offsets)
            np.add.at(found, (spans.kind, rows[spans.row]), 1)
            changed = np.unique(spans.row)
            if not changed.size or self.action == "drop":
                break
            part, rows = self._rewritten(data, offsets, changed, spans), rows[changed]
            mask = np.zeros(docs.num_rows, np.bool_)
            mask[rows] = True
            texts = pc.replace_with_mask(texts, pa.array(mask), part)
        columns = {f"pii_{kind}": pa.array(found[k]) for k, kind in enumerate(KINDS) if kind in self.kinds}
        return self._dropped(with_columns(docs, {"text": texts, **columns}), found)

    def _dropped(self, docs: pa.Table, found: NDArray[np.int32]) -> pa.Table:
        total = found.sum(axis=0).astype(np.float64)
        if self.action == "drop":
            most = pa.array(KINDS).take(pa.array(found.argmax(axis=0)))
            reason = pc.if_else(pa.array(total > 0), "found", pa.scalar(None, pa.string()))
            return drop(docs, reason, value=total, threshold=0.0, detail=most)
        most_allowed = np.inf if self.max_found is None else self.max_found
        return drop_by_rules(docs, [Rule("too_many", total > most_allowed, total, most_allowed)])

    def _find(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Spans:
        return find(frozen(data), frozen(offsets), self.kinds, self.public_ips_only)

    def _rewritten(
        self, data: NDArray[np.uint8], offsets: NDArray[np.int64], changed: NDArray[np.int64], spans: Spans
    ) -> pa.Array:
        """The changed rows without the finds."""
        words = [self.placeholders.get(kind, f"<{kind}>").encode() for kind in KINDS]  # type: ignore[call-overload]
        bounds = np.cumsum([0, *map(len, words)])
        sizes = np.diff(bounds)
        most = int((offsets[changed + 1] - offsets[changed]).sum() + sizes[spans.kind].sum())
        kept, ends = np.empty(max(most, 1), np.uint8), np.zeros(changed.size + 1, np.int64)
        placeholders = np.frombuffer(b"".join(words) or b"\0", np.uint8)
        stars = np.where(tables().classes & (DIGIT | UPPER | LOWER), STAR, 0).astype(np.uint8)
        masking = self.action == "mask"
        _rewrite(frozen(data), frozen(offsets), changed, spans, (placeholders, bounds, stars, masking), (kept, ends))
        return pa.LargeStringArray.from_buffers(changed.size, pa.py_buffer(ends), pa.py_buffer(kept[: int(ends[-1])]))


@njit(nogil=True, cache=True)
def _rewrite(data, offsets, changed, spans, instead, out):  # type: ignore[no-untyped-def]
    placeholders, bounds, stars, masking = instead
    kept, ends = out
    rows, starts, stops, kinds = spans
    size = np.uint64(0)
    s = 0
    for c in range(changed.shape[0]):
        i, end = np.uint64(offsets[changed[c]]), np.uint64(offsets[changed[c] + 1])
        while s < rows.shape[0] and rows[s] == changed[c]:
            start, stop = np.uint64(starts[s]), np.uint64(stops[s])
            while i < start:
                kept[size] = data[i]
                size += np.uint64(1)
                i += np.uint64(1)
            while masking and i < stop:
                b = data[i]
                letter = 0xC3 <= b <= 0xDF  # of two bytes; what else is not ASCII in a find stands between groups
                kept[size] = STAR if letter or stars[b] else b
                size += np.uint64(1)
                i += np.uint64(2) if letter else np.uint64(1)
            if not masking:
                for k in range(bounds[kinds[s]], bounds[kinds[s] + 1]):
                    kept[size] = placeholders[np.uint64(k)]
                    size += np.uint64(1)
            i = stop
            s += 1
        while i < end:
            kept[size] = data[i]
            size += np.uint64(1)
            i += np.uint64(1)
        ends[c + 1] = size
