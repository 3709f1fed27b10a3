"""Files as byte ranges, and compressed streams in bounded memory that say when they break off.

Decoders yield pieces of at most a few MB and never trust a stated size. What is decoded before a stream breaks
depends on the stream's bytes alone, because input is fed in pieces counted from the stream's start.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO

import zstandard

from operators.read.span import MOST_DECODED, MOST_RATIO, Unfit, Unreadable

CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b\x08"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_PIECE = 64 << 10
_ZSTD_PIECE = 1 << 10  # zstandard bounds no output: a piece may expand 32,000-fold, to 32 MB
_ZSTD_WINDOW = 128 << 20


class BrokenStream(ValueError):
    """Compressed data that ends too early (`truncated`) or is corrupt."""

    def __init__(self, message: str, *, truncated: bool) -> None:
        super().__init__(message)
        self.truncated = truncated


class Raw:
    """A file read by offset, through one buffer that moves forward without reading a byte twice."""

    broken: BrokenStream | None = None

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._base = 0
        self._data = b""
        self.size = file.seek(0, 2)

    def read(self, at: int, n: int) -> bytes:
        """The `n` bytes at `at`, fewer only at the end of the file."""
        i = at - self._base
        if i < 0 or i + n > len(self._data):
            self._load(at, n)
            i = at - self._base
        return self._data[i : i + n]

    def find(self, pattern: bytes, at: int) -> int:
        """Offset of `pattern` at or after `at`, -1 if it is not within about CHUNK bytes."""
        i = at - self._base
        found = self._data.find(pattern, i) if i >= 0 else -1
        if found < 0:
            self._load(at, CHUNK)
            found = self._data.find(pattern, at - self._base)
        return found + self._base if found >= 0 else -1

    def _load(self, at: int, n: int) -> None:
        i = at - self._base
        kept = self._data[i:] if 0 <= i < len(self._data) else b""
        if at + len(kept) >= self.size:
            self._base, self._data = at, kept
            return
        pieces = [kept]
        missing = max(n, CHUNK) - len(kept)
        if missing > 0:
            self._file.seek(at + len(kept))
        while missing > 0 and (piece := self._file.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
        self._base, self._data = at, b"".join(pieces)


Decoder = Callable[[Raw, int], Generator[bytes, None, int]]


def inflate(raw: Raw, at: int) -> Generator[bytes, None, int]:
    """The gzip member at `at` in pieces; returns where it ends, raises BrokenStream after the last good piece."""
    engine = zlib.decompressobj(31)
    fed = at
    try:
        while not engine.eof:
            piece = engine.unconsumed_tail
            if not piece:
                piece = raw.read(fed, _GZIP_PIECE)
                fed += len(piece)
            out = engine.decompress(piece, CHUNK)
            if out:
                yield out
            elif not piece:
                raise BrokenStream("the gzip stream breaks off", truncated=True)
    except zlib.error as error:
        raise BrokenStream(str(error), truncated=False) from error
    return fed - len(engine.unused_data)


def unzstd(raw: Raw, at: int) -> Generator[bytes, None, int]:
    """The Zstandard frame at `at`, as `inflate`."""
    engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    fed = at
    try:
        while not engine.eof:
            piece = raw.read(fed, _ZSTD_PIECE)
            fed += len(piece)
            if not piece:
                raise BrokenStream("the zstd stream breaks off", truncated=True)
            if out := engine.decompress(piece):
                yield out
    except zstandard.ZstdError as error:
        raise BrokenStream(str(error), truncated=False) from error
    return fed - len(engine.unused_data)


_DECODERS: dict[str, tuple[Decoder, bytes]] = {"gz": (inflate, GZIP_MAGIC), "zst": (unzstd, _ZSTD_MAGIC)}


def decoded(raw: Raw, codec: str | None) -> Iterator[bytes]:
    """The whole content of a file in pieces: all members or frames, one after the other.

    Raises BrokenStream, and Unfit for a file that decodes to more than it can mean.
    """
    at = decoded_bytes = 0
    if codec is None:
        while piece := raw.read(at, CHUNK):
            yield piece
            at += len(piece)
        return
    decoder, _ = _DECODERS[codec]
    most = max(MOST_DECODED, MOST_RATIO * raw.size)
    while at < raw.size:
        pieces = decoder(raw, at)
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                at = end.value
                break
            decoded_bytes += len(piece)
            if decoded_bytes > most:
                raise Unfit("too_large", f"{raw.size} bytes decode to over {most}")
            yield piece


def check_magic(raw: Raw, codec: str | None) -> None:
    """Raise Unreadable for a file whose start is not compressed as its name says. An empty file is nothing."""
    if codec is None or raw.size == 0:
        return
    _, magic = _DECODERS[codec]
    if raw.read(0, len(magic)) != magic:
        raise Unreadable(f"is named .{codec}, but does not start like that")
