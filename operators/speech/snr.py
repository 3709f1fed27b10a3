"""The signal-to-noise ratio of an utterance by the distribution of its amplitudes: WADA-SNR (Kim and Stern 2008,
"Robust Signal-to-Noise Ratio Estimation Based on Waveform Amplitude Distribution Analysis", Interspeech).

Amplitudes of clean speech follow a gamma distribution of shape 0.4, and those of noise a normal one. The difference of
the logarithm of the mean magnitude and the mean of its logarithms then tells the ratio, by the authors' table. Speech
with few pauses, or whose loudness was evened out, is less peaked than that, and reads several dB too low.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import Operator, drop, parameters, with_columns
from operators.models import weights
from operators.speech.codec import decode

LOWEST, HIGHEST = -20, 100  # dB, of the table
# the statistic for each dB from LOWEST to HIGHEST, of shape 0.4; up to -15 dB it goes up and down
TABLE = np.fromstring(
    """
    0.40974774 0.40986926 0.40998566 0.40969089 0.40986186 0.40999006 0.41027138 0.41052627 0.41101024 0.41143264
    0.41231718 0.41337272 0.41526426 0.4178192 0.42077252 0.42452799 0.42918886 0.43510373 0.44234195 0.45161485
    0.46221153 0.47491647 0.48883809 0.50509236 0.52353709 0.54372088 0.56532427 0.58847532 0.61346212 0.63954496
    0.66750818 0.69583724 0.72454762 0.75414799 0.78323148 0.81240985 0.84219775 0.87166406 0.90030504 0.92880418
    0.95655449 0.9835349 1.01047155 1.0362095 1.06136425 1.08579312 1.1094819 1.13277995 1.15472826 1.17627308
    1.19703503 1.21671694 1.23535898 1.25364313 1.27103891 1.28718029 1.30302865 1.31839527 1.33294817 1.34700935
    1.3605727 1.37345513 1.38577122 1.39733504 1.40856397 1.41959619 1.42983624 1.43958467 1.44902176 1.45804831
    1.46669568 1.47486938 1.48269965 1.49034339 1.49748214 1.50435106 1.51076426 1.51698915 1.5229097 1.528578
    1.53389835 1.5391211 1.5439065 1.54858517 1.55310776 1.55744391 1.56164927 1.56566348 1.56938671 1.57307767
    1.57654764 1.57980083 1.58304129 1.58602496 1.58880681 1.59162477 1.5941969 1.59693155 1.599446 1.60185011
    1.60408668 1.60627134 1.60826199 1.61004547 1.61192472 1.61369656 1.61534074 1.61688905 1.61838916 1.61985374
    1.62135878 1.62268119 1.62390423 1.62513143 1.62632463 1.6274027 1.62842767 1.62945532 1.6303307 1.63128026
    1.63204102
    """,
    sep=" ",
)
FLOOR = 2.0**-16  # half a step of 16 bits: what reads as zero is below it


@parameters
class Snr(Operator):
    """Adds `snr`, in dB from -20 to 100, of the utterance in `payload`; null where all is silence. Drops what is below
    `min`, and silence, as `low_snr`."""

    name: ClassVar[str] = "snr"
    min: Annotated[float, Field(ge=LOWEST, le=HIGHEST)] | None = None  # dB; none: nothing is dropped. IndicWav2Vec: 15
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _package_is_there(self) -> Self:
        weights.needs("soundfile")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("payload",)

    @property
    def adds(self) -> tuple[str, ...]:
        return ("snr",)

    @property
    def measures(self) -> tuple[str, ...]:
        return ("snr",)

    @property
    def cuts(self) -> Mapping[str, tuple[float, ...]]:
        return {} if self.min is None else {"snr": (self.min,)}

    def __call__(self, docs: pa.Table) -> pa.Table:
        found = np.array([wada_snr(decode(audio.as_py())) if audio.is_valid else math.nan for audio in docs["payload"]])
        docs = with_columns(docs, {"snr": pa.array(found, pa.float32(), from_pandas=True)})
        if self.min is None:
            return docs
        low = ~(found >= self.min)
        return drop(docs, pa.array(np.full(len(found), "low_snr"), mask=~low), found, self.min)


def wada_snr(samples: NDArray[np.float32]) -> float:
    """In dB, to .01; not a number where there is nothing to hear."""
    magnitude = np.abs(samples - samples.mean(dtype=np.float64)).astype(np.float32) if len(samples) else samples
    if magnitude.max(initial=0) < FLOOR:
        return math.nan
    logarithms = np.log(np.maximum(magnitude, np.float32(FLOOR)))
    statistic = math.log(magnitude.mean(dtype=np.float64)) - float(logarithms.mean(dtype=np.float64))
    below = np.flatnonzero(statistic > TABLE)
    if not len(below):
        return float(LOWEST)
    if (last := int(below[-1])) == len(TABLE) - 1:
        return float(HIGHEST)
    between = (statistic - TABLE[last]) / (TABLE[last + 1] - TABLE[last])
    return round(LOWEST + last + float(between), 2)
