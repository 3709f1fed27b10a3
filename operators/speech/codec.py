"""Utterances as bytes: FLAC, or MP3, of 16 bit mono samples at RATE, and back.

The same samples give the same bytes: no clock, no date, no version of a program is written. FLAC gives back exactly
what was stored; MP3 its length.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray

from operators.speech.frames import to_int16
from operators.speech.spool import RATE

FLAC, MP3 = "audio/flac", "audio/mpeg"
BIT_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # kbit/s of MPEG-2 layer III, which is for RATE

MP3_DELAY = 576 + 529  # samples by which LAME, and then a decoder, is late


def encode_flac(samples: NDArray[np.float32]) -> bytes:
    """Samples in [-1, 1] at RATE as a FLAC file of 16 bits."""
    import soundfile  # of the extra `speech`

    file = io.BytesIO()
    soundfile.write(file, _raw(samples), RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def encode_mp3(samples: NDArray[np.float32], bit_rate: int = 128) -> bytes:
    """Samples in [-1, 1] at RATE as an MP3 of `bit_rate` kbit/s; 128 is what FFmpeg, and so Emilia, writes unasked."""
    import av  # of the extra `speech`

    if bit_rate not in BIT_RATES:
        raise ValueError(f"an MP3 of {RATE} Hz has no bit rate {bit_rate}: one of {', '.join(map(str, BIT_RATES))}")
    file, quiet = io.BytesIO(), {"write_id3v2": "0", "fflags": "+bitexact"}
    with av.open(file, "w", format="mp3", container_options=quiet) as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono", options={"flags": "+bitexact"})
        stream.bit_rate = 1000 * bit_rate
        stream.codec_context.format = "s16p"
        stream.codec_context.open()
        raw, size = _raw(samples), stream.codec_context.frame_size
        packets = []
        for start in range(0, len(raw), size):
            frame = av.AudioFrame.from_ndarray(raw[None, start : start + size], format="s16p", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if surplus := len(packets) * size - MP3_DELAY - len(raw):
            # FFmpeg says so itself, but of no more than the last packet, where up to 46 samples more may be too many
            told = packets[-1].get_sidedata("skip_samples")
            told.update(struct.pack("<IIH", 0, surplus, 0))
            packets[-1].set_sidedata(told)
        container.mux(packets)
    return file.getvalue()


def _raw(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    if not len(samples):
        raise ValueError("an utterance without samples")
    return to_int16(samples)


def decode(data: bytes) -> NDArray[np.float32]:
    """The samples, at RATE, of what `encode_flac` or `encode_mp3` gave. Raises ValueError."""
    import soundfile  # of the extra `speech`

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise ValueError(f"no utterance: {error.error_string}") from error
    if rate != RATE or samples.ndim != 1:
        raise ValueError(f"no utterance: {rate} Hz, {samples.shape[1:] or (1,)} channels")
    return np.asarray(samples, np.float32)


def decode_at(data: bytes, rate: int) -> NDArray[np.float32]:
    """The same, resampled to `rate`."""
    return resampled(decode(data), rate)


def resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Samples at RATE, at `rate`: round(length * rate / RATE) of them."""
    import soxr  # of the extra `speech`

    if rate == RATE:
        return samples
    count = round(len(samples) * rate / RATE)
    found = soxr.resample(samples, RATE, rate)[:count]
    return np.pad(found, (0, count - len(found))).astype(np.float32, copy=False)
