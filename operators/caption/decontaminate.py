"""Drop recordings that are on the list of an evaluation set, by their file names, before anything is decoded.

Names say nothing of copies under other names: decontaminate_audio hears those, where the set's audio is at hand.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
import pydantic
from pydantic import Field, model_validator

from operators.caption.clip_list import ClipIndex, ClipLists
from operators.document import Operator, PinnedFile, drop, loaded, parameters
from operators.read.recording import RECORDING


@parameters
class ClipList:
    """A file of names: lines, .csv, .tsv, .jsonl or .parquet; `column` unset: the one that is called like names are."""

    path: PinnedFile
    column: str | None = None


def _by_path(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


@parameters
class DecontaminateClips(Operator):
    """`sets`: lists by name, each a path or {path, column}. Drops what is `held_out`; the detail is the list and the
    entry.

    A file name matches as a whole, without its ending: that of an entry, or for ids of YouTube `ID`, `ID_START` or
    `ID_START_END`, with or without `Y` before, in the list as in the recording. With `offsets: ignore` each clip of a
    listed video goes; with `overlap` one stays whose start is 10 s or more from those listed, if both are known."""

    name: ClassVar[str] = "decontaminate_clips"
    sets: Annotated[
        dict[
            Annotated[str, Field(min_length=1)],
            Annotated[ClipList, pydantic.BeforeValidator(_by_path, json_schema_input_type=str | ClipList)],
        ],
        Field(min_length=1),
    ]
    offsets: Literal["ignore", "overlap"] = "ignore"
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _lists_can_be_used(self) -> Self:
        loaded(self._lists)  # says what is wrong with a file before any work
        return self

    @property
    def _lists(self) -> ClipLists:
        return ClipLists(tuple((name, one.path, one.column) for name, one in sorted(self.sets.items())))

    @property
    def needs(self) -> tuple[str, ...]:
        return (RECORDING,)

    def __call__(self, docs: pa.Table) -> pa.Table:
        index: ClipIndex = loaded(self._lists)
        found = [index.find(recording, self.offsets == "overlap") for recording in docs[RECORDING].to_pylist()]
        return drop(docs, [None if listed is None else "held_out" for listed in found], detail=found)
