from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from operators.hashes import spread, xxh3_64, xxh3_128

VALUES = ["", "a", None, "é中", "x" * 5000]


@pytest.mark.parametrize("dtype", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_equal_to_xxhash_of_each_string(dtype: pa.DataType, start: int) -> None:
    column = pa.array(VALUES, dtype).slice(start)
    plain = [(v or "").encode() for v in VALUES[start:]]
    assert xxh3_64(column).tolist() == [xxhash.xxh3_64_intdigest(v) for v in plain]
    for seed in (0, 1):
        high, low = xxh3_128(pa.chunked_array([column]), seed)
        found = [(h << 64) + low_half for h, low_half in zip(high.tolist(), low.tolist(), strict=True)]
        assert found == [xxhash.xxh3_128_intdigest(v, seed) for v in plain]


def test_spread_numbers_are_fixed_apart_and_everywhere() -> None:
    """Indexes are sorted by them."""
    numbers = (np.arange(40, dtype=np.uint64)[:, None] << np.uint64(32)) + np.arange(5000, dtype=np.uint64)
    found = spread(numbers.ravel())
    fixed = spread(np.array([1, 1 << 32, 1 << 63], np.uint64))
    assert [hex(n) for n in fixed] == ["0xca009717327d1f6e", "0x970818a66d8249b6", "0x8838ccab3219d0b4"]
    assert len(np.unique(found)) == found.size
    counts = np.bincount((found >> np.uint64(58)).astype(np.int64), minlength=64)
    assert counts.min() > 0.9 * found.size / 64
