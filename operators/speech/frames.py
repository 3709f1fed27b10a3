"""From the frames that FFmpeg decodes to the mean of their channels, and from samples in [-1, 1] to 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.speech.spool import FULL_SCALE

POINTERS = 8  # AV_NUM_DATA_POINTERS: planes for which a frame has room in itself


def channels_of(frame: Any) -> NDArray[Any]:
    """(channels, samples), as they were decoded."""
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        packed = frame.to_ndarray()
    elif channels < POINTERS:
        return frame.to_ndarray()  # type: ignore[no-any-return]
    else:
        packed = np.concatenate([part.to_ndarray() for part in _packed(frame)], axis=1)
    return packed.reshape(-1, channels).T  # type: ignore[no-any-return]


def _packed(frame: Any) -> list[Any]:
    """The frame with its channels side by side. PyAV looks for planes until it finds a null pointer, and where there
    are POINTERS of them or more, none follows the last."""
    import av

    packer = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate)
    return [*packer.resample(frame), *packer.resample(None)]


def mono(raw: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of the channels, full scale being 1."""
    full = -float(np.iinfo(raw.dtype).min) if raw.dtype.kind == "i" else 128.0 if raw.dtype.kind == "u" else 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # of wild floats: counted when the chunk is whole
        mixed: NDArray[np.float32] = raw[0].astype(np.float32)
        for channel in raw[1:]:
            mixed += channel.astype(np.float32, copy=False)
        mixed *= np.float32(1 / (len(raw) * full))
    return mixed - np.float32(1) if raw.dtype.kind == "u" else mixed


def to_int16(samples: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Samples in [-1, 1] as 16 bits, rounded to the nearest; what is louder is clipped."""
    scaled = samples * samples.dtype.type(FULL_SCALE)
    return np.clip(np.rint(scaled, out=scaled), -FULL_SCALE, FULL_SCALE - 1, out=scaled).astype(np.int16)
