"""Utterances with real audio, for the tests of shards here and in tests/readers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from operators.speech.codec import encode_flac
from operators.speech.spool import RATE

RECORDING = "0123456789abcdef0123456789abcdef"
WORDS = pa.list_(pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())]))


def tone(number: int) -> np.ndarray:
    """A third of a second and more of a tone of its own."""
    samples = np.arange(8000 + 100 * number)
    return (0.4 * np.sin(2 * np.pi * (200 + 10 * number) * samples / RATE)).astype(np.float32)


def utterances(ids: list[str], tokens: bool = False) -> pa.Table:
    """Rows as the speech workflow has them; the second has no text, words nor speaker."""
    numbers = range(len(ids))
    samples = [len(tone(k)) for k in numbers]
    rows = len(ids)
    columns = {
        "id": pa.array(ids, pa.string()),
        "text": pa.array([None if k == 1 else f"Hello {k}, “you”." for k in numbers], pa.large_string()),
        "payload": pa.array([encode_flac(tone(k)) for k in numbers], pa.large_binary()),
        "content_type": pa.array(["audio/flac"] * rows, pa.string()),
        "source": pa.array(["radio"] * rows, pa.string()),
        "dnsmos": pa.array([3.0 + k / 100 for k in numbers], pa.float32()),
        "end": pa.array([2.0 * k + 1 for k in numbers], pa.float64()),
        "recording": pa.array([f"radio/2024/ep {k % 2}.mp3" for k in numbers], pa.string()),
        "samples": pa.array(samples, pa.int64()),
        "speaker": pa.array([None if k == 1 else f"{RECORDING}/S01" for k in numbers], pa.string()),
        "start": pa.array([2.0 * k for k in numbers], pa.float64()),
        "units": pa.array([[k, 65_535] for k in numbers], pa.list_(pa.uint16())),
        "words": pa.array([None if k == 1 else [{"word": "Hello", "start": 0.01, "end": 0.2}] for k in numbers], WORDS),
    }
    if tokens:
        columns["input_ids"] = pa.array([[2] * k + [0] for k in numbers], pa.large_list(pa.uint16()))
    return pa.table(columns)
