"""JSON Lines: one object a line, plain (readable from any byte on) or compressed.

A line belongs to the span in which it starts. Columns that the recipe does not map pass through as strings: a
string as it is, any other value as compact JSON, null as null. So the type of a column never depends on which rows
happen to be in a batch. A bad line is one row of quarantine; where a compressed stream breaks, the lines before
count and what follows is one row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from operators.read.rows import Doc, Provenance, Rows, passed_name
from operators.read.span import LIMIT, Batch, Fields, Span, Unfit, codec_of, fallback_id
from operators.read.streams import CHUNK, BrokenStream, Raw, check_magic, decoded

_BOM = b"\xef\xbb\xbf"
_DETAIL = 80
MOST_KEYS = 1000  # of a line


class _Line(NamedTuple):
    at: int
    data: bytes | None  # None: longer than LIMIT
    length: int


def check_jsonl(span: Span, raw: Raw) -> None:
    """Raise Unreadable for a compressed file that is none."""
    check_magic(raw, codec_of(span.rel))


def jsonl_offsets(span: Span, raw: Raw, target: int) -> list[int]:
    """Where to cut a plain file: anywhere."""
    return [] if codec_of(span.rel) else list(range(target, raw.size, max(target, 1)))  # of an empty file nowhere


def read_jsonl(span: Span, raw: Raw, fields: Fields) -> Iterator[Batch]:
    """Documents of the lines that start in the span."""
    check_jsonl(span, raw)
    rows = Rows(span)
    reader = _Objects(span, fields, rows)
    for line in _lines(span, raw, rows):
        reader.add(line)
        if rows.full:
            yield rows.take()
    if rows:
        yield rows.take()


def _lines(span: Span, raw: Raw, rows: Rows) -> Iterator[_Line]:
    """Lines that start in the span. A break of the stream is noted in `rows`."""
    pieces = _pieces(raw, span.start - 1) if span.start else decoded(raw, codec_of(span.rel))
    at = max(span.start - 1, 0)  # of the line that is being read
    skipping = span.start > 0  # the rest of a line that starts before the span
    held: list[bytes] = []
    length = 0  # of what is held, or was thrown away of a line that is too long
    try:
        for piece in pieces:
            first, *rest = piece.split(b"\n")
            length += len(first)
            if length <= LIMIT and not skipping:
                held.append(first)
            elif held:
                held = []
            for following in rest:
                if not skipping:
                    yield _Line(at, b"".join(held) if length <= LIMIT else None, length)
                skipping = False
                at += length + 1
                if 0 <= span.end <= at:
                    return
                held, length = [following], len(following)
    except BrokenStream as error:
        rows.bad(at, -1, "truncated_stream", str(error))
        return
    except Unfit as error:
        rows.bad(at, -1, error.reason, str(error))
        return
    if length and not skipping:
        yield _Line(at, b"".join(held) if length <= LIMIT else None, length)


def _pieces(raw: Raw, at: int) -> Iterator[bytes]:
    while piece := raw.read(at, CHUNK):
        yield piece
        at += len(piece)


class _Objects:
    """Turns lines into documents."""

    def __init__(self, span: Span, fields: Fields, rows: Rows) -> None:
        self._span = span
        self._rows = rows
        self._text = fields.text or "text"
        self._id, self._needs_id = fields.id or "id", fields.id is not None
        self._url, self._date = fields.url or "url", fields.date or "date"
        self._mapped = frozenset([self._text, self._id, self._url, self._date])

    def add(self, line: _Line) -> None:
        """The line's document or its row of quarantine; nothing for a blank line."""
        identity = ""
        try:
            if line.data is None:
                raise Unfit("line_too_long", f"over {LIMIT} bytes")
            data = line.data.removeprefix(_BOM) if line.at == 0 else line.data
            if not data or data.isspace():
                return
            values = _parse(data)
            identity = _as_string(values.get(self._id)) or ""
            self._add(line, identity, values)
        except Unfit as error:
            self._rows.bad(line.at, line.length, error.reason, str(error), id=identity)

    def _add(self, line: _Line, identity: str, values: dict[str, Any]) -> None:
        text = values.get(self._text)
        if not isinstance(text, str):
            raise Unfit("no_text", f"{self._text} is {type(text).__name__}")
        if "\0" in text:
            raise Unfit("nul", f"character {text.index(chr(0))}")
        if not identity:
            if self._needs_id:
                raise Unfit("no_id", self._id)
            identity = fallback_id(self._span.rel, line.at)
        url, date = _as_string(values.get(self._url)), _as_string(values.get(self._date))
        extras = {key: value for key, value in values.items() if key not in self._mapped}
        provenance = self._provenance(extras) if extras else None
        passed = {passed_name(key): _as_string(value) for key, value in extras.items()}
        self._rows.add(Doc(identity, text, None, None, url, date, line.length), provenance, passed)

    def _provenance(self, extras: dict[str, Any]) -> Provenance:
        """Source, priority and weight: the recipe's where it states them, else the row's, which are taken out."""
        span = self._span
        source, priority, weight = span.source, span.priority, span.weight
        if source is None and isinstance(extras.get("source"), str):
            source = extras.pop("source")
        if priority == 0 and isinstance(given := extras.get("priority"), int) and abs(given) < 1 << 31:
            priority = int(extras.pop("priority"))
        if weight == 1.0 and isinstance(given := extras.get("weight"), (int, float)) and math.isfinite(given):
            weight = float(extras.pop("weight"))
        return source, priority, weight


def _as_string(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:  # nested more deeply than orjson writes
        raise Unfit("too_nested", str(error)) from error


def _parse(data: bytes) -> dict[str, Any]:
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _diagnosed(data, error) from error
    if not isinstance(values, dict):
        raise Unfit("not_an_object", type(values).__name__)
    if len(values) > MOST_KEYS:
        raise Unfit("too_large", f"{len(values)} keys, at most {MOST_KEYS}")
    return values


def _diagnosed(data: bytes, error: orjson.JSONDecodeError) -> Unfit:
    """Why a line is no JSON. Python's parser is laxer than orjson: it takes lone surrogates."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return Unfit("invalid_utf8", f"byte {wrong.start}: {wrong.reason}")
    try:
        strict = json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
        strict.encode("utf-8")
    except UnicodeEncodeError as wrong:
        return Unfit("lone_surrogate", f"U+{ord(wrong.object[wrong.start]):04X}")
    except (ValueError, RecursionError):
        pass
    return Unfit("bad_json", str(error)[:_DETAIL])
