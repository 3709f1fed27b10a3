"""Drop recordings that are on the list of an evaluation set, by their file names, before anything is decoded.

Names say nothing of copies under other names: decontaminate_audio hears those, where the set's audio is at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
import pydantic
from pydantic import Field, model_validator

from operators.caption.clip_list import ClipIndex, ClipLists
from operators.document import Operator, PinnedFile, drop, loaded, parameters
from operators.read.recording import RECORDING

HELD_OUT = "held_out/"  # before the name of a set: what is counted


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
    listed video goes; with `overlap` one stays whose start is 10 s or more from those listed, if both are known: a
    name says where a clip starts in seconds, up to 1,000, and if it says an end too, one at most 10 s later."""

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

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """What was held out because of each list; of one of no use, nothing in a whole build."""
        return held_out(self.sets, marked)

    def __call__(self, docs: pa.Table) -> pa.Table:
        index: ClipIndex = loaded(self._lists)
        found = [index.find(recording, self.offsets == "overlap") for recording in docs[RECORDING].to_pylist()]
        return drop(docs, [None if listed is None else "held_out" for listed in found], detail=found)


def held_out(sets: Iterable[str], marked: pa.Table) -> dict[str, int]:
    """Rows that were dropped because of each of some sets, whose names begin the details."""
    details = [detail for detail in marked["drop_detail"].to_pylist() if detail is not None]
    return {f"{HELD_OUT}{name}": sum(detail.startswith(f"{name}: ") for detail in details) for name in sorted(sets)}
