"""Files that are one document each: a page (`.html`) or a text (`.txt`, `.md`), plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator

from operators.read.rows import Doc, Rows
from operators.read.span import LIMIT, Batch, Span, Unfit, codec_of, fallback_id, text_of
from operators.read.streams import BrokenStream, Raw, check_magic, decoded


def check_file(span: Span, raw: Raw) -> None:
    """Raise Unreadable for a compressed file that is none."""
    check_magic(raw, codec_of(span.rel))


def read_file(span: Span, raw: Raw) -> Iterator[Batch]:
    """The document, or why there is none. An empty file is no document."""
    check_file(span, raw)
    rows = Rows(span)
    identity = fallback_id(span.rel, 0)
    try:
        data = _content(span, raw)
        text = text_of(data) if span.format == "text" else None
        if data:
            payload, content_type = (data, "text/html") if text is None else (None, None)
            rows.add(Doc(identity, text, payload, content_type, None, None, len(data)))
    except Unfit as error:
        rows.bad(0, raw.size, error.reason, str(error))
    if rows:
        yield rows.take()


def _content(span: Span, raw: Raw) -> bytes:
    pieces = []
    size = 0
    try:
        for piece in decoded(raw, codec_of(span.rel)):
            pieces.append(piece)
            size += len(piece)
            if size > LIMIT:
                raise Unfit("too_large", f"over {LIMIT} bytes decoded")
    except BrokenStream as error:
        raise Unfit("truncated_stream", str(error)) from error
    return b"".join(pieces)
