"""Hybrid Transformer Demucs (Rouard et al. 2023, arXiv:2211.08553): the voice in music, by a checkpoint as published.

The recipe names the file, such as 955717e8-8726e21a.th (htdemucs) or 04573f0d-f3cf25b2.th (htdemucs_ft, voice). Such a
file is a pickle; it is read by PyTorch's reader of weights, which makes nothing but tensors and this class and refuses
all else. The network works on 7.8 s at a time with a quarter overlapping, without random shifts (`shifts` 0), so that
a result can be had again. On a GPU where there is one, else in one thread; devices round differently.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from operators.document import Pinned
from operators.models.separator import Samples, at_rate, chunks
from operators.models.weights import needs

EXTRA = "corpusmill[separation]"
PACKAGES = ("torch", "demucs", "soxr")
CHUNK_SECONDS = 60
MARGIN_SECONDS = 8  # at both ends of a chunk: more than the network sees at a time
OVERLAP = 0.25  # as published
VOICE = "vocals"


@dataclass(frozen=True)
class Demucs:
    """The network in a file of torch.save: class, arguments and weights."""

    model: Pinned

    def check(self) -> None:
        """Raises ValueError where a package is missing, or the file is no checkpoint. Nothing of it is loaded."""
        needs(*PACKAGES, extra=EXTRA)
        if not zipfile.is_zipfile(self.model.path):
            raise ValueError(f"{self.model.path}: no checkpoint of PyTorch")

    def load(self) -> DemucsSeparator:
        """Raises ValueError for a file that holds anything else than an HTDemucs that knows a voice."""
        self.check()
        import torch  # here, because most builds do without them
        from demucs.htdemucs import HTDemucs
        from demucs.states import load_model

        with torch.serialization.safe_globals([HTDemucs, Fraction]):
            try:
                package = torch.load(io.BytesIO(self.model.read()), map_location="cpu", weights_only=True)
            except (torch.serialization.pickle.UnpicklingError, RuntimeError) as error:  # what it refuses; no archive
                raise ValueError(f"{self.model.path}: {error}") from None
        if not isinstance(package, dict) or package.get("klass") is not HTDemucs:
            raise ValueError(f"{self.model.path}: no checkpoint of HTDemucs")
        network = load_model(package)
        if VOICE not in network.sources:
            raise ValueError(f"{self.model.path}: it knows {', '.join(network.sources)}, but no {VOICE}")
        gpu = torch.cuda.is_available()
        if not gpu:
            torch.set_num_threads(1)  # a worker is given one core
        return DemucsSeparator(network.to("cuda" if gpu else "cpu").eval(), "cuda" if gpu else "cpu")


class DemucsSeparator:
    """The loaded network (see separator.Separator)."""

    def __init__(self, network: Any, device: str) -> None:
        self._network, self._device = network, device
        self._rate = int(network.samplerate)

    def speech(self, samples: Iterable[Samples], rate: int) -> Iterator[Samples]:
        return at_rate(samples, rate, self._rate, self._stream)

    def _stream(self, samples: Iterator[Samples]) -> Iterator[Samples]:
        for chunk in chunks(samples, CHUNK_SECONDS * self._rate, MARGIN_SECONDS * self._rate):
            voice = self._voice(chunk.samples)
            yield voice[chunk.before : len(voice) - chunk.after]

    def _voice(self, samples: Samples) -> Samples:
        import torch
        from demucs.apply import apply_model

        mix = torch.from_numpy(np.ascontiguousarray(samples))[None, None].expand(1, self._network.audio_channels, -1)
        with torch.inference_mode():
            found = apply_model(self._network, mix, shifts=0, split=True, overlap=OVERLAP, device=self._device)
        voice: Samples = found[0, self._network.sources.index(VOICE)].mean(0).cpu().numpy()
        return voice
