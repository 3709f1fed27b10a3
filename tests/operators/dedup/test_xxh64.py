from __future__ import annotations

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.xxh64 import xxh64


@given(st.binary(max_size=300), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_equals_the_library(raw: bytes, start: int) -> None:
    data = np.array(bytearray(bytes(start) + raw + b"\xff"), np.uint8)
    assert int(xxh64(data, np.uint64(start), np.uint64(start + len(raw)))) == xxhash.xxh64_intdigest(raw)


def test_every_length() -> None:
    data = np.random.RandomState(1).randint(0, 256, 200).astype(np.uint8)
    found = [int(xxh64(data, np.uint64(0), np.uint64(length))) for length in range(len(data) + 1)]
    assert found == [xxhash.xxh64_intdigest(data[:length].tobytes()) for length in range(len(data) + 1)]
