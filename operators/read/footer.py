"""Opening Parquet files that nobody vouches for: a readable footer, no type that runs code, bounded decoding.

Some libraries register Arrow extension types that run pickled code while a schema is being built, so files with
extension types are refused whole, before Arrow sees their schema. Rows are decoded so few at a time that no dictionary
or prefix encoding can expand a small file beyond memory.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from operators.read.span import BATCH_ROWS, Unfit, Unreadable

_MAGIC = b"PAR1"
_MOST_FOOTER = 256 << 20
_EXPANDED = 256 << 20  # bytes that the rows decoded at once may take
_EXTENSION = b"ARROW:extension:name"
# The extension key as it shows in base64, at each of three alignments, without what its neighbours touch.
_HIDDEN = tuple(base64.b64encode(b"\0" * k + _EXTENSION)[(k * 8 + 5) // 6 : -4] for k in range(3))
_PAGE_HEADER = 32  # bytes, more than its first two fields take
_DICTIONARY_PAGE = 2
_NEXT_I32 = 0x15


class Footer:
    """An open Parquet file whose footer has been found readable and harmless."""

    def __init__(self, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if size < 12 or tail[4:] != _MAGIC or length > min(size - 8, _MOST_FOOTER):
            raise Unreadable("does not end as a Parquet file")
        file.seek(size - 8 - length)
        footer = file.read(length)
        if _EXTENSION in footer or any(hidden in footer for hidden in _HIDDEN):
            raise Unfit("unsafe_type", "the schema has Arrow extension types; write the file with plain types")
        file.seek(0)
        try:
            self.file = pq.ParquetFile(
                file,
                pre_buffer=False,
                buffer_size=1 << 20,
                arrow_extensions_enabled=False,
                page_checksum_verification=True,
            )
        except pa.ArrowException as error:
            raise Unreadable(f"not a Parquet file: {error}") from error
        except OSError as error:
            raise _unless_io(error, Unreadable(f"not a Parquet file: {error}")) from error
        self.raw = file
        self.groups: int = self.file.metadata.num_row_groups
        names = self.file.schema_arrow.names
        if len(set(names)) < len(names):
            raise Unreadable("two columns have the same name")

    def rows(self, group: int) -> int:
        count: int = self.file.metadata.row_group(group).num_rows
        return count

    def sizes(self) -> list[int]:
        """Compressed bytes by row group."""
        groups = (self.file.metadata.row_group(g) for g in range(self.groups))
        return [sum(g.column(c).total_compressed_size for c in range(g.num_columns)) for g in groups]

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """The rows of one row group, few at a time. Raises Unfit where it breaks."""
        try:
            yield from self.file.iter_batches(self._batch_rows(group), row_groups=[group], use_threads=False)
        except pa.ArrowException as error:
            raise Unfit("bad_row_group", f"row group {group}: {error}") from error
        except OSError as error:
            raise _unless_io(error, Unfit("bad_row_group", f"row group {group}: {error}")) from error

    def _batch_rows(self, group: int) -> int:
        """Rows decoded at once, so that they take at most about _EXPANDED bytes however they are encoded."""
        meta = self.file.metadata.row_group(group)
        largest = sum(self._largest_value(meta.column(c)) for c in range(meta.num_columns))
        return min(BATCH_ROWS, max(1, _EXPANDED // max(1, largest)))

    def _largest_value(self, column: pq.ColumnChunkMetaData) -> int:
        """A bound on one repeated value: the dictionary's size, or the whole chunk where values share prefixes."""
        if column.physical_type not in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
            return 8
        if "DELTA_BYTE_ARRAY" in column.encodings:
            return int(column.total_uncompressed_size)
        self.raw.seek(column.dictionary_page_offset or column.data_page_offset)
        kind, size = _page_header(self.raw.read(_PAGE_HEADER))
        return size if kind == _DICTIONARY_PAGE else 8


def _unless_io(error: OSError, otherwise: Exception) -> Exception:
    """Arrow reports bad data as a bare OSError; one with an errno, or of a subclass, comes from the file or network."""
    return otherwise if type(error) is OSError and error.errno is None else error


def _page_header(header: bytes) -> tuple[int, int]:
    """Type and uncompressed size of a page: the first two fields of its header, in Thrift's compact protocol."""
    values: list[int] = []
    at = 0
    while len(values) < 2 and at < len(header) and header[at] == _NEXT_I32:
        value, shift, at = 0, 0, at + 1
        while at < len(header):
            value |= (header[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if header[at - 1] < 128:
                break
        values.append(value >> 1)  # zigzag
    return (values[0], values[1]) if len(values) == 2 else (_DICTIONARY_PAGE, _EXPANDED)  # odd: expect the worst
