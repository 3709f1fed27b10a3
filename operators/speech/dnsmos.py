"""How good an utterance sounds, by DNSMOS P.835 (Reddy et al. 2022, arXiv:2110.01763), as Emilia-Pipe (He et al. 2024,
arXiv:2407.05361) judges it; see models/dnsmos.py.

It never drops: what is good enough is the choice of `speech_filter`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Operator, loaded, parameters, with_columns
from operators.models import dnsmos, weights
from operators.models.dnsmos import LENGTH, RATE, Listener
from operators.speech.codec import decode_at

HOP_SECONDS = 4.5  # half a window: the mean of a hop of 1 s within 0.06 on average, at a quarter of the cost


@parameters
class Dnsmos(Operator):
    """Adds `dnsmos`, of the utterance overall, `dnsmos_sig`, of the speech, and `dnsmos_bak`, of the background: from 1
    to 5, means over windows of 9.01 s; null where there is no audio. A short utterance is repeated.

    The windows cover the utterance evenly, about `hop_seconds` apart. Those of mode `emilia` are the published
    script's, which takes no hop: 1 s apart and, as it turns out, none that begins later than 6 s, but in a short
    utterance of which it hears several of the repetition."""

    name: ClassVar[str] = "dnsmos"
    mode: Literal["default", "emilia"] = "default"
    hop_seconds: Annotated[float, Field(ge=0.1, le=9.01)] | None = None  # 4.5
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.mode == "emilia" and self.hop_seconds is not None:
            raise ValueError(f"hop_seconds: {self.hop_seconds:g} has no meaning in mode emilia")
        weights.needs("onnxruntime", "speechmos", "soundfile", "soxr")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("payload",)

    @property
    def adds(self) -> tuple[str, ...]:
        return ("dnsmos", "dnsmos_sig", "dnsmos_bak")

    @property
    def measures(self) -> tuple[str, ...]:
        return self.adds

    def __call__(self, docs: pa.Table) -> pa.Table:
        listener: Listener = loaded(dnsmos.Dnsmos())
        scores = np.full((docs.num_rows, 3), np.nan)
        for row, payload in enumerate(docs["payload"]):
            if payload.is_valid and len(samples := decode_at(payload.as_py(), RATE)):
                scores[row] = listener.opinion(self._windows(samples))
        columns = {name: pa.array(scores[:, k], pa.float32(), from_pandas=True) for k, name in enumerate(self.adds)}
        return with_columns(docs, columns)

    def _windows(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        if self.mode == "emilia":
            return published_windows(samples)
        if len(samples) <= LENGTH:
            return [np.resize(samples, LENGTH)]
        surplus = len(samples) - LENGTH
        hops = round(surplus / RATE / (HOP_SECONDS if self.hop_seconds is None else self.hop_seconds))
        starts = np.rint(np.linspace(0, surplus, hops + 1)) if hops else [surplus // 2]
        return [samples[start : start + LENGTH] for start in map(int, starts)]


def published_windows(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Those of Microsoft's script, which Emilia-Pipe runs: 9.01 has no exact double, so the windows that begin from
    7 s to 23 s are a sample short for it, and are left out."""
    while len(samples) < LENGTH:
        samples = np.append(samples, samples)
    hops = int(len(samples) // RATE - LENGTH / RATE) + 1
    windows = [samples[k * RATE : int((k + LENGTH / RATE) * RATE)] for k in range(hops)]
    return [window for window in windows if len(window) == LENGTH]
