"""Keep the documents that a list names: a variant's (`corpusmill variants`), or any other tool's choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic import Field

from operators.document import Operator, Pinned, PinnedFile, drop, loaded, parameters
from operators.retracted import Ids, parse_ids


@dataclass(frozen=True)
class IdLists:
    """Lists of ids together, as `loaded` reads them once a process."""

    files: tuple[Pinned, ...]

    def load(self) -> Ids:
        """Raises ValueError for other bytes than the pinned ones."""
        found = [parse_ids(file.read()).cast(pa.large_string()) for file in self.files]
        return Ids(pa.chunked_array([chunk for ids in found for chunk in getattr(ids, "chunks", [ids])]))


@parameters
class OnlyIds(Operator):
    """Drops the documents that none of the files names; a file has an id a line, or is Parquet with a column `id`."""

    name: ClassVar[str] = "only_ids"
    files: Annotated[tuple[PinnedFile, ...], Field(min_length=1)]
    revision: Literal[1] = 1

    @pydantic.field_validator("files")
    @classmethod
    def _can_be_read(cls, files: tuple[Pinned, ...]) -> tuple[Pinned, ...]:
        for file in files:
            try:
                parse_ids(file.read())
            except ValueError as error:
                raise ValueError(f"{file.path}: {error}") from error
        return files

    @property
    def needs(self) -> tuple[str, ...]:
        return ("id",)

    def __call__(self, docs: pa.Table) -> pa.Table:
        ids: Ids = loaded(IdLists(self.files))
        return drop(docs, pc.if_else(pa.array(ids.has(docs["id"])), pa.scalar(None, pa.string()), "not_listed"))
