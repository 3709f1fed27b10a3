"""Recordings for tests, made by FFmpeg: a tone with noise, in any container."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, dict[str, Any]] = {  # suffix to how it is made
    "wav": {"codec": "pcm_s16le"},
    "f32.wav": {"form": "wav", "codec": "pcm_f32le"},
    "8k.wav": {"form": "wav", "codec": "pcm_u8", "rate": 8000},
    "aiff": {"codec": "pcm_s16be", "rate": 16000},
    "flac": {"codec": "flac"},
    "6.flac": {"form": "flac", "codec": "flac", "rate": 48000, "layout": "5.1"},
    "mp3": {"codec": "libmp3lame", "rate": 44100, "layout": "stereo"},
    "ogg": {"codec": "libopus", "rate": 48000},
    "m4a": {"form": "ipod", "codec": "aac", "rate": 44100, "layout": "stereo"},
    "aac": {"form": "adts", "codec": "aac", "rate": 44100},
    "mkv": {"form": "matroska", "codec": "aac", "rate": 48000, "layout": "stereo", "video": True},
    "mp4": {"codec": "aac", "rate": 48000, "video": True},
    "ts": {"form": "mpegts", "codec": "aac", "rate": 48000, "video": True},
    "webm": {"codec": "libopus", "rate": 48000},
    "wma": {"form": "asf", "codec": "wmav2", "rate": 44100, "bit_rate": 64_000},
    "g722": {"codec": "g722", "rate": 16000},
}
CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}


def tone(seconds: float, rate: int = 24_000) -> NDArray[np.int16]:
    """A tone of 220 Hz with a little noise; peak .42 of full scale."""
    times = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(5).uniform(-0.02, 0.02, len(times))
    return np.rint(32767 * (0.4 * np.sin(2 * np.pi * 220 * times) + noise)).astype(np.int16)


def recording(kind: str, seconds: float = 1.0) -> bytes:
    """The tone as a file of that kind."""
    made = KINDS[kind]
    samples = tone(seconds, made.get("rate", 24_000))
    return encoded(np.tile(samples, (CHANNELS[made.get("layout", "mono")], 1)), **{"form": kind, **made})


def encoded(
    samples: NDArray[np.int16],
    form: str,
    codec: str,
    rate: int = 24_000,
    layout: str = "mono",
    video: bool = False,
    bit_rate: int | None = None,
    after: int = 0,
) -> bytes:
    """A file of the given samples (channels, samples), with a moving picture if asked for, which may begin seconds
    before the sound."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        picture = _picture(container) if video else None
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        stream.codec_context.open()
        if picture:
            for number in range(10 * after + 10 * samples.shape[1] // rate):
                shade = np.full((32, 32, 3), 25 * number % 256, np.uint8)
                image = av.VideoFrame.from_ndarray(shade, format="rgb24").reformat(format="yuv420p")
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        packed = np.ascontiguousarray(samples.T.reshape(1, -1))  # from_ndarray cannot take eight planes
        whole = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        whole.sample_rate, whole.pts = rate, after * rate
        size = stream.codec_context.frame_size or 1024
        fitted = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size=size)
        for frame in (*fitted.resample(whole), *fitted.resample(None)):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _picture(container: Any) -> Any:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width = stream.height = 32
    stream.pix_fmt = "yuv420p"
    return stream
