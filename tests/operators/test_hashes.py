from __future__ import annotations

import pyarrow as pa
import pytest
import xxhash

from operators.hashes import xxh3_64, xxh3_128

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
