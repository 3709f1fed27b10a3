"""Opening Parquet files that nobody vouches for: a readable footer, no type that runs code, bounded decoding.

Some libraries register Arrow extension types that run pickled code while a schema is being built, so files with
extension types are refused whole, before Arrow sees their schema, and so are schemas deeper or wider than any table
that people make. Rows are decoded so few at a time that no file can expand beyond memory (pages.py).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from operators.read.layout import Group, layout
from operators.read.pages import MOST, USUAL, TooMuch, Watched
from operators.read.span import BATCH_ROWS, MOST_DECODED, MOST_RATIO, Unfit, Unreadable
from operators.read.thrift import Malformed

_MAGIC = b"PAR1"
_MOST_FOOTER = 64 << 20
_WIDTH = 16  # bytes, at least what a value takes
_FEWER = 8  # times fewer rows at once, where as many may take too much memory
_EXTENSION = b"ARROW:extension:name"
# The extension key as it shows in base64, at each of three alignments, without what its neighbours touch.
_HIDDEN = tuple(base64.b64encode(b"\0" * k + _EXTENSION)[(k * 8 + 5) // 6 : -4] for k in range(3))


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
        try:
            self._layout = layout(footer, size)
        except Malformed as error:
            raise Unreadable(f"not a Parquet file that can be read: {error}") from error
        file.seek(0)
        self._watched = Watched(file)
        try:
            self.file = pq.ParquetFile(
                self._watched,
                pre_buffer=False,
                buffer_size=1 << 20,
                arrow_extensions_enabled=False,
                page_checksum_verification=True,
            )
            str(self.file.schema_arrow)  # every name in it, nested ones too
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise Unreadable(f"not a Parquet file: {error}") from error
        except OSError as error:
            raise _unless_io(error, Unreadable(f"not a Parquet file: {error}")) from error
        names = self.file.schema_arrow.names
        if len(set(names)) < len(names):
            raise Unreadable("two columns have the same name")
        padding = sum(_padding(kind) for kind in self.file.schema_arrow.types)
        if padding > MOST:
            raise Unreadable(f"its lists of fixed length take {padding} bytes a row, at most {MOST}")
        self._at_once = max(1, min(BATCH_ROWS, USUAL // max(1, padding)))

    @property
    def groups(self) -> tuple[Group, ...]:
        return self._layout.groups

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """The rows of one row group, few at a time, dictionaries as their values, so that what a batch says to be its
        size is. Raises Unfit where the group breaks, or grows beyond what it can mean."""
        done = decoded = 0
        most = max(MOST_DECODED, MOST_RATIO * self.groups[group].size)
        while True:
            try:
                for batch in self._attempt(group, done):
                    done += batch.num_rows
                    decoded += batch.nbytes
                    if decoded > most:
                        raise Unfit("too_large", f"row group {group} decodes to over {most} bytes")
                    yield batch
                if done < (stated := self.groups[group].rows):
                    raise Unfit("bad_row_group", f"row group {group}: {done} of {stated} rows are there")
                return
            except TooMuch:
                if self._at_once == 1:
                    raise
                self._at_once = max(1, self._at_once // _FEWER)
            except pa.ArrowException as error:
                raise Unfit("bad_row_group", f"row group {group}: {error}") from error
            except OSError as error:
                raise _unless_io(error, Unfit("bad_row_group", f"row group {group}: {error}")) from error

    def _attempt(self, group: int, skip: int) -> Iterator[pa.RecordBatch]:
        """The rows after the first `skip` ones."""
        if self.groups[group].rows == 0:  # what else is said of such a group may mean nothing
            return
        self._watched.expect(self._layout.columns, self.groups[group].chunks, self._at_once)
        for batch in self.file.iter_batches(self._at_once, row_groups=[group], use_threads=False):
            self._watched.taken()
            if skip < batch.num_rows:
                columns = [_plain(column) for column in batch.slice(skip).columns]
                yield pa.RecordBatch.from_arrays(columns, batch.schema.names)
            skip = max(0, skip - batch.num_rows)


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _padding(kind: pa.DataType, times: int = 0) -> int:
    """Bytes that a row of this type may take without having been written: a null list of fixed length is not empty."""
    if pa.types.is_fixed_size_list(kind):
        return _padding(kind.value_type, max(1, times) * kind.list_size)
    if kind.num_fields:
        return sum(_padding(kind.field(number).type, times) for number in range(kind.num_fields))
    return times * max(_WIDTH, kind.byte_width if pa.types.is_fixed_size_binary(kind) else 0)


def _unless_io(error: OSError, otherwise: Exception) -> Exception:
    """Arrow reports bad data as a bare OSError; one with an errno, or of a subclass, comes from the file or network."""
    return otherwise if type(error) is OSError and error.errno is None else error
