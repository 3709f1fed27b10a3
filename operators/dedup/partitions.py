"""How many partitions a shuffle takes: each must fit a worker's memory a few times over, sorted copies included."""

from __future__ import annotations

PARTITION_BYTES = 256 << 20
BAND_BYTES = 16  # a row of the key of one band and its document
CANDIDATE_BYTES = 128  # a row of `keeper.candidates` with its keys, for ids up to about 80 letters


def partitions(rows: int, row_bytes: int) -> int:
    return max(1, -(-rows * row_bytes // PARTITION_BYTES))
