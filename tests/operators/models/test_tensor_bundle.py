from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from operators.models.tensor_bundle import MAGIC, read


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protocol buffer."""
    return b"".join(
        varint(number << 3) + varint(value)
        if isinstance(value, int)
        else varint(number << 3 | 2) + varint(len(value)) + value
        for number, value in fields
    )


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Keys and values, each key without what it shares with the one before; one restart."""
    made, last = b"", b""
    for key, value in entries:
        shared = next((n for n, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key)))
        made += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return made + struct.pack("<II", 0, 1)


def index_of(entries: list[tuple[bytes, bytes]]) -> bytes:
    """An index with a block for every two entries."""
    made, handles = b"", []
    for first in range(0, len(entries), 2):
        one = block(entries[first : first + 2])
        handles.append((entries[first][0], varint(len(made)) + varint(len(one))))
        made += one + bytes(5)
    over = block(handles)
    where = varint(len(made)) + varint(0) + varint(len(made)) + varint(len(over))
    return made + over + bytes(5) + where.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def entry(shape: tuple[int, ...], offset: int, kind: int = 1, shard: int = 0, size: int | None = None) -> bytes:
    dimensions = message(*((2, message((1, length))) for length in shape))
    size = 4 * int(np.prod(shape)) if size is None else size
    return message((1, kind), (2, dimensions), (3, shard), (4, offset), (5, size))


def bundle(tensors: dict[str, np.ndarray]) -> tuple[bytes, bytes]:
    entries, data = [(b"", message((1, 1)))], b"\1"  # nothing says that tensors are aligned
    for name, tensor in sorted(tensors.items()):
        entries.append((name.encode(), entry(tensor.shape, len(data))))
        data += tensor.tobytes()
    return index_of(entries), data


TENSORS = st.dictionaries(
    st.text("abc/_", min_size=1, max_size=8),
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=4, max_side=3), elements=st.floats(width=32)),
    max_size=7,
)


@given(TENSORS)
def test_tensors_come_back(tensors: dict[str, np.ndarray]) -> None:
    found = read(*bundle(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor, strict=True)


SMALL = bundle({"a/kernel": np.ones((2, 3), np.float32), "a/bias": np.zeros(3, np.float32)})


@given(st.data())
def test_changed_bytes_are_read_or_refused(data: st.DataObject) -> None:
    index = bytearray(SMALL[0])
    for _ in range(data.draw(st.integers(1, 4))):
        index[data.draw(st.integers(0, len(index) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(index), SMALL[1])
    except ValueError:
        return
    assert sum(tensor.nbytes for tensor in found.values()) <= len(index) * len(SMALL[1])


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_any_bytes_are_refused(index: bytes, data: bytes) -> None:
    for made in (index, index + MAGIC.to_bytes(8, "little")):
        with pytest.raises(ValueError, match="tensor bundle"):
            read(made, data)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (entry((2, 3), 5), "24 bytes at 5 of 24"),
        (entry((2, 3), 0, size=20), "20 bytes at 0"),
        (entry((2, 3), 2**63), "24 bytes at 9223372036854775808"),
        (entry((2**63, 2), 0, size=24), "24 bytes"),
        (entry((0, 2**63), 0), "0 bytes"),
        (entry((2, 3), 0, shard=1), "several parts"),
        (entry((1,) * 9, 0), "of 9 dimensions"),
        (entry((2, 3), 0) + message((7, b"")), "several parts"),
        (message((1, 1), (2, 5)), "in place of a message"),
        (message((1, 1), (4, b"no")), "is no number"),
        (b"\x08\x01\x03", "a field of kind 3"),
        (b"\x08" + b"\xff" * 11, "does not end"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(made: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"no tensor bundle.*{why}"):
        read(index_of([(b"a", made)]), bytes(24))


def test_a_compressed_block_is_refused() -> None:
    index = bytearray(index_of([(b"a", entry((1,), 0))]))
    index[len(block([(b"a", entry((1,), 0))]))] = 1
    with pytest.raises(ValueError, match="a compressed block at 0"):
        read(bytes(index), bytes(4))


def test_keys_do_not_grow_without_end() -> None:
    """Each could be as long as all before it together, at two bytes an entry."""
    grown = b"".join(varint(60 * n) + varint(60) + varint(0) + bytes(60) for n in range(40)) + struct.pack("<II", 0, 1)
    over = block([(b"a", varint(0) + varint(len(grown)))])
    where = varint(0) + varint(0) + varint(len(grown) + 5) + varint(len(over))
    index = grown + bytes(5) + over + bytes(5) + where.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")
    with pytest.raises(ValueError, match=r"a key of 1020 \+ 60 bytes"):
        read(index, b"")


def test_other_types_are_left_out() -> None:
    index = index_of([(b"step", entry((), 0, kind=9, size=8)), (b"weight", entry((), 8))])
    assert list(read(index, bytes(8) + struct.pack("<f", 0.5))) == ["weight"]


def test_no_index() -> None:
    with pytest.raises(ValueError, match="no tensor bundle: no index"):
        read(bytes(100), b"")
