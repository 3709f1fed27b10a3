"""Networks of one operator, written as ONNX files by hand: the format is protobuf, and there is no need of more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FLOAT = 1


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def network(operator: str, shape: Sequence[int | str], operand: np.ndarray | str | None = None) -> bytes:
    """y = operator(x), or operator(x, operand), of an x of that shape; the operand may be "x" itself."""
    constant = isinstance(operand, np.ndarray)
    inputs = ["x", *(["c"] if constant else [operand] if isinstance(operand, str) else [])]
    node = b"".join(field(1, name) for name in inputs) + field(2, "y") + field(4, operator)
    graph = field(1, node) + field(2, "graph")
    if isinstance(operand, np.ndarray):
        sizes = b"".join(field(1, int(n)) for n in operand.shape)
        graph += field(5, sizes + field(2, FLOAT) + field(8, "c") + field(9, operand.astype("<f4").tobytes()))
    dimensions = b"".join(field(1, field(1, n) if isinstance(n, int) else field(2, n)) for n in shape)
    kind = field(1, field(1, FLOAT) + field(2, dimensions))
    graph += field(11, field(1, "x") + field(2, kind)) + field(12, field(1, "y") + field(2, kind))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))
