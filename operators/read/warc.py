"""WARC and WET files (ISO 28500): records found by their own framing, so that damage costs what it touches only.

A record counts if its headers parse and the bytes after its Content-Length are the end or another record. Reading
goes on at the next `WARC/1.x` line, or at the next gzip member that starts with one; what lies between is one
quarantined span. fastwarc's own iterator hides all of this: it returns truncated records as short ones.
Reading can start at any record and then gives what reading from the start gives from there on.

A record must lie within one gzip member (true of all crawlers; not of bgzip), which may hold many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from operators.read.http import parse_response
from operators.read.members import Member, begins_with, breaks_off, next_member
from operators.read.rows import Doc, Rows
from operators.read.span import LIMIT, Batch, Span, Unfit, Unreadable, codec_of, fallback_id, text_of
from operators.read.streams import CHUNK, BrokenStream, Raw

_BEGIN = b"WARC/"
_START = re.compile(rb"WARC/[01]\.\d{1,2}\r\n(?=[A-Za-z])")
_START_BYTES = 16
_HEADER = re.compile(
    rb"^(warc-type|warc-record-id|warc-target-uri|warc-date|content-length|content-type):[ \t]*([^\r\n]*)", re.I | re.M
)
_USUAL_HEAD = 2 << 10
_MOST_HEAD = 64 << 10
_HTTP_HEAD = 1 << 20  # a payload of LIMIT bytes may have that much before it
_CONTENT_LENGTH = re.compile(rb"\d{1,19}")


class _Stream(Protocol):
    broken: BrokenStream | None

    def read(self, at: int, n: int) -> bytes: ...


class _Record(NamedTuple):
    at: int
    next: int
    headers: dict[bytes, bytes]
    content: bytes | None  # None: too large, or not asked for


class _Bad(NamedTuple):
    at: int
    next: int  # -1: to the end of the stream
    reason: str
    detail: str


class _Placed(NamedTuple):
    """A frame and its place in the file: `inner` bytes into the member at `at`, or simply at `at`."""

    at: int
    length: int
    inner: int
    frame: _Record | _Bad


def read_warc(span: Span, raw: Raw) -> Iterator[Batch]:
    """Documents of the records that start in the span."""
    if span.start == 0:
        check_warc(span, raw)
    rows = Rows(span)
    for placed in _frames_of_file(span, raw, contents=True):
        if 0 <= span.end <= placed.at:
            break
        _add(rows, placed)
        if rows.full:
            yield rows.take()
    if rows:
        yield rows.take()


def check_warc(span: Span, raw: Raw) -> None:
    """Raise Unreadable for a file that neither starts as WARC nor holds a record anywhere."""
    if raw.size == 0:
        return
    if codec_of(span.rel):
        known = begins_with(raw, 0, _BEGIN) or next_member(raw, 0, _BEGIN) is not None
    else:
        known = raw.read(0, len(_BEGIN)) == _BEGIN or _find_start(raw, 0) is not None
    if not known:
        raise Unreadable("holds no WARC record")


def warc_offsets(span: Span, raw: Raw) -> Iterator[int]:
    """Where a file can be cut: offsets of good records, of the first in a member."""
    for placed in _frames_of_file(span, raw, contents=False):
        if isinstance(placed.frame, _Record) and placed.inner == 0:
            yield placed.at


def _frames_of_file(span: Span, raw: Raw, *, contents: bool) -> Iterator[_Placed]:
    if not codec_of(span.rel):
        for frame in _frames(raw, span.start, contents=contents):
            end = frame.next if frame.next >= 0 else raw.size
            yield _Placed(frame.at, end - frame.at, 0, frame)
        return
    at = span.start
    while at < raw.size:
        member = Member(raw, at)
        end = -1
        for frame in _frames(member, 0, contents=contents):
            if isinstance(frame, _Bad) and frame.next < 0:
                end = _after_damage(raw, at) if member.broken else member.end
                if member.broken and breaks_off(raw, at, end):
                    frame = frame._replace(reason="truncated_record")
                yield _Placed(at, end - at, frame.at, frame)
            else:
                yield _Placed(at, -1, frame.at, frame)
        if end < 0:
            end = _after_damage(raw, at) if member.broken else member.end
        at = end


def _after_damage(raw: Raw, at: int) -> int:
    found = next_member(raw, at + 1, _BEGIN)
    return raw.size if found is None else found


def _frames(stream: _Stream, at: int, *, contents: bool) -> Iterator[_Record | _Bad]:
    """Records and the bad spans between them, from `at` to the end of the stream."""
    while True:
        head = stream.read(at, _USUAL_HEAD)
        if head[:1] in (b"\r", b"\n"):
            at += len(head) - len(head.lstrip(b"\r\n"))
            continue
        if not head:
            if stream.broken:
                yield _Bad(at, -1, "bad_record", str(stream.broken))
            return
        frame = _frame(stream, at, head, contents=contents)
        if isinstance(frame, _Bad):
            frame = _judged(frame, _find_start(stream, at + 1), stream.broken)
        yield frame
        if frame.next < 0:
            return
        at = frame.next


def _judged(frame: _Bad, found: int | None, broken: BrokenStream | None) -> _Bad:
    """The bad frame up to where reading goes on. A record that claims more than there is was truncated."""
    if found is not None:
        return frame._replace(next=found, reason="truncated_record" if frame.next > found else "bad_record")
    return frame._replace(next=-1, detail=str(broken) if broken else frame.detail)


def _frame(stream: _Stream, at: int, head: bytes, *, contents: bool) -> _Record | _Bad:
    """The record at `at`. In a bad frame `next` is where the record claims to end."""
    if not head.startswith(_BEGIN):
        return _Bad(at, at, "bad_record", f"no record starts here: {head[:20]!r}")
    stop = head.find(b"\r\n\r\n")
    if stop < 0:
        head = stream.read(at, _MOST_HEAD)
        stop = head.find(b"\r\n\r\n")
        if stop < 0:
            cut = len(head) < _MOST_HEAD
            return _Bad(at, at, "truncated_record" if cut else "bad_record", "the record's headers do not end")
    headers = {name.lower(): value.strip() for name, value in _HEADER.findall(head, 0, stop)}
    stated = headers.get(b"content-length", b"")
    if not _CONTENT_LENGTH.fullmatch(stated) or b"warc-type" not in headers:
        return _Bad(at, at, "bad_record", f"no WARC-Type or no Content-Length: {stated[:20]!r}")
    length = int(stated)
    body = at + stop + 4
    end = body + length
    content = None
    if contents and length <= LIMIT + _HTTP_HEAD:
        content = stream.read(body, length)
        there = len(content) == length
    else:
        there = length == 0 or bool(stream.read(end - 1, 1))
    if not there:
        return _Bad(at, end, "truncated_record", f"Content-Length {length} is more than there is")
    tail = stream.read(end, 4 + len(_BEGIN))
    if stream.broken and len(tail) < 4 + len(_BEGIN):
        return _Bad(at, end, "bad_record", str(stream.broken))
    if tail.startswith(b"\r\n\r\n"):
        return _Record(at, end + 4, headers, content)
    rest = tail.lstrip(b"\r\n")
    if not rest or rest.startswith(_BEGIN):
        return _Record(at, end + len(tail) - len(rest), headers, content)
    return _Bad(at, end, "bad_record", f"Content-Length {length} does not lead to a record's end")


def _find_start(stream: _Stream, at: int) -> int | None:
    """Where the next record starts, at or after `at`."""
    while piece := stream.read(at, CHUNK):
        if match := _START.search(piece):
            return at + match.start()
        if len(piece) < CHUNK:
            return None
        at += CHUNK - _START_BYTES
    return None


def _add(rows: Rows, placed: _Placed) -> None:
    frame = placed.frame
    position = f"{placed.at}+{placed.inner}" if placed.inner else str(placed.at)
    if isinstance(frame, _Bad):
        detail = f"{placed.inner} bytes into the member: {frame.detail}" if placed.inner else frame.detail
        rows.bad(placed.at, placed.length, frame.reason, detail, position=position)
        return
    headers = frame.headers
    kind = headers.get(b"warc-type", b"").lower()
    if kind not in (b"response", b"resource", b"conversion"):
        return
    given = headers.get(b"warc-record-id", b"").decode("utf-8", "replace")
    identity = given.strip("<> ").removeprefix("urn:uuid:")
    try:
        page = _page(kind, frame)
    except Unfit as error:
        rows.bad(placed.at, placed.length, error.reason, str(error), id=identity, position=position)
        return
    if page is not None:
        url = headers.get(b"warc-target-uri", b"").decode("utf-8", "replace").strip("<> ")
        date = headers.get(b"warc-date", b"").decode("utf-8", "replace")
        size = len(page.text or page.payload or "")
        rows.add(Doc(identity or fallback_id(rows.rel, position), *page, url or None, date or None, size))


class _Page(NamedTuple):
    text: str | None
    payload: bytes | None
    content_type: str | None


def _page(kind: bytes, record: _Record) -> _Page | None:
    """What the record holds; None for a stored DNS answer and the like. Raises Unfit."""
    media = record.headers.get(b"content-type", b"").decode("utf-8", "replace")
    if record.content is None:
        raise Unfit("too_large", f"Content-Length {record.headers[b'content-length'].decode()}")
    if kind == b"conversion":
        return _Page(text_of(record.content), None, media or None)
    if kind == b"response":
        if not media.lower().startswith("application/http") and not record.content.startswith(b"HTTP/"):
            return None
        body, content_type = parse_response(record.content)
    else:
        body, content_type = record.content, media or None
    if len(body) > LIMIT:
        raise Unfit("too_large", f"{len(body)} bytes")
    return _Page(None, body, content_type)
