"""Reads damaged Parquet files in a process of its own, which a crash would end, and prints what became of them.

`python -m tests.security.fuzzing SEED COUNT FOLDER`. The last file is left in the folder: it is the one to blame.
"""

from __future__ import annotations

import io
import json
import random
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.units import peak_rss_bytes
from operators.read.reader import cut, read
from operators.read.span import Fields, ReadError
from tests.operators.read.archives import opened, whole

ROWS = 60
ADDRESS_SPACE = 6 << 30
FORMS: tuple[dict[str, Any], ...] = (
    {"compression": "snappy"},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "data_page_version": "2.0"},
    {"compression": "none", "use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    {"compression": "gzip", "store_schema": False},
    {"compression": "lz4", "write_page_index": True},
    {"compression": "brotli", "write_page_checksum": True},
)


def table() -> pa.Table:
    numbers = range(ROWS)
    return pa.table(
        {
            "text": [f"a text {n} of some length" for n in numbers],
            "id": [f"d{n}" for n in numbers],
            "list": [[f"tag{n % 4}"] * (n % 4) for n in numbers],
            "struct": [{"a": n, "b": [{"c": str(n)}]} for n in numbers],
            "decimal": pa.array(numbers, pa.decimal128(20, 3)),
            "fixed": pa.array([b"abcd"] * ROWS, pa.binary(4)),
            "time": pa.array(numbers, pa.timestamp("ns", "UTC")),
            "map": pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        }
    )


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The file with up to five of: a bit or byte changed, a number made huge, bytes copied or put in."""
    out = bytearray(data)
    footer = len(out) - 8 - int.from_bytes(out[-8:-4], "little")
    low, high = (footer, len(out) - 8) if rng.random() < 0.5 else (4, footer)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, size = rng.randrange(low, high), rng.randrange(1, 20)
        how = rng.choice(("bit", "byte", "huge", "copy", "insert"))
        if how == "bit":
            out[at] ^= 1 << rng.randrange(8)
        elif how == "byte":
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == "huge":
            out[at : at + 8] = (b"\xff" * 7 + b"\x7f")[: max(1, min(8, high - at))]
        elif how == "copy":
            other = rng.randrange(low, high)
            out[at : at + size] = out[other : other + size]
        else:
            out[at:at] = rng.randbytes(size)
    return bytes(out)


def main(seed: int, count: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    forms = []
    for form in FORMS:
        buffer = io.BytesIO()
        pq.write_table(table(), buffer, row_group_size=25, **form)
        forms.append(buffer.getvalue())
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    path = folder / f"damaged-{seed}.parquet"
    for _ in range(count):
        path.write_bytes(damaged(rng.choice(forms), rng))
        try:
            for span in cut(whole(path), opened, 1, Fields()):
                for batch in read(span, opened, Fields()):
                    batch.docs.validate(full=True)
                    found["rows"] += batch.docs.num_rows
                    found.update(batch.quarantined["reason"].to_pylist())
        except ReadError:
            found["refused"] += 1
    peak = peak_rss_bytes() >> 20
    print(json.dumps({**found, "peak_mib": peak}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
