"""Standardisation as in Emilia-Pipe (He et al. 2024, arXiv:2407.05361, 3.1): 24 kHz, 16 bit, mono, at one loudness.

A gain of at most 3 dB either way brings the RMS level towards -20 dBFS; then the loudest sample becomes 1. Levels and
gains are what Emilia's come to, bit by bit: pydub's, which computes with 16 bits. The RMS level is cut to a whole
number, and so is each sample that was made louder or quieter, downwards; what is too loud is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Operator, drop, parameters, with_columns
from operators.histogram import numbers
from operators.models.weights import needs
from operators.read.recording import RECORDING, URL, open_recording
from operators.read.span import GONE
from operators.speech.decode import Decoder, Undecodable, told
from operators.speech.spool import FULL_SCALE, RATE, Spool, hold, release_all

TARGET_DBFS = -20.0
MOST_GAIN = 3.0  # dB, either way
BLOCK_SECONDS = 60.0
COLUMNS = {
    "samples": pa.int64(),
    "digest": pa.string(),
    "sample_rate": pa.int32(),
    "channels": pa.int32(),
    "codec": pa.string(),
    "bit_rate": pa.int64(),
    "truncated": pa.bool_(),
    "gain_db": pa.float32(),
}


class Level(NamedTuple):
    """Of samples of 16 bits."""

    samples: int
    squares: int  # their sum, exact
    least: int
    most: int

    @property
    def dbfs(self) -> float:
        """RMS level; minus infinity where all is zero."""
        return 10 * math.log10(self.squares / self.samples / FULL_SCALE**2) if self.squares else -math.inf


@parameters
class Standardise(Operator):
    """Decodes each recording into its spool (spool.py), at hand until the next table. Adds `samples` (at 24 kHz), their
    `digest`, what the file was, and `gain_db`.

    Drops what is `unreadable`, has `no_audio`, is `too_short` or `too_long`, `silent`, or `not_finite` for more than a
    share of its samples. A recording whose end or parts are missing is kept for the rest and says `truncated`.
    """

    name: ClassVar[str] = "standardise"
    min_seconds: Annotated[float, Field(ge=0)] = 0.1
    max_seconds: Annotated[float, Field(gt=0, le=7 * 86400)] = 86400.0
    min_dbfs: Annotated[float, Field(ge=-96, le=0)] = -90.0  # RMS level of the whole recording; below, it is silent
    max_not_finite: Annotated[float, Field(ge=0, le=1)] = 0.001
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _can_decode(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds: {self.min_seconds} is more than max_seconds, {self.max_seconds}")
        needs("av", "soxr")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return (RECORDING, URL)

    @property
    def adds(self) -> tuple[str, ...]:
        return tuple(COLUMNS)

    @property
    def cuts(self) -> Mapping[str, tuple[float, ...]]:
        return {"duration": (self.min_seconds, self.max_seconds)}

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        return {"duration": numbers(marked["samples"]) / RATE, "gain_db": numbers(marked["gain_db"])}

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        return {"truncated": pc.sum(marked["truncated"]).as_py() or 0}

    def __call__(self, docs: pa.Table) -> pa.Table:
        release_all()
        rows = zip(docs["id"].to_pylist(), docs[URL].to_pylist(), docs[RECORDING].to_pylist(), strict=True)
        found = [self._standardised(*row) for row in rows]
        heard = [columns for columns, _ in found]
        docs = with_columns(
            docs, {name: pa.array([row.get(name) for row in heard], kind) for name, kind in COLUMNS.items()}
        )
        failed = [error for _, error in found]
        return drop(
            docs,
            [error.reason if error else None for error in failed],
            np.array([error.value if error else np.nan for error in failed], np.float64),
            np.array([error.threshold if error else np.nan for error in failed], np.float64),
            [str(error) or None if error else None for error in failed],
        )

    def _standardised(self, id: str, url: str, recording: str) -> tuple[dict[str, object], Undecodable | None]:
        """The columns of a recording as far as they are known, and why it is dropped. Held, if it is not."""
        columns: dict[str, object] = {}
        spool = Spool()
        try:
            level = self._decoded(url, recording, spool, columns)
            if level.dbfs < self.min_dbfs:
                detail = "" if level.squares else "all samples are zero"
                raise Undecodable("silent", detail, level.dbfs if level.squares else np.nan, self.min_dbfs)
        except Undecodable as error:
            spool.close()
            return columns, error
        columns["gain_db"] = gain = gain_of(level)
        columns["digest"] = amplify(spool, level, gain)
        hold(id, spool)
        return columns, None

    def _decoded(self, url: str, recording: str, spool: Spool, columns: dict[str, object]) -> Level:
        """Fills the spool and the columns. Raises Undecodable."""
        try:
            file = open_recording(url)
        except GONE as error:  # any other error may be over when the unit is tried again
            raise Undecodable("unreadable", told(error)) from error
        with file, Decoder(file, recording) as decoder:
            squares, least, most = 0, 0, 0
            try:
                for block in decoder.blocks(self.max_seconds):
                    spool.append(block)
                    wide = block.astype(np.float64)  # holds the sum of squares of any block exactly
                    squares += int(np.dot(wide, wide))
                    least, most = min(least, block.min(initial=0)), max(most, block.max(initial=0))
            finally:  # what the file is, is told of what cannot be decoded to its end too
                columns |= {name: value for name, value in decoder.source._asdict().items() if name in COLUMNS}
            columns |= {"samples": spool.length, "truncated": decoder.truncated}
        if spool.length < self.min_seconds * RATE or not spool.length:
            raise Undecodable("too_short", "", spool.seconds, self.min_seconds)
        share = decoder.not_finite / decoder.decoded
        if share > self.max_not_finite:
            raise Undecodable("not_finite", "", share, self.max_not_finite)
        return Level(spool.length, squares, int(least), int(most))


def gain_of(level: Level) -> float:
    """Emilia's gain, in dB, by pydub's `dBFS`."""
    rms = int(math.sqrt(level.squares / level.samples))
    dbfs = 20 * math.log(rms / FULL_SCALE, 10) if rms else -math.inf
    return min(max(TARGET_DBFS - dbfs, -MOST_GAIN), MOST_GAIN)


def gain_table(gain: float) -> NDArray[np.int16]:
    """What pydub's `apply_gain` makes of each sample from -32768 to 32767."""
    louder = np.arange(-FULL_SCALE, FULL_SCALE) * 10 ** (gain / 20)
    louder[louder < -FULL_SCALE + 1] = -FULL_SCALE  # audioop's bounds, before it rounds down
    return np.floor(np.minimum(louder, FULL_SCALE - 1)).astype(np.int16)


def amplify(spool: Spool, level: Level, gain: float) -> str:
    """Apply the gain, and let the loudest sample read as 1. The digest of the samples, 16 bits each."""
    table = gain_table(gain)
    hasher = xxhash.xxh3_128()
    spool.scale = 1.0
    for start, stop in spool.blocks(BLOCK_SECONDS):
        samples = table[spool.read(start, stop).astype(np.int32) + int(FULL_SCALE)]
        spool.write(start, samples.astype(np.float32))
        hasher.update(samples.astype("<i2", copy=False).data)
    peak = max(int(table[level.most + int(FULL_SCALE)]), -int(table[level.least + int(FULL_SCALE)]))
    spool.scale = 1 / peak
    return hasher.hexdigest()
