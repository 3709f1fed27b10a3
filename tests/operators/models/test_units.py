"""Discrete units: as many as the audio lasts, the same on every side, and of use to tell sounds apart."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.document import Pinned, loaded
from operators.models.units import (
    BANDS,
    BLOCK,
    CODEBOOK,
    HOP,
    LogMelUnits,
    nearest,
    read_codebook,
    stretches,
    train_codebook,
    write_codebook,
)
from operators.speech.spool import RATE

RATES = st.sampled_from([12.5, 25.0, 50.0])


def tone(hertz: float, seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3 * RATE), RATES)
def test_there_are_as_many_as_the_audio_lasts(samples: int, rate: float) -> None:
    units = loaded(LogMelUnits(CODEBOOK, rate)).encode(tone(440, 3)[:samples])
    assert units.dtype == np.uint16
    assert abs(len(units) - round(samples / RATE * rate)) <= 1


def test_the_codebook_that_comes_along() -> None:
    centroids = read_codebook(CODEBOOK)
    assert centroids.shape == (256, BANDS)
    assert len(np.unique(centroids.round(3), axis=0)) == 256
    assert Path(CODEBOOK.path).stat().st_size < 150_000


def test_a_stretch_is_loud_where_its_sound_is() -> None:
    found = stretches(np.concatenate([tone(300, 0.8), tone(4000, 0.8)]), 12.5)
    assert len(found) == 20
    assert (found[1:9].argmax(axis=1) < 20).all()
    assert (found[11:19].argmax(axis=1) > 50).all()
    assert np.abs(np.average(found, axis=0)).max() < 1e-3  # less the mean of all
    units = loaded(LogMelUnits(CODEBOOK, 12.5)).encode(np.concatenate([tone(300, 0.8), tone(4000, 0.8)]))
    assert not set(units[1:9].tolist()) & set(units[11:19].tolist())


def test_loudness_and_blocks_do_not_show() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, round(HOP * (BLOCK + 100))).astype(np.float32)  # two blocks of spectra
    whole = stretches(noise, 12.5)
    assert np.abs(stretches(noise * 2, 12.5) - whole).max() < 1e-3
    cut = HOP * (BLOCK - 40)  # frames around the border, from one block
    again = stretches(noise[cut - 24 * HOP :], 12.5)
    apart = whole[(BLOCK - 64) // 8 + 1 : -1]
    assert np.ptp((apart - again[1:-1]), axis=0).max() < 1e-3  # but for the mean that is taken away


def test_the_first_of_equals_is_nearest() -> None:
    centroids = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    frames = np.array([[1, 0.1], [0.5, 0.5], [0, 2]], np.float32)
    assert nearest(frames, centroids).tolist() == [0, 0, 1]


def test_training_finds_the_groups_and_is_repeatable(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 10, (12, BANDS))
    frames = (centres[np.arange(3000) % 12] + rng.normal(0, 0.1, (3000, BANDS))).astype(np.float32)
    centroids = train_codebook(frames, 12, 3)
    assert np.array_equal(centroids, train_codebook(frames, 12, 3))
    apart = ((centres[:, None] - centroids[None]) ** 2).sum(axis=2)
    assert sorted(apart.argmin(axis=1).tolist()) == list(range(12))
    assert apart.min(axis=1).max() < 0.1
    assert len(train_codebook(np.zeros((5, BANDS), np.float32), 3, 0)) == 3  # all the same
    for count in (1, 3001):
        with pytest.raises(ValueError, match=f"clusters: {count}"):
            train_codebook(frames, count, 0)
    write_codebook(tmp_path / "a.npz", centroids)
    data = (tmp_path / "a.npz").read_bytes()
    write_codebook(tmp_path / "a.npz", centroids)
    assert (tmp_path / "a.npz").read_bytes() == data
    assert np.array_equal(read_codebook(pinned(tmp_path / "a.npz")), centroids)


def pinned(path: Path) -> Pinned:
    return Pinned(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.zeros((4, BANDS), np.float32)},
        {"centroids": np.zeros((4, BANDS - 1), np.float32)},
        {"centroids": np.zeros((4, BANDS), np.float64)},
        {"centroids": np.full((4, BANDS), np.nan, np.float32)},
        {"centroids": np.zeros((1, BANDS), np.float32)},
        {"centroids": np.array([[object()] * BANDS] * 2)},
        None,
    ],
)
def test_other_files_are_no_codebooks(tmp_path: Path, arrays: dict[str, np.ndarray] | None) -> None:
    buffer = io.BytesIO()
    if arrays is not None:
        np.savez(buffer, allow_pickle=True, **arrays)
    path = tmp_path / "c.npz"
    path.write_bytes(buffer.getvalue() or b"no archive")
    with pytest.raises(ValueError, match="c.npz"):
        read_codebook(pinned(path))
