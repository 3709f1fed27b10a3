"""What people say is in a clip: labels from a file, such as AudioSet's (Gemmeke et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from operators.caption.label_file import LabelFile, Labels
from operators.document import SCRATCH_COLUMN, Operator, PinnedFile, loaded, parameters, with_columns
from operators.read.recording import RECORDING

TWICE = f"{SCRATCH_COLUMN}labelled_twice"
LABELLED, UNLABELLED = "labelled", "unlabelled"  # what is counted


@parameters
class Label(Operator):
    """Adds `labels`, null where the file has none for the recording. After `clip`, a line that has times counts for the
    clips that lie within them, or they within the clip, by at least half."""

    name: ClassVar[str] = "label"
    file: PinnedFile | None = (
        None  # .csv, .tsv, .jsonl or .parquet: `recording`, `labels`, and `start`, `end` in seconds
    )
    names: PinnedFile | None = None  # AudioSet's class_labels_indices.csv, where labels are its identifiers
    times: Literal["recording", "source"] | None = None  # in what they are; unset: AudioSet's in what it was cut from
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _file_can_be_used(self) -> Self:
        for name in ("names", "times"):
            if self.file is None and getattr(self, name) is not None:
                raise ValueError(f"{name}: of no use without `file`")
        if self.file is not None:
            loaded(LabelFile(self.file, self.names))  # says what is wrong with it before any work
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return (RECORDING,)

    @property
    def adds(self) -> tuple[str, ...]:
        return ("labels",)

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Rows with labels and without, and those for which the file says something twice."""
        if self.file is None:
            return {}
        labelled = len(marked) - marked["labels"].null_count
        twice = pc.sum(marked[TWICE]).as_py() or 0
        return {LABELLED: labelled, UNLABELLED: len(marked) - labelled, "labelled_twice": twice}

    def __call__(self, docs: pa.Table) -> pa.Table:
        kind = pa.list_(pa.string())
        if self.file is None:
            return with_columns(docs, {"labels": pa.nulls(len(docs), kind)})
        labels, found = self._labels, self._lines(docs)
        columns = {
            "labels": pa.array([labels.labels(lines) or None for lines in found], kind),
            TWICE: pa.array([labels.repeated(lines) for lines in found], pa.bool_()),
        }
        return with_columns(docs, columns)

    @property
    def _labels(self) -> Labels:
        assert self.file is not None
        found: Labels = loaded(LabelFile(self.file, self.names))
        return found

    def _lines(self, docs: pa.Table) -> list[list[int]]:
        """The lines of the file that count for each row."""
        labels = self._labels
        recordings = docs[RECORDING].to_pylist()
        listed = {recording: labels.lines(recording) for recording in set(recordings)}
        timed = self.times != "source" if self.times else not labels.audioset
        if not timed or "start" not in docs.column_names:
            return [list(listed[recording]) for recording in recordings]
        times = (docs[name].to_numpy().astype(np.float64) for name in ("start", "end"))
        rows = zip(recordings, *times, strict=True)
        return [labels.within(listed[recording], start, end) for recording, start, end in rows]
