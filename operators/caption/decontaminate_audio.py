"""Drop clips that sound like one of an evaluation set, under whatever name: by fingerprints of its recordings, which
`corpusmill fingerprint` made, compared as similar_audio compares clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from operators.caption.decontaminate import held_out
from operators.caption.fingerprint import FINGERPRINT, WORDS_A_SECOND
from operators.caption.heard_sets import HeardIndex, HeardSets
from operators.dedup.acoustic import DIGITS, flat
from operators.document import Operator, PinnedFile, drop, loaded, parameters


@parameters
class DecontaminateAudio(Operator):
    """`sets`: files of fingerprints by name. Drops what is `held_out`; the value is the similarity, the detail the set
    and the clip. `max_error` and `min_overlap` as in similar_audio. Clips without a fingerprint stay."""

    name: ClassVar[str] = "decontaminate_audio"
    sets: Annotated[dict[Annotated[str, Field(min_length=1)], PinnedFile], Field(min_length=1)]
    max_error: Annotated[float, Field(gt=0, le=0.4)] = 0.3
    min_overlap: Annotated[float, Field(ge=1, le=600)] = 3.0
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _sets_can_be_used(self) -> Self:
        loaded(self._sets)  # says what is wrong with a file before any work
        return self

    @property
    def _sets(self) -> HeardSets:
        return HeardSets(tuple(sorted(self.sets.items())))

    @property
    def needs(self) -> tuple[str, ...]:
        return (FINGERPRINT,)

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """What was held out because of each set."""
        return held_out(self.sets, marked)

    def __call__(self, docs: pa.Table) -> pa.Table:
        index: HeardIndex = loaded(self._sets)
        similarity, other = index.matches(*flat(docs[FINGERPRINT]), self.min_overlap * WORDS_A_SECOND)
        least = round(1 - self.max_error, DIGITS)
        held = similarity >= least
        reason = pc.if_else(pa.array(held), "held_out", pa.scalar(None, pa.string()))
        detail = [index.names[n] if is_held else None for n, is_held in zip(other, held, strict=True)]
        return drop(docs, reason, value=similarity, threshold=least, detail=detail)
