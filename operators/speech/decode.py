"""Recordings to samples: any container with an audio stream to 24 kHz mono, a second or so at a time, whatever the
bytes are.

Decoders skip what they cannot decode. Packets lost, samples that are no numbers and an end before the stated one are
told; what cannot be decoded at all, or decodes to far more than a file of its size can hold, is refused with a reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from operators.read.span import MOST_DECODED, MOST_RATIO
from operators.speech.containers import CODECS, DECLARING, kind, lacks_end, open_container, stated_seconds
from operators.speech.frames import channels_of, mono, to_int16
from operators.speech.spool import RATE

LEAST_RATE, MOST_RATE = 1000, 768_000  # samples a second that a recording may state
MOST_CHANNELS = 64
MOST_FRAME = 1 << 21  # samples of one frame; Monkey's Audio has the longest, of 2 ** 20
MOST_LOST = 10_000  # packets in a row that cannot be decoded: nothing more will come
CHUNK = 1 << 16  # samples that are mixed and resampled at a time


class Undecodable(ValueError):
    """A recording that gives no samples: the drop reason, and the number that decided where there is one."""

    def __init__(self, reason: str, detail: str, value: float = np.nan, threshold: float = np.nan) -> None:
        super().__init__(detail)
        self.reason, self.value, self.threshold = reason, value, threshold


class Source(NamedTuple):
    """What a file says of its sound. Rate and channels are those of its first frame where it does not say."""

    sample_rate: int | None
    channels: int | None
    codec: str
    bit_rate: int | None  # bits a second
    seconds: float | None  # stated length, where the container has a place for it


class Decoder:
    """The first audio stream of a file; `name` matters only where content does not tell the container.

    After `blocks` it knows how many packets were `lost`, how many samples `decoded` and how many of those `not_finite`,
    at the source's own rate, how many `seconds` they last, and whether the recording is `truncated`. Raises
    Undecodable.
    """

    def __init__(self, file: BinaryIO, name: str = "") -> None:
        import av  # of the extra `speech`

        self._bad_data = (av.error.FFmpegError, ValueError, NotImplementedError)  # the others are PyAV's own
        try:
            self._size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if not self._size:
                raise Undecodable("unreadable", "empty file")
            self._container = open_container(file, name)
        except Undecodable:
            raise
        except av.error.ArgumentError as error:  # FFmpeg's only word for what its white list lacks
            raise Undecodable("unreadable", "not in a container that is read") from error
        except self._bad_data as error:
            raise Undecodable("unreadable", told(error)) from error
        try:
            place = file.tell()  # FFmpeg thinks it still is there
            self._stream, self.source = self._chosen(file)
            self._cut = lacks_end(self._container, file)
            file.seek(place)
        except Undecodable:
            self.close()
            raise
        except self._bad_data as error:
            self.close()
            raise Undecodable("unreadable", told(error)) from error
        except OSError:  # the file's own: trying again may help
            self.close()
            raise
        self.lost = self.not_finite = self.decoded = 0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the decoder; the file stays open."""
        self._container.close()

    @property
    def truncated(self) -> bool:
        """Whether packets were lost or the stream ended before its stated length."""
        stated = self.source.seconds
        short = stated is not None and self.seconds < stated - DECLARING[kind(self._container)]
        return self._cut or self.lost > 0 or short

    def blocks(self, max_seconds: float) -> Iterator[NDArray[np.int16]]:
        """All samples, at RATE, in order, in blocks of bounded size. Once."""
        total = 0
        for block in self._resampled():
            total += len(block)
            if total > max_seconds * RATE:
                raise Undecodable("too_long", f"over {max_seconds:g} s", total / RATE, max_seconds)
            if 2 * total > max(MOST_DECODED, MOST_RATIO * self._size):
                raise Undecodable("unreadable", f"over {MOST_RATIO} bytes of samples a byte of the file")
            yield to_int16(block)
        if not total and self.truncated:
            raise Undecodable("unreadable", "nothing can be decoded")

    def _chosen(self, file: BinaryIO) -> tuple[Any, Source]:
        import av.stream

        streams = self._container.streams.audio
        if not streams:
            raise Undecodable("no_audio", "no audio stream")
        stream, context = streams[0], streams[0].codec_context
        if context is None or context.name not in CODECS:
            raise Undecodable("unreadable", f"no decoder for {context.name if context else 'its codec'}")
        rate, channels = context.sample_rate or None, context.channels or None  # none: sound begins long after pictures
        _check(rate, channels)
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        context.thread_count = 1
        context.options = {"max_samples": str(MOST_FRAME)}
        bit_rate = context.bit_rate or self._container.bit_rate or 0
        seconds, codec = stated_seconds(self._container, stream, file), context.codec.canonical_name
        return stream, Source(rate, channels, codec, max(0, bit_rate) or None, seconds)

    def _frames(self) -> Iterator[Any]:
        """Decoded frames. A packet that cannot be decoded is counted; MOST_LOST of them in a row are the end."""
        packets = self._container.demux(self._stream)
        failed = 0
        while failed < MOST_LOST:
            frames: list[Any] = []
            broken = False
            try:
                packet = next(packets, None)
            except self._bad_data:  # the container ends here; the decoder may still hold a frame
                packet, broken, self._cut = None, True, True
            except IndexError:  # PyAV flushes streams that came up on the way and that it does not know, after ours
                packet = None
            try:
                if packet is not None:
                    frames = packet.decode()
                elif broken:
                    frames = self._stream.codec_context.decode(None)
                failed = 0
            except self._bad_data:
                failed += 1
                self.lost += 1
            yield from frames
            if packet is None:
                return
            self._cut |= packet.is_corrupt

    def _chunks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(samples a second, mono samples), of the frames of one rate at most CHUNK at a time."""
        pending: list[NDArray[np.float32]] = []
        held, rate = 0, self.source.sample_rate or 0
        for frame in self._frames():
            if not frame.samples:
                continue
            channels = frame.layout.nb_channels
            _check(frame.sample_rate, channels)
            if not (self.source.sample_rate and self.source.channels):
                self.source = self.source._replace(sample_rate=frame.sample_rate, channels=channels)
            if frame.sample_rate != rate or held >= CHUNK:
                yield from _sliced(rate, pending)
                pending, held, rate = [], 0, frame.sample_rate
            try:
                raw = channels_of(frame)
            except self._bad_data:  # channels in an order that FFmpeg has no name for
                self.lost += 1
                continue
            pending.append(mono(raw))
            held += frame.samples
        yield from _sliced(rate, pending)

    def _resampled(self) -> Iterator[NDArray[np.float32]]:
        import soxr  # of the extra `speech`

        end = np.zeros(0, np.float32)
        rate, stream = RATE, None
        for found, raw in self._chunks():
            if found != rate:
                if stream is not None:
                    yield stream.resample_chunk(end, last=True)
                rate = found
                stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ") if rate != RATE else None
            samples = self._finite(raw)
            self.decoded += len(raw)
            self.seconds += len(raw) / rate
            yield stream.resample_chunk(samples) if stream is not None else samples
        if stream is not None:
            yield stream.resample_chunk(end, last=True)

    def _finite(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Within [-1, 1], where integers are anyway, so that no wild sample rings; what is no number is silence."""
        bad = ~np.isfinite(samples)
        if bad.any():
            self.not_finite += int(np.count_nonzero(bad))
            samples = np.where(bad, np.float32(0), samples)
        return np.clip(samples, np.float32(-1), np.float32(1))


def _check(rate: int | None, channels: int | None) -> None:
    if rate is not None and not LEAST_RATE <= rate <= MOST_RATE:
        raise Undecodable("unreadable", f"{rate} samples a second")
    if channels is not None and not 1 <= channels <= MOST_CHANNELS:
        raise Undecodable("unreadable", f"{channels} channels")


def _sliced(rate: int, pending: list[NDArray[np.float32]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    joined = np.concatenate(pending) if pending else np.zeros(0, np.float32)
    for start in range(0, len(joined), CHUNK):
        yield rate, joined[start : start + CHUNK]


def told(error: BaseException) -> str:
    """Without a path: the same on every machine."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
