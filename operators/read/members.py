"""gzip members as streams that are read by offset: what a record is to a `.warc.gz`.

A member is usually one record. The fast path cuts the file at the next gzip magic and lets fastwarc decode that
slice (three times as fast as zlib); it counts only if the trailer's length agrees. fastwarc ends silently
where a stream breaks off, so everything else (large members, magic bytes inside compressed data, damage) is
decided by zlib.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Generator

from fastwarc.stream_io import GzipReader

from operators.read.streams import CHUNK, GZIP_MAGIC, BrokenStream, Raw, inflate

_SMALL = 8 << 20  # decoded bytes that are held at once
_SHORTEST = 18  # bytes of an empty member: header and trailer


class Member:
    """The decoded bytes of the member at `at`. Where it breaks, reads fall short and `broken` says why."""

    def __init__(self, raw: Raw, at: int) -> None:
        self._raw = raw
        self._at = at
        self.broken: BrokenStream | None = None
        self.end = -1  # where the next member starts, once a read has fallen short
        self._base = 0
        self._data = bytearray()
        self._pieces: Generator[bytes, None, int] | None = None
        self._small = b""
        if small := _decode_small(raw, at):
            self._small, self.end = small
        else:
            self._restart()

    def read(self, at: int, n: int) -> bytes:
        """The `n` decoded bytes at `at`, fewer only at the end or the break. Reading backwards decodes anew."""
        if self._small:
            return self._small[at : at + n]
        if at < self._base:
            self._restart()
        while at + n > self._base + len(self._data) and self._more():
            passed = min(at - self._base, len(self._data))
            if passed > CHUNK:
                del self._data[:passed]
                self._base += passed
        i = at - self._base
        return bytes(memoryview(self._data)[i : i + n])

    def _restart(self) -> None:
        self._pieces = inflate(self._raw, self._at)
        self._base = 0
        self._data = bytearray()

    def _more(self) -> bool:
        if self._pieces is None:
            return False
        try:
            self._data += next(self._pieces)
        except StopIteration as stop:
            self.end = stop.value
            self._pieces = None
            return False
        except BrokenStream as error:
            self.broken = error
            self._pieces = None
            return False
        return True


def _decode_small(raw: Raw, at: int) -> tuple[bytes, int] | None:
    found = raw.find(GZIP_MAGIC, at + _SHORTEST)
    end = found if found >= 0 else raw.size
    if not _SHORTEST <= end - at <= 2 * CHUNK:
        return None
    piece = raw.read(at, end - at)
    if not piece.startswith(GZIP_MAGIC):
        return None
    try:
        data = GzipReader(io.BytesIO(piece)).read(_SMALL + 1)
    except OSError:  # how fastwarc says that the data are corrupt; zlib decides
        return None
    whole = len(data) <= _SMALL and int.from_bytes(piece[-4:], "little") == len(data)
    return (data, end) if data and whole else None


def begins_with(raw: Raw, at: int, prefix: bytes) -> bool:
    """Whether a gzip member starts at `at` whose content starts with `prefix`."""
    try:
        return zlib.decompressobj(31).decompress(raw.read(at, 4 << 10), len(prefix)) == prefix
    except zlib.error:
        return False


def next_member(raw: Raw, at: int, prefix: bytes) -> int | None:
    """Offset of the first member at or after `at` whose content starts with `prefix`."""
    while at < raw.size:
        found = raw.find(GZIP_MAGIC, at)
        if found < 0:
            at += CHUNK - len(GZIP_MAGIC) + 1
        elif begins_with(raw, found, prefix):
            return found
        else:
            at = found + 1
    return None


def breaks_off(raw: Raw, at: int, end: int) -> bool:
    """Whether the bytes [at, end) decode without error, but not to an end: a truncated member."""
    engine = zlib.decompressobj(31)
    try:
        while at < end and not engine.eof:
            piece = engine.unconsumed_tail
            if not piece:
                piece = raw.read(at, min(CHUNK, end - at))
                at += len(piece)
            engine.decompress(piece, CHUNK)
    except zlib.error:
        return False
    return not engine.eof
