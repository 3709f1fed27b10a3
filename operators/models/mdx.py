"""UVR-MDX-NET-Inst_HQ_3 as Emilia runs it (He et al. 2024, arXiv:2407.05361; Amphion, preprocessors/Emilia): the
network says what is instruments in music, and speech is what is left.

The file is not ours to give: the recipe names it. It takes the spectrogram of stereo, here of one channel twice: 6,144
samples by steps of 1,024 at 44.1 kHz, without the highest band. Emilia gives it 15 s at a time with a second more at
both ends, in windows of 261,120 samples, and takes the mean of what it says of these and of the same upside down
("denoise"). On a GPU where there is one, else in one thread; devices round differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from operators.document import Pinned
from operators.models.onnx import CPU, session
from operators.models.separator import Samples, at_rate, chunks
from operators.models.weights import needs

MODEL_RATE = 44_100
CHUNK = 15 * MODEL_RATE
MARGIN = MODEL_RATE
TRANSFORM = 6144
HOP = 1024
BANDS = 3072  # of 3,073
FRAMES = 256
WINDOW = HOP * (FRAMES - 1)
TRIM = TRANSFORM // 2  # samples at both ends of a window that are not used
PLANES = 4  # left real, left imaginary, right real, right imaginary
SHAPE = (PLANES, BANDS, FRAMES)


@dataclass(frozen=True)
class Mdx:
    """The network in an ONNX file."""

    model: Pinned

    def check(self) -> None:
        """Raises ValueError where a package is missing, or the file is no such network."""
        self._session([CPU])

    def load(self) -> MdxSeparator:
        needs("onnxruntime")
        import onnxruntime

        available = onnxruntime.get_available_providers()
        wanted = ("CUDAExecutionProvider", CPU)
        return MdxSeparator(self._session([name for name in wanted if name in available]))

    def _session(self, providers: list[str]) -> Any:
        needs("onnxruntime", "soxr")
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        try:
            network = session(self.model.read(), providers)
        except (errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument, errors.Fail) as error:
            raise ValueError(f"{self.model.path}: {error}") from None
        for what, ends in (("takes", network.get_inputs()), ("gives", network.get_outputs())):
            found = [list(end.shape) for end in ends]
            fits = len(found) == 1 and len(found[0]) == 1 + len(SHAPE)
            if not fits or any(isinstance(n, int) and n != m for n, m in zip(found[0][1:], SHAPE, strict=True)):
                raise ValueError(f"{self.model.path}: it {what} {found}, not one of {['batch', *SHAPE]}")
        return network


class MdxSeparator:
    """The loaded network (see separator.Separator)."""

    def __init__(self, network: Any) -> None:
        self._session, self._input = network, network.get_inputs()[0].name

    def speech(self, samples: Iterable[Samples], rate: int) -> Iterator[Samples]:
        return at_rate(samples, rate, MODEL_RATE, self._stream)

    def _stream(self, samples: Iterator[Samples]) -> Iterator[Samples]:
        for chunk in chunks(samples, CHUNK, MARGIN):
            left = chunk.samples - self._instruments(chunk.samples)
            yield left[chunk.before : len(left) - chunk.after]

    def _instruments(self, samples: Samples) -> Samples:
        step = WINDOW - 2 * TRIM
        fill = step - len(samples) % step
        windows = sliding_window_view(np.pad(samples, (TRIM, TRIM + fill)), WINDOW)[::step]
        planes = spectrogram(windows)
        planes = np.concatenate((planes, planes), axis=1)  # both channels are the same
        found = (self._run(planes) - self._run(-planes)) * np.float32(0.5)
        return waveform(found[:, :2])[:, TRIM:-TRIM].reshape(-1)[: len(samples)]

    def _run(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run(None, {self._input: planes})[0]
        return found


@cache
def _hann() -> Samples:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(TRANSFORM) / TRANSFORM)).astype(np.float32)


@cache
def _overlap() -> Samples:
    """The sum of the squares of all windows that lie over a sample, where that is not nothing."""
    total: Samples = _added(np.broadcast_to(_hann() ** 2, (1, FRAMES, TRANSFORM)))[0, TRIM : TRIM + WINDOW]
    return total


def spectrogram(windows: Samples) -> NDArray[np.float32]:
    """[n, 2, BANDS, FRAMES], real and imaginary, of n windows, which are mirrored at their ends."""
    mirrored = np.pad(windows, ((0, 0), (TRIM, TRIM)), "reflect")
    frames = sliding_window_view(mirrored, TRANSFORM, axis=1)[:, ::HOP] * _hann()
    found = np.fft.rfft(frames, axis=2)[:, :, :BANDS].transpose(0, 2, 1)
    return np.stack((found.real, found.imag), axis=1).astype(np.float32)


def waveform(planes: NDArray[np.float32]) -> Samples:
    """The windows [n, WINDOW] whose spectrogram it is, or that come nearest to it (Griffin and Lim 1984)."""
    spectrum = (planes[:, 0] + 1j * planes[:, 1]).transpose(0, 2, 1)
    frames = np.fft.irfft(spectrum, TRANSFORM, axis=2).astype(np.float32) * _hann()  # the band without value is nought
    found: Samples = _added(frames)[:, TRIM : TRIM + WINDOW] / _overlap()
    return found


def _added(frames: NDArray[np.float32]) -> Samples:
    """[n, samples]: frames [n, FRAMES, TRANSFORM] laid over each other, each HOP after the one before."""
    parts = frames.reshape(len(frames), FRAMES, TRANSFORM // HOP, HOP)
    total = np.zeros((len(frames), FRAMES + TRANSFORM // HOP - 1, HOP), np.float32)
    for k in range(TRANSFORM // HOP):
        total[:, k : k + FRAMES] += parts[:, :, k]
    return total.reshape(len(frames), -1)
