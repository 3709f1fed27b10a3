"""A Parquet file as its decoder reads it, watched page by page, so that no page is decoded to more than a bound.

Run lengths, dictionaries, shared prefixes and compression let a file of a kilobyte decode to any size, and a footer may
state any number. What counts is in the headers of pages: how large a page becomes when it is decompressed, how many
values it gives, how they are encoded. They pass by here on their way to the decoder, which has done nothing with the
page then.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from operators.read.layout import Chunk, Column
from operators.read.span import Unfit
from operators.read.thrift import I32, STRUCT, Compact, Malformed, Struct

USUAL = 256 << 20  # bytes of pages, and of values decoded from them, for one batch of rows
MOST = 1 << 30  # the same for a row alone
_MOST_HEADER = 16 << 20  # as in Arrow
_MORE = 64 << 10
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_STRINGS, _FIXED = 6, 7  # physical types
_PLAIN_DICTIONARY, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 2, 7, 8  # encodings
_CODECS = ("snappy", "gzip", "brotli", "zstd", "lz4_raw")
_WIDTH = 16  # bytes, at least what a value of a fixed width, a length or the levels of a value take


class TooMuch(Unfit):
    """The rows asked for at once might take too much memory; fewer may not."""

    def __init__(self, spent: int) -> None:
        super().__init__("too_large", f"a row that may take {spent} bytes decoded, with its page; at most {MOST}")


class Watched:
    """A binary file for Arrow to read one row group at a time, sequentially within each column."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._expected: list[_Pages] = []
        self._rows = 0
        self._spent = 0

    def expect(self, columns: Sequence[Column], chunks: Sequence[Chunk], rows: int) -> None:
        """The row group that is read next, by `rows` rows at once."""
        both = zip(columns, chunks, strict=True)
        self._expected = [_Pages(column, chunk) for column, chunk in both if chunk.end > chunk.start]
        self._expected.sort(key=lambda pages: pages.start)
        self._rows = rows
        self._spent = 0

    def taken(self) -> None:
        """The batch was taken: what is read from here on is for the next one."""
        self._spent = 0

    def seek(self, at: int, whence: int = 0) -> int:
        return self._file.seek(at, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, n: int = -1) -> bytes:
        """As of a file. Raises TooMuch, or Unfit for headers that cannot be read."""
        at = self._file.tell()
        data = self._file.read(n)
        found = bisect.bisect_right(self._expected, at, key=lambda pages: pages.start) - 1
        if found >= 0 and at < self._expected[found].end:
            self._look(self._expected[found], at, data)
        return data

    def _look(self, pages: _Pages, at: int, data: bytes) -> None:
        if at == pages.start:
            pages.next = at
        if at > pages.next:
            raise Unfit("bad_row_group", f"no page begins at byte {at}")
        while pages.next < min(at + len(data), pages.end):
            header, length = self._header(data[pages.next - at :])
            try:
                self._spent += pages.cost(header, self._rows)
                size = _count(header[3, I32])
            except KeyError as error:
                raise Unfit("bad_row_group", f"byte {pages.next}: no header of a page") from error
            if self._spent > (USUAL if self._rows > 1 else MOST):
                raise TooMuch(self._spent)
            pages.next += length
            if header[1, I32] == _DICTIONARY and pages.repeats_strings:
                pages.measure(self._bytes(pages.next, size))
            pages.next += size

    def _bytes(self, at: int, n: int) -> bytes:
        place = self._file.tell()
        self._file.seek(at)
        data = self._file.read(n)
        self._file.seek(place)
        return data

    def _header(self, data: bytes) -> tuple[Struct, int]:
        """The header that `data` begins with, some of which may come after it, and its length."""
        place = self._file.tell()
        try:
            while True:
                compact = Compact(data)
                try:
                    return compact.struct(), compact.at
                except IndexError:
                    more = self._file.read(_MORE)
                    if not more or len(data) > _MOST_HEADER:
                        raise Unfit("bad_row_group", "the header of a page does not end") from None
                    data += more
                except Malformed as error:
                    raise Unfit("bad_row_group", f"no header of a page: {error}") from error
        finally:
            self._file.seek(place)


class _Pages:
    """The pages of one column of a row group, and what they may become."""

    def __init__(self, column: Column, chunk: Chunk) -> None:
        self.start, self.end = chunk
        self.next = chunk.start  # where the next page's header is
        self._repeats = column.repeats
        self._strings = column.type == _STRINGS
        self._width = max(_WIDTH, column.width) if column.type == _FIXED else _WIDTH
        self._entry = 0  # bytes that an entry of its dictionary may have

    @property
    def repeats_strings(self) -> bool:
        return self._repeats and self._strings

    def cost(self, header: Struct, rows: int) -> int:
        """Bytes that the page and what is decoded of it for `rows` rows may take. KeyError for what is no header."""
        kind, size = header[1, I32], _count(header[2, I32])
        if kind == _DICTIONARY:
            self._entry = size
            return size + _WIDTH * _count(header[7, STRUCT][1, I32])
        if kind not in (_DATA, _DATA_V2):
            return size
        about = header[5 if kind == _DATA else 8, STRUCT]
        values, encoding = _count(about[1, I32]), about[2 if kind == _DATA else 4, I32]
        wanted = values if self._repeats else min(values, rows)
        each = self._width
        if encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
            each += self._entry if self._strings else 0
        elif encoding == _DELTA_BYTE_ARRAY:
            each += size
        elif self._strings:
            size *= 2  # all of it may be text
        return size + wanted * each

    def measure(self, page: bytes) -> None:
        """Look for the largest entry of the dictionary, so that lists of a few short strings are not taken for a bomb.

        By all codecs that can decompress the page: asking Arrow for the column's own ends the process if it is none.
        """
        forms = [page] if len(page) == self._entry else []
        for codec in _CODECS:
            with contextlib.suppress(pa.ArrowException, OSError):
                forms.append(pa.Codec(codec).decompress(page, self._entry, asbytes=True))
        self._entry = min(self._entry, max(map(_largest, forms), default=self._entry))


def _largest(dictionary: bytes) -> int:
    """Length of the longest of strings that each have their length before them, in four bytes."""
    largest = at = 0
    while at + 4 <= len(dictionary):
        length = int.from_bytes(dictionary[at : at + 4], "little")
        largest = max(largest, length)
        at += 4 + length
    return largest


def _count(value: int) -> int:
    if value < 0:
        raise Unfit("bad_row_group", f"the header of a page says {value}")
    return value
