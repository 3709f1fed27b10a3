"""Recordings put together from real speech and music, so that who says what when is known: the demo's, from the
committed clips, and what benchmarks make others with.

Clips are laid one after the other, with gaps, in turns of a speaker; then music or noise at a given level below the
speech goes under a stretch. The same seed gives the same samples.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RATE = 24_000  # samples a second of a mix
EDGE = 0.01  # of a clip's peak: what is quieter at its ends is cut, so that its times are true
PEAK = 0.5  # of a clip, whatever it was recorded with
FLOOR = 1e-4  # standard deviation of the noise of the recording itself
IN_TURN, BETWEEN_TURNS = (0.2, 0.6), (0.4, 2.0)  # seconds from clip to clip
FADE = 0.3  # seconds at the ends of music
SAMPLE = Path(__file__).parent / "sample" / "speech"
SEED = 8
SILENCE = "empty-room.wav"  # of the demo
Samples = NDArray[np.float32]


class Clip(NamedTuple):
    """Somebody says something."""

    samples: Samples
    text: str
    language: str
    speaker: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


class Said(NamedTuple):
    """A clip in a mix: times in seconds; `bed` is music or noise, `snr` decibels above it."""

    start: float
    end: float
    speaker: str
    language: str
    text: str
    bed: str | None = None
    snr: float | None = None


class Mix:
    """A recording that grows at its end, and what is in it."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.random = np.random.default_rng(seed)
        self.said: list[Said] = []
        self.music: list[tuple[float, float]] = []  # nothing but music
        self._samples = np.zeros(0, np.float32)
        self.silence(1.0)

    @property
    def seconds(self) -> float:
        return len(self._samples) / RATE

    def silence(self, seconds: float) -> None:
        self._append(np.zeros(round(seconds * RATE), np.float32))

    def turn(self, clips: Sequence[Clip], gaps: tuple[float, float] = IN_TURN) -> None:
        """One speaker says some clips, then there is a gap."""
        for number, clip in enumerate(clips):
            if number:
                self.silence(self.random.uniform(*gaps))
            self._say(clip, len(self._samples))
        self.silence(self.random.uniform(*BETWEEN_TURNS))

    def interrupt(self, clip: Clip, seconds: float) -> None:
        """Someone begins to speak that many seconds before the last clip ends."""
        start = round((self.said[-1].end - seconds) * RATE)
        self._append(np.zeros(max(0, start + len(clip.samples) - len(self._samples)), np.float32))
        self._say(clip, start)
        self.silence(self.random.uniform(*BETWEEN_TURNS))

    def hole(self, music: Samples, seconds: float) -> None:
        """Music alone, at about the level of speech."""
        start, piece = self.seconds, self._piece(music, round(seconds * RATE))
        self._append(piece * np.float32(0.1 / _rms(piece)))
        self.music.append((start, self.seconds))
        self.silence(self.random.uniform(*BETWEEN_TURNS))

    def under(self, start: float, bed: str, snr: float, music: Samples | None = None) -> None:
        """Lay `music`, or white noise, under all from `start` seconds on, `snr` decibels below what is said there."""
        first = round(start * RATE)
        count = len(self._samples) - first
        spoken = np.zeros(count, bool)
        for said in self.said:
            spoken[max(0, round(said.start * RATE) - first) : max(0, round(said.end * RATE) - first)] = True
        level = _rms(self._samples[first:][spoken])
        piece = self.random.standard_normal(count).astype(np.float32) if music is None else self._piece(music, count)
        self._samples[first:] += piece * np.float32(level / _rms(piece) / 10 ** (snr / 20))
        over = [round(one.start * RATE) >= first - RATE // 1000 for one in self.said]  # their times are rounded
        self.said = [
            one._replace(bed=bed, snr=snr) if above else one for one, above in zip(self.said, over, strict=True)
        ]

    def samples(self) -> Samples:
        """All of it, at 0.9 of full scale, or next to nothing where there is nothing in it."""
        noise = self.random.standard_normal(len(self._samples)).astype(np.float32)
        mixed = self._samples + np.float32(FLOOR) * noise
        return mixed * np.float32(0.9 / max(PEAK / 2, np.abs(mixed).max()))

    def _append(self, samples: Samples) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def _say(self, clip: Clip, start: int) -> None:
        stop = start + len(clip.samples)
        self._append(np.zeros(max(0, stop - len(self._samples)), np.float32))
        self._samples[start:stop] += clip.samples
        times = round(start / RATE, 3), round(stop / RATE, 3)
        self.said.append(Said(*times, clip.speaker, clip.language, clip.text))

    def _piece(self, music: Samples, count: int) -> Samples:
        """A piece of the music, from anywhere, over and over where it is too short."""
        start = int(self.random.integers(0, max(1, len(music) - count)))
        piece = np.resize(music[start:] if len(music) - start >= count else music, count).astype(np.float32)
        ramp = np.linspace(0, 1, min(count // 2, round(FADE * RATE)), dtype=np.float32)
        piece[: len(ramp)] *= ramp
        piece[count - len(ramp) :] *= ramp[::-1]
        return piece


def lay_out(folder: Path, truth: Path) -> None:
    """The demo's recordings below `folder`, five minutes of them, good and bad, and what is in them below `truth`."""
    clips = committed()
    order = np.random.default_rng(SEED)
    pools = {language: [pool[n] for n in order.permutation(len(pool))] for language, pool in sorted(clips.items())}
    music = [listen(path) for path in sorted((SAMPLE / "music").iterdir())]

    programme = Mix([SEED, 1])
    rounds = [[pools[language].pop() for _ in range(2)] for _ in range(3) for language in ("en", "it", "fr", "ru")]
    for number, turn in enumerate(rounds):
        if number == 4:
            programme.hole(music[0], 10)
        if number == 8:
            bed = programme.seconds
        programme.turn(turn)
    programme.interrupt(pools["en"].pop(), 1.5)
    programme.under(bed, "music", 12, music[1])
    _put(folder, truth, "radio/programme.flac", programme)

    interview = Mix([SEED, 2])
    jingle = pools["en"].pop()
    for turn in ([jingle], *([pools[language].pop() for _ in range(2)] for language in ("fr", "es", "fr")), [jingle]):
        interview.turn(turn)
    _put(folder, truth, "radio/interview.mp3", interview, 44_100, 2)
    shutil.copyfile(folder / "radio" / "interview.mp3", folder / "copy of interview.mp3")

    for name, language, rate in (("dictated.m4a", "it", 48_000), ("voice-mail.ogg", "ru", 48_000)):
        one = Mix([SEED, 3])
        one.turn([pools[language].pop() for _ in range(3)])
        _put(folder, truth, name, one, rate)

    broken = Mix([SEED, 4])
    broken.turn([pools["es"].pop() for _ in range(3)])
    write(folder / "cut-off.mp3", broken.samples(), 22_050)
    whole = (folder / "cut-off.mp3").read_bytes()
    (folder / "cut-off.mp3").write_bytes(whole[: len(whole) * 2 // 3])
    write(folder / "on-hold.ogg", music[0][: 12 * RATE], 48_000)
    write(folder / SILENCE, np.zeros(10 * RATE, np.float32), 16_000)
    (folder / "notes.mp3").write_text("A page of text that somebody gave the name of a recording.\n" * 40, "utf-8")


def committed() -> dict[str, list[Clip]]:
    """The committed clips, by language."""
    clips = defaultdict(list)
    for path, told in json.loads((SAMPLE / "transcripts.json").read_text("utf-8")).items():
        clips[told["language"]].append(load(SAMPLE / path, **told))
    return clips


def _put(folder: Path, truth: Path, name: str, mix: Mix, rate: int = RATE, channels: int = 1) -> None:
    write(folder / name, mix.samples(), rate, channels)
    write_truth(truth, name, mix)


def load(path: Path, text: str, language: str, speaker: str) -> Clip:
    """The clip in a file of any format, cut to what is said and made as loud as all."""
    samples = listen(path)
    loud = np.flatnonzero(np.abs(samples) > EDGE * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    return Clip(samples * np.float32(PEAK / np.abs(samples).max()), text, language, speaker)


def listen(path: Path) -> Samples:
    """A short file's samples, mono, at RATE."""
    import av  # of the extra `speech`

    with av.open(str(path), format="g722" if path.suffix == ".g722" else None) as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        frames = [one for frame in container.decode(audio=0) for one in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32, copy=False)


CODECS = {".flac": "flac", ".wav": "pcm_s16le", ".mp3": "libmp3lame", ".m4a": "aac", ".mp4": "aac", ".ogg": "libopus"}


def write(path: Path, samples: Samples, rate: int = RATE, channels: int = 1) -> None:
    """Write samples as the file's name says, at `rate`, the same in one or two channels."""
    import av  # of the extra `speech`
    import soxr

    if rate != RATE:
        samples = soxr.resample(samples, RATE, rate).astype(np.float32)
    layout = "stereo" if channels == 2 else "mono"
    raw = np.tile((np.clip(samples, -1, 1) * 32767).astype(np.int16)[:, None], (1, channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(CODECS[path.suffix], rate=rate, layout=layout, options={"flags": "+bitexact"})
        convert = av.AudioResampler(stream.format, layout, rate)
        size = stream.codec_context.frame_size or 4096
        frame = av.AudioFrame.from_ndarray(raw.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        fifo = av.AudioFifo()
        for one in convert.resample(frame):
            fifo.write(one)
        while len(piece := fifo.read_many(size) or ([last] if (last := fifo.read(partial=True)) else [])):
            for one in piece:
                container.mux(stream.encode(one))
        container.mux(stream.encode(None))


def write_truth(folder: Path, recording: str, mix: Mix) -> None:
    """`<recording>.json` and, for tools that score diarisation, `<recording>.rttm`."""
    (folder / recording).parent.mkdir(parents=True, exist_ok=True)
    said = [one._asdict() for one in sorted(mix.said)]
    truth: dict[str, Any] = {"recording": recording, "seconds": round(mix.seconds, 3), "said": said}
    truth["music"] = [[round(start, 3), round(end, 3)] for start, end in mix.music]
    lines = []
    for one in sorted(mix.said):
        name, speaker = (field.replace(" ", "_") for field in (recording, one.speaker))  # a space ends a field
        times = f"{one.start:.3f} {one.end - one.start:.3f}"
        lines.append(f"SPEAKER {name} 1 {times} <NA> <NA> {speaker} <NA> <NA>\n")
    (folder / f"{recording}.json").write_text(json.dumps(truth, ensure_ascii=False, indent=1) + "\n", "utf-8")
    (folder / f"{recording}.rttm").write_text("".join(lines), "utf-8")


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) or 1.0
