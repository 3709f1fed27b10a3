"""Just enough of Thrift's compact protocol to look at Parquet's own headers before a decoder trusts them.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TRUE, _FALSE, _BYTE, _I16, _DOUBLE, _BINARY, _SET, _MAP = 1, 2, 3, 4, 7, 8, 10, 11
I32, I64, LIST, STRUCT = 5, 6, 9, 12
_DEEPEST = 16
_MOST_ITEMS = 1 << 20

Struct = dict[tuple[int, int], Any]  # values by number and type: a field of another type than its own is ignored


class Malformed(ValueError):
    """Bytes that are no value of the protocol, or one beyond any use."""


class Compact:
    """Values that stand one after the other in `data`. Raises IndexError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """(number, type) of each field of a struct, whose value must be taken or skipped before the next one."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 15

    def items(self) -> Iterator[int]:
        """The type of each item of a list, as `fields`."""
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        if size > _MOST_ITEMS:
            raise Malformed(f"a list of {size}")
        for _ in range(size):
            yield head & 15

    def struct(self, depth: int = 0) -> Struct:
        """All integers and structs of a struct."""
        if depth > _DEEPEST:
            raise Malformed("structs within structs within structs")
        found: Struct = {}
        for number, kind in self.fields():
            if kind in (I32, I64):
                found[number, kind] = self.integer()
            elif kind == STRUCT:
                found[number, kind] = self.struct(depth + 1)
            else:
                self.skip(kind, depth)
        return found

    def skip(self, kind: int, depth: int = 0, item: bool = False) -> None:
        """Pass over a value; as an `item` of a list, a boolean has a byte of its own."""
        if depth > _DEEPEST:
            raise Malformed("values within values within values")
        if kind in (_I16, I32, I64):
            self._varint()
        elif kind == _BINARY:
            self._pass(self._varint())
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind in (LIST, _SET):
            for inner in self.items():
                self.skip(inner, depth + 1, item=True)
        elif kind in (_TRUE, _FALSE):
            self._pass(int(item))
        elif kind in (_BYTE, _DOUBLE):
            self._pass(1 if kind == _BYTE else 8)
        else:  # none of the headers has a map
            raise Malformed(f"a value of type {kind}")

    def integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)  # zigzag

    def _pass(self, length: int) -> None:
        self.at += length
        if self.at > len(self._data):
            raise IndexError(self.at)

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) >= 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise Malformed("an integer of more than 64 bits")
        return value | byte << shift
