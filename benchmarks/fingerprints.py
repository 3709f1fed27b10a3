"""Near-duplicates of audio: how fast fingerprints are, which copies are found, and what is taken for one wrongly.

    python -m benchmarks.fingerprints FOLDER [--fpcalc PATH]

FOLDER holds what is in benchmarks/speech_corpus.py's packages: prompts of one voice in each language, and music. Copies
are compared with all clips, as `similar_audio` does: keys, then bits. The most similar pairs of different clips are
listed, because not all are wrong: some prompts share a take, and some music is made of loops. With `--fpcalc`
Chromaprint's fingerprints are laid over each other the same way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import soxr
from numpy.typing import NDArray

from operators.caption.fingerprint import WORDS, WORDS_A_SECOND, words_of
from operators.dedup.acoustic import candidates_of, flat, keys_of, likeness
from operators.dedup.similar_audio import SimilarAudio
from operators.speech.codec import decode, encode_mp3
from workflows.speech_sample import RATE, Samples, listen, write

LEAST = SimilarAudio().least_similarity
OVERLAP = 3.0  # seconds
PIECE = 10  # seconds of music
Clip = tuple[str, Samples]
Words = NDArray[np.uint32]


def clips(folder: Path) -> Iterator[Clip]:
    """(name, samples): prompts of 2 s or more, and pieces of music."""
    for path in sorted(folder.rglob("sounds/*_?_*/*.g722")):
        if path.stat().st_size > 2 * 8000:  # 64 kbit/s
            yield f"{path.parent.name}/{path.stem}", listen(path)
    for path in sorted(folder.rglob("moh/*.g722")):
        samples = listen(path)
        for start in range(0, len(samples) // RATE - PIECE, PIECE):
            yield f"{path.stem} {start} s", samples[start * RATE : (start + PIECE) * RATE]


def later(seconds: float) -> Callable[[Samples], Samples]:
    return lambda samples: samples[round(seconds * RATE) :]


def noisy(decibels: float) -> Callable[[Samples], Samples]:
    def change(samples: Samples) -> Samples:
        level = np.sqrt(np.mean(np.square(samples))) / 10 ** (decibels / 20)
        return samples + np.random.default_rng(1).normal(0, level, len(samples)).astype(np.float32)

    return change


def mp3(bit_rate: int) -> Callable[[Samples], Samples]:
    return lambda samples: decode(encode_mp3(samples, bit_rate))


def at_8_khz(samples: Samples) -> Samples:
    return soxr.resample(soxr.resample(samples, RATE, 8000), 8000, RATE).astype(np.float32)


CHANGES: dict[str, tuple[Callable[[Samples], Samples], ...]] = {
    "MP3 128": (mp3(128),),
    "MP3 64": (mp3(64),),
    "MP3 32": (mp3(32),),
    "8 kHz": (at_8_khz,),
    "noise 20 dB": (noisy(20),),
    "noise 15 dB": (noisy(15),),
    "noise 10 dB": (noisy(10),),
    **{f"{ms} ms": (later(ms / 1000),) for ms in (1, 2, 3, 5, 8)},
    "8 ms, MP3 64": (later(0.008), mp3(64)),
    "3 s": (later(3.003),),
    "3 s, MP3 64": (later(3.003), mp3(64)),
    "3 s, noise 20 dB": (later(3.003), noisy(20)),
}


def matches(left: list[Words], right: list[Words]) -> pl.DataFrame:
    """`left`, `right`, `similarity` of the pairs that share keys."""
    packed = [flat(pa.chunked_array([pa.array(words, WORDS)])) for words in (left, right)]
    keys = [pl.DataFrame(dict(zip(("key", "clip", "place"), keys_of(*one), strict=True))) for one in packed]
    met = keys[0].join(keys[1], on="key", suffix="_right")
    hits = met.select(left="clip", right="clip_right", lag=pl.col("place_right") - pl.col("place"))
    found = candidates_of(hits)
    pairs = tuple(found[name].to_numpy() for name in ("left", "right", "lag"))
    return found.with_columns(similarity=likeness(packed[0], packed[1], pairs, OVERLAP * WORDS_A_SECOND))


def changed(samples: Samples, change: tuple[Callable[[Samples], Samples], ...]) -> Samples:
    for one in change:
        samples = one(samples)
    return samples


def chromaprint(fpcalc: Path, samples: Samples) -> Words:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.wav")
        write(path, samples)
        told = subprocess.run([fpcalc, "-raw", "-json", path], capture_output=True, text=True, check=False)
    return np.array(json.loads(told.stdout)["fingerprint"] if told.stdout else [], np.uint32)


def nearest(one: Words, other: Words) -> float:
    """The similarity at the best of all lags at which half of the shorter one lies over the other."""
    best, least = 0.0, min(len(one), len(other)) // 2
    for lag in range(1 - len(one), len(other)):
        a, b = one[max(0, -lag) :], other[max(0, lag) :]
        size = min(len(a), len(b))
        if size >= max(1, least):
            best = max(best, 1 - float(np.bitwise_count(a[:size] ^ b[:size]).mean()) / 32)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take one clip in so many for copies")
    parser.add_argument("--fpcalc", type=Path, help="Chromaprint's program")
    told = parser.parse_args()
    names, samples = zip(*clips(told.folder), strict=True)
    began = time.process_time()
    words = [words_of(one) for one in samples]
    seconds = sum(map(len, samples)) / RATE
    print(f"{len(names)} clips, {seconds:.0f} s: {seconds / (time.process_time() - began):.0f} x real time a core")
    between = matches(words, words).filter(pl.col("left") < pl.col("right")).sort("similarity", descending=True)
    for least in (0.6, 0.65, 0.7, 0.75, 0.8, 0.9):
        print(f"pairs of different clips from {least}: {len(between.filter(pl.col('similarity') >= least))}")
    for left, right, _, similarity in between.head(60).iter_rows():
        print(f"  {similarity:.3f} {names[left]} | {names[right]}")
    chosen = list(range(0, len(names), told.every))
    music = np.array([" s" in names[at][-2:] for at in chosen])
    for name, change in CHANGES.items():
        long = np.array([len(samples[at]) > (2 * OVERLAP if "3 s" in name else 2) * RATE for at in chosen])
        copies = [
            words_of(changed(samples[at], change)) if fits else words[at][:0]
            for at, fits in zip(chosen, long, strict=True)
        ]
        found = matches(words, copies).filter(pl.col("left").is_in(chosen), pl.col("similarity") >= LEAST)
        own = {right for left, right, *_ in found.iter_rows() if chosen[right] == left}
        hit = np.array([k in own for k in range(len(chosen))])
        told_of = [
            f"{kind} {hit[of & long].mean():.3f} of {(of & long).sum()}"
            for kind, of in (("speech", ~music), ("music", music))
        ]
        print(f"recall, {name}: {', '.join(told_of)}")
    if told.fpcalc:
        sample = chosen[:: max(1, len(chosen) // 60)]
        theirs = [chromaprint(told.fpcalc, samples[at]) for at in sample]
        apart = [nearest(a, b) for a, b in pairwise(theirs)]
        print(f"chromaprint, different clips at the best lag: {np.mean(apart):.3f}, at most {max(apart):.3f}")
        for name, change in CHANGES.items():
            alike = [
                nearest(one, chromaprint(told.fpcalc, changed(samples[at], change)))
                for at, one in zip(sample, theirs, strict=True)
            ]
            print(f"chromaprint, {name}: similarity {np.mean(alike):.3f}, least {min(alike):.3f}")


if __name__ == "__main__":
    main()
