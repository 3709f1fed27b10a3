"""Reads the checkpoints that TensorFlow writes (a "tensor bundle": an index and its data) into numpy arrays, in Python
alone.

The index is a sorted string table as LevelDB has it (tensorflow/core/lib/io/format.cc): at its end a footer that says
where the block of blocks lies, each block a list of keys and values, a key without what it shares with the one before
it. A value is a protocol buffer BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto): type, shape, and where
in the data the numbers are.

A file is data: nothing in it is run, every size in it is held against the bytes that are there, and what does not fit
is a ValueError. Checksums are not looked at: whoever needs them pins the files (weights.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two handles, filled up with zeros, and MAGIC
TRAILER = 5  # bytes after a block: how it is compressed, and a checksum
FLOAT = 1  # DT_FLOAT in types.proto
LONGEST_KEY = 1024  # bytes: keys grow as they share, so that a small file could hold large ones
MOST_DIMENSIONS = 8
LONGEST_VARINT = 10  # bytes
# fields of BundleEntryProto, TensorShapeProto and its Dim
TYPE, SHAPE, SHARD, OFFSET, SIZE, SLICES = 1, 2, 3, 4, 5, 7
DIMENSION, LENGTH = 2, 1
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


class _Reader:
    """Takes values off the front of bytes; raises ValueError where there are too few left."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left():
            raise ValueError(f"no tensor bundle: {count} bytes at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        """Seven bits a byte, the lowest first, as long as the eighth is set; below 2 ** 64."""
        number = 0
        for place in range(LONGEST_VARINT):
            byte = self.take(1)[0]
            number |= (byte & 127) << 7 * place
            if byte < 128:
                return number % 2**64
        raise ValueError(f"no tensor bundle: a number at {self.at} that does not end")

    def handle(self) -> _Handle:
        return _Handle(self.varint(), self.varint())


class _Handle(NamedTuple):
    """Where a block lies."""

    offset: int
    size: int


def read(index: bytes, data: bytes) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a checkpoint of one part, by their names: read-only views of `data`. Others are left out.
    Raises ValueError for what is no such checkpoint."""
    if len(index) < FOOTER or int.from_bytes(index[-8:], "little") != MAGIC:
        raise ValueError("no tensor bundle: no index")
    footer = _Reader(index[-FOOTER:])
    footer.handle()  # of a block about the blocks, which is empty
    found: dict[str, NDArray[np.float32]] = {}
    for _, where in _block(index, footer.handle()):
        for name, entry in _block(index, _Reader(where).handle()):
            if name and (tensor := _tensor(name, entry, data)) is not None:  # the header has no name
                found[name.decode("utf-8")] = tensor
    return found


def _block(index: bytes, handle: _Handle) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values."""
    reader = _Reader(index)
    reader.take(handle.offset)
    block, trailer = reader.take(handle.size), reader.take(TRAILER)
    if trailer[0]:
        raise ValueError(f"no tensor bundle: a compressed block at {handle.offset}")
    restarts = 4 * int.from_bytes(block[-4:], "little") + 4  # of bytes at the end: where keys are written in full
    if restarts > len(block):
        raise ValueError(f"no tensor bundle: a block of {len(block)} bytes, {restarts} of them at its end")
    reader, key = _Reader(block[:-restarts]), b""
    while reader.left():
        shared, rest, size = reader.varint(), reader.varint(), reader.varint()
        if shared > len(key) or shared + rest > LONGEST_KEY:
            raise ValueError(f"no tensor bundle: a key of {shared} + {rest} bytes after one of {len(key)}")
        key = key[:shared] + reader.take(rest)
        yield key, reader.take(size)


def _tensor(name: bytes, entry: bytes, data: bytes) -> NDArray[np.float32] | None:
    fields = _fields(entry)
    if fields.get(TYPE) != [FLOAT]:
        return None
    offset, size, shard = (_last(fields, field) for field in (OFFSET, SIZE, SHARD))
    shape = [
        _last(_fields(_bytes(dimension)), LENGTH)
        for shapes in fields.get(SHAPE, ())
        for dimension in _fields(_bytes(shapes)).get(DIMENSION, ())
    ]
    if shard or SLICES in fields or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"no tensor bundle: {name!r} is of several parts, or of {len(shape)} dimensions")
    if not size or 4 * prod(shape) != size or offset + size > len(data):
        raise ValueError(f"no tensor bundle: {name!r} of {shape}: {size} bytes at {offset} of {len(data)}")
    return np.frombuffer(data, "<f4", size // 4, offset).reshape(shape)


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The values of a protocol buffer's fields, in order."""
    reader = _Reader(message)
    fields: dict[int, list[int | bytes]] = {}
    while reader.left():
        number, kind = divmod(reader.varint(), 8)
        value: int | bytes
        if kind == VARINT:
            value = reader.varint()
        elif kind in (FIXED32, FIXED64):
            value = reader.take(4 if kind == FIXED32 else 8)
        elif kind == BYTES:
            value = reader.take(reader.varint())
        else:
            raise ValueError(f"no tensor bundle: a field of kind {kind}")
        fields.setdefault(number, []).append(value)
    return fields


def _last(fields: dict[int, list[int | bytes]], field: int) -> int:
    """A number, 0 where there is none."""
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"no tensor bundle: field {field} is no number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("no tensor bundle: a number in place of a message")
    return value
