"""Recordings cut into pieces that are rows: what is kept carries its audio, what is not says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from operators.apply import SPLIT
from operators.document import drop, with_columns
from operators.speech.codec import FLAC, encode_flac
from operators.speech.spool import RATE, Spool, release_all, samples_of

PIECE = 1 << 24  # bytes of audio that are gathered into one chunk of the column
OWN = ("payload", "text")  # columns of the recording that its pieces do not inherit
COLUMNS = {
    "samples": pa.int64(),
    "payload": pa.large_binary(),
    "content_type": pa.string(),
    "start": pa.float64(),
    "end": pa.float64(),
    "audio_key": pa.string(),
}  # of its pieces, by its own beside `id`


class Piece(NamedTuple):
    """Samples `start` to `stop` of a recording, and why they are dropped, if they are."""

    start: int
    stop: int
    reason: str = ""
    value: float = np.nan
    threshold: float = np.nan

    @property
    def seconds(self) -> float:
        return (self.stop - self.start) / RATE


def split(
    recordings: pa.Table, cut: Callable[[int, Spool], pa.Table], more: Mapping[str, pa.DataType] | None = None
) -> pa.Table:
    """Each recording, dropped as `split`, and after it the rows that `cut` makes of it, which is given its place in the
    table and its samples. These are let go of. `more` are the columns that `cut` adds to those of `rows_of`: without
    recordings they are there too."""
    marked = drop(recordings, [SPLIT] * len(recordings))
    if not len(recordings):
        return with_columns(marked, {name: pa.nulls(0, kind) for name, kind in {**COLUMNS, **(more or {})}.items()})
    tables = []
    for row, recording in enumerate(recordings["id"].to_pylist()):
        tables += [marked.slice(row, 1), cut(row, samples_of(recording))]
    release_all()
    return pa.concat_tables(tables, promote_options="permissive")


def rows_of(parent: pa.Table, pieces: Sequence[Piece], spool: Spool, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The rows `recording/00000`, ... of a recording's pieces, which are in order of time, as `columns` of them are.
    Those that are dropped come first: so what is kept is one slice of the table, and no audio is copied; it is in
    chunks of PIECE bytes. `parent` is the recording's row, with its `digest`."""
    (recording,), (digest,) = parent["id"].to_pylist(), parent["digest"].to_pylist()
    places = sorted(range(len(pieces)), key=lambda n: (not pieces[n].reason, n))
    pieces = [pieces[n] for n in places]
    inherited = parent.drop_columns([name for name in OWN if name in parent.column_names])
    own = {
        "id": pa.array([f"{recording}/{n:05d}" for n in places], parent.schema.field("id").type),
        "samples": pa.array([piece.stop - piece.start for piece in pieces], COLUMNS["samples"]),
        "payload": _audio(pieces, spool),
        "content_type": pa.array([None if piece.reason else FLAC for piece in pieces], COLUMNS["content_type"]),
        "start": pa.array([round(piece.start / RATE, 3) for piece in pieces], COLUMNS["start"]),
        "end": pa.array([round(piece.stop / RATE, 3) for piece in pieces], COLUMNS["end"]),
        **{name: column.take(pa.array(places, pa.int64())) for name, column in columns.items()},
        "audio_key": pa.array([f"{digest}:{piece.start}-{piece.stop}" for piece in pieces], COLUMNS["audio_key"]),
    }
    rows = inherited.take(pa.array(np.zeros(len(pieces), np.int64)))
    return drop(
        with_columns(rows, own),
        [piece.reason or None for piece in pieces],
        np.array([piece.value for piece in pieces], np.float64),
        np.array([piece.threshold for piece in pieces], np.float64),
    )


def _audio(pieces: Iterable[Piece], spool: Spool) -> pa.ChunkedArray:
    """The pieces as FLAC, null where they are dropped; in chunks of PIECE bytes, for only one is there twice."""
    chunks: list[pa.Array] = []
    held: list[bytes | None] = []
    size = 0
    for piece in pieces:
        held.append(None if piece.reason else encode_flac(spool.read(piece.start, piece.stop)))
        size += len(held[-1] or b"")
        if size >= PIECE:
            chunks.append(pa.array(held, COLUMNS["payload"]))
            held, size = [], 0
    return pa.chunked_array([*chunks, pa.array(held, COLUMNS["payload"])], COLUMNS["payload"])
