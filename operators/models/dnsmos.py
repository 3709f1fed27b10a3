"""DNSMOS P.835 (Reddy et al. 2022, arXiv:2110.01763; Microsoft's DNS-Challenge, weights of the package speechmos, MIT):
what listeners would say, from 1 to 5, of the speech, of the background, and overall.

The model hears 9.01 s at 16 kHz; a polynomial brings its answer to the scale of listeners (the authors' script, not
the personalised variant). A window is a run of its own, which on one thread is also the fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.models import weights
from operators.models.onnx import session

RATE = 16_000
LENGTH = 144_160  # samples of a window: 9.01 s
FITS = {  # of the square, of the answer itself, and a constant
    "overall": (-0.06766283, 1.11546468, 0.04602535),
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
}


class Opinion(NamedTuple):
    """Mean opinion scores, three decimals."""

    overall: float
    signal: float
    background: float


@dataclass(frozen=True)
class Dnsmos:
    """The model in the installed package."""

    weight: weights.Weight = weights.DNSMOS

    def load(self) -> Listener:
        """Raises ValueError where it is missing, naming the extra."""
        weights.needs("onnxruntime")
        return Listener(weights.find(self.weight).read_bytes())


class Listener:
    """The loaded model."""

    def __init__(self, data: bytes) -> None:
        self._session = session(data)

    def opinion(self, windows: Sequence[NDArray[np.float32]]) -> Opinion:
        """The mean over windows of LENGTH samples at RATE."""
        answers = [self._session.run(None, {"input_1": window[None]})[0][0] for window in windows]
        signal, background, overall = np.array(answers, np.float64).T
        heard = {"overall": overall, "signal": signal, "background": background}
        return Opinion(**{name: round(float(np.polyval(FITS[name], raw).mean()), 3) for name, raw in heard.items()})
