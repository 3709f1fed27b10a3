from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("av")
pytest.importorskip("soundfile")
pytest.importorskip("soxr")

import soxr

from operators.caption.fingerprint import FRAME, HOP, LOW_RATE, WORDS_A_SECOND, Fingerprint, words_of
from operators.speech.codec import encode_flac
from operators.speech.spool import RATE
from tests.operators.caption.sounds import COPIES, prompts, tracks
from tests.operators.speech.recordings import Samples


def published(samples: Samples) -> list[int]:
    """Haitsma and Kalker's formula, a frame, a band and a bit at a time, with double precision."""
    low = soxr.resample(samples, RATE, LOW_RATE).astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    edges = [round(300 * (2000 / 300) ** (m / 33) * FRAME / LOW_RATE) for m in range(34)]
    energy = []
    for start in range(0, len(low) - FRAME + 1, HOP):
        power = np.abs(np.fft.rfft(low[start : start + FRAME] * window)) ** 2
        energy.append([power[a:b].sum() for a, b in zip(edges, edges[1:], strict=False)])
    words = []
    for n in range(1, len(energy)):
        now, before = energy[n], energy[n - 1]
        bits = [now[m] - now[m + 1] - (before[m] - before[m + 1]) > 0 for m in range(32)]
        words.append(sum(int(bit) << m for m, bit in enumerate(bits)))
    return words


def test_words_are_the_published_ones() -> None:
    samples = tracks()[1][2 * RATE : 6 * RATE]
    found, expected = words_of(samples), np.array(published(samples), np.uint32)
    assert len(found) == len(expected) > 3 * WORDS_A_SECOND
    assert found.all()
    assert np.bitwise_count(found ^ expected).sum() <= 4  # energies as good as equal, in single precision


@pytest.mark.parametrize("name", [name for name in COPIES if "later" not in name])
def test_copies_differ_in_few_bits(name: str) -> None:
    clips = [*prompts()[::10], tracks()[0][: 10 * RATE], tracks()[1][: 10 * RATE]]
    for samples in clips:
        one, other = words_of(samples), words_of(COPIES[name](samples))
        size = min(len(one), len(other))
        one, other = one[:size], other[:size]
        heard = (one > 0) & (other > 0)
        assert heard.mean() > 0.6
        assert np.bitwise_count(one[heard] ^ other[heard]).mean() < 32 * 0.2


def test_silence_and_next_to_nothing_have_none() -> None:
    quiet = np.zeros(2 * RATE, np.float32)
    faint = (np.random.default_rng(1).standard_normal(2 * RATE) * 1e-4).astype(np.float32)
    short = prompts()[0][: round(0.35 * RATE)]
    payloads = [encode_flac(samples) for samples in (quiet, faint, short, prompts()[0])]
    docs = pa.table({"payload": pa.array([*payloads, None], pa.large_binary())})
    marked = Fingerprint()(docs)
    assert marked["fingerprint"].type == pa.list_(pa.uint32())
    assert marked["fingerprint"].is_valid().to_pylist() == [False, False, False, True, False]


def test_a_pause_has_zeros_and_words_follow_time() -> None:
    samples = tracks()[0][: 5 * RATE].copy()
    samples[2 * RATE : 4 * RATE] = 0
    words = words_of(samples)
    assert len(words) == (5 * LOW_RATE - FRAME) // HOP
    pause = np.flatnonzero(words == 0)
    begins, ends = 2 * WORDS_A_SECOND, (4 * LOW_RATE - FRAME) / HOP  # of frames that are all in it
    assert [*pause] == list(range(pause[0], pause[-1] + 1))
    assert abs(pause[0] - begins) <= 4
    assert abs(pause[-1] - ends) <= 4
    assert np.array_equal(words[: pause[0] - 30], words_of(tracks()[0][: 5 * RATE])[: pause[0] - 30])


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(100, np.float32)])
def test_no_samples_no_words(samples: Samples) -> None:
    assert len(words_of(samples)) == 0
