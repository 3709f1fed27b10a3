"""Speech as discrete units, which language models of speech read and write as they do tokens (Lakhotia et al. 2021,
arXiv:2102.01192; GLM-4-Voice, arXiv:2411.17607: 12.5 a second)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, model_validator

from operators.document import Operator, PinnedFile, loaded, parameters, with_columns
from operators.models.neural_codec import NeuralCodec
from operators.models.units import CODEBOOK, LogMelUnits, UnitEncoder, read_codebook
from operators.speech.codec import decode

RATES = (12.5, 25.0, 50.0)


def _known(rate: float) -> float:
    if rate not in RATES:
        raise ValueError(f"{rate:g} is none of {', '.join(f'{one:g}' for one in RATES)}")
    return rate


@parameters
class Units(Operator):
    """Adds `units` (list of uint16, round(seconds * rate) of them, within one) and `unit_rate`, units a second; null
    for an utterance without audio.

    `codebook`: centroids of one's own (`corpusmill train units`) in place of the 256 that come along. `rate`: units a
    second of those. `codec`: a neural codec in a folder in place of centroids, which has a rate of its own. Repeated
    units stay: `interleave` finds the units of a word by their places.
    """

    name: ClassVar[str] = "units"

    codebook: PinnedFile | None = None
    rate: Annotated[float, AfterValidator(_known)] = 12.5
    codec: NeuralCodec | None = None
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.codec is not None:
            for field in ("codebook", "rate"):
                if (value := getattr(self, field)) != getattr(type(self), field):
                    raise ValueError(f"{field}: {value} has no effect with a codec")
        elif self.codebook is not None:
            read_codebook(self.codebook)
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("payload",)

    @property
    def adds(self) -> tuple[str, ...]:
        return ("units", "unit_rate")

    @property
    def gpu(self) -> bool:
        """A codec is faster with one."""
        return self.codec is not None

    @property
    def clusters(self) -> int:
        """How many different units there are."""
        return self.codec.clusters if self.codec else len(read_codebook(self.codebook or CODEBOOK))

    def __call__(self, docs: pa.Table) -> pa.Table:
        encoder: UnitEncoder = loaded(self.codec or LogMelUnits(self.codebook or CODEBOOK, self.rate))
        found: list[np.ndarray | None] = []
        for payload in docs["payload"]:
            audio = payload.as_py()
            found.append(None if audio is None else encoder.encode(decode(audio)))
        rates = pa.array([None if units is None else encoder.rate for units in found], pa.float32())
        return with_columns(docs, {"units": pa.array(found, pa.list_(pa.uint16())), "unit_rate": rates})
