"""The body of a stored HTTP response: transfer and content encodings undone, in bounded memory.

Crawlers often store the decoded body under the headers of the encoded one. A body that does not start as its
header says is therefore taken as it is; one that starts so and then breaks is an error.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import NamedTuple

from fastwarc.stream_io import BrotliReader

from operators.read.span import LIMIT, Unfit
from operators.read.streams import BrokenStream, Decoder, Raw, inflate, unzstd

_HEADER = re.compile(rb"^(content-type|content-encoding|transfer-encoding):[ \t]*([^\r\n]*)", re.I | re.M)
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_HEAD_BYTES = 256 << 10
_MOST_ENCODINGS = 4


class Response(NamedTuple):
    body: bytes
    content_type: str | None


def parse_response(block: bytes) -> Response:
    """Body and content type of the response stored in `block`. Raises Unfit."""
    if not block.startswith(b"HTTP/"):
        raise Unfit("bad_http", f"does not start as a response: {block[:40]!r}")
    end, gap = block.find(b"\r\n\r\n", 0, _HEAD_BYTES), 4
    if end < 0:
        end, gap = block.find(b"\n\n", 0, _HEAD_BYTES), 2
    if end < 0:
        raise Unfit("bad_http", "the headers do not end")
    headers: dict[bytes, list[bytes]] = {}
    for name, value in _HEADER.findall(block, 0, end):
        headers.setdefault(name.lower(), []).append(value.strip())
    body = block[end + gap :]
    if b"chunked" in b",".join(headers.get(b"transfer-encoding", [])).lower():
        body = _dechunk(body)
    encodings = [e.strip() for e in b",".join(headers.get(b"content-encoding", [])).lower().split(b",")]
    if len(encodings) > _MOST_ENCODINGS:
        raise Unfit("bad_encoding", f"{len(encodings)} content encodings")
    for encoding in reversed(encodings):
        body = _decode(body, encoding)
    types = headers.get(b"content-type")
    return Response(body, types[0].decode("utf-8", "replace") or None if types else None)


def _dechunk(body: bytes) -> bytes:
    if not _CHUNK_SIZE.match(body):
        return body  # stored without its chunks
    pieces: list[bytes] = []
    at = 0
    while match := _CHUNK_SIZE.match(body, at):
        size = int(match[1], 16)
        if size == 0:
            return b"".join(pieces)
        at = match.end() + size
        if at > len(body):
            break
        pieces.append(body[match.end() : at])
        at += 2
    raise Unfit("bad_encoding", f"chunked body breaks at byte {at}")


def _decode(body: bytes, encoding: bytes) -> bytes:
    try:
        if encoding in (b"gzip", b"x-gzip") and body.startswith(b"\x1f\x8b"):
            return _collected(inflate, body)
        if encoding == b"deflate" and body:
            zlib_header = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
            return _undeflate(body, 15 if zlib_header else -15)
        if encoding == b"br" and body:
            return _bounded(BrotliReader(io.BytesIO(body)).read(LIMIT + 1))
        if encoding == b"zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
            return _collected(unzstd, body)
    except (zlib.error, BrokenStream, OSError) as error:  # OSError: fastwarc's, there is no file here
        if encoding in (b"deflate", b"br") and body.lstrip()[:1] == b"<":
            return body  # neither has a magic number; this is a page that was stored decoded
        raise Unfit("bad_encoding", f"{encoding.decode('ascii', 'replace')}: {error}") from error
    return body


def _collected(decoder: Decoder, body: bytes) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in decoder(Raw(io.BytesIO(body)), 0):
        size += len(piece)
        if size > LIMIT:
            raise _too_large()
        pieces.append(piece)
    return b"".join(pieces)


def _undeflate(body: bytes, window: int) -> bytes:
    engine = zlib.decompressobj(window)
    out = _bounded(engine.decompress(body, LIMIT + 1))
    if not engine.eof:
        raise zlib.error("the stream breaks off")
    return out


def _bounded(out: bytes) -> bytes:
    if len(out) > LIMIT:
        raise _too_large()
    return out


def _too_large() -> Unfit:
    return Unfit("too_large", f"the decoded body is over {LIMIT} bytes")
