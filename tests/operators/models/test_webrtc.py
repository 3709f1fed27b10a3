from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.webrtc import FRAME, RATE, WebRtc, runs


def collected(voiced: list[bool]) -> list[tuple[int, int]]:
    """IndicWav2Vec's collector, with its ring, written down as it is published."""
    ring: deque[tuple[int, bool]] = deque(maxlen=10)
    triggered, kept, found = False, [], []
    for frame, speaking in enumerate(voiced):
        ring.append((frame, speaking))
        if not triggered:
            if sum(flag for _, flag in ring) > 0.9 * 10:
                triggered, kept = True, [number for number, _ in ring]
                ring.clear()
        else:
            kept.append(frame)
            if sum(not flag for _, flag in ring) > 0.9 * 10:
                triggered = False
                found.append((kept[0], kept[-1] + 1))
                ring.clear()
                kept = []
    return found + ([(kept[0], kept[-1] + 1)] if kept else [])


def test_a_run_by_hand() -> None:
    said = [False] * 5 + [True] * 9 + [False] + [True] * 10 + [False] * 9 + [True] + [False] * 10 + [False] * 4
    assert runs(np.array(said)) == [(15, 45)]  # nine are not enough; the pause of nine is bridged; ten end it
    assert runs(np.ones(10, bool)) == [(0, 10)]
    assert runs(np.ones(9, bool)) == []
    assert runs(np.zeros(0, bool)) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 14)), max_size=12))
def test_runs_are_the_published_ones(lengths: list[tuple[bool, int]]) -> None:
    said = [flag for flag, count in lengths for _ in range(count)]
    assert runs(np.array(said, bool)) == collected(said)


def test_detector() -> None:
    pytest.importorskip("webrtcvad", reason="needs the extra corpusmill[speech]")
    pytest.importorskip("av", reason="needs the extra corpusmill[speech]")
    import soxr

    from operators.speech import spool
    from tests.operators.speech.recordings import speech

    silence = np.zeros(2 * RATE, np.float32)
    samples = np.concatenate([silence, soxr.resample(speech("fr", 6), spool.RATE, RATE), silence])
    detector = WebRtc().load()
    whole = detector.voiced([samples])
    assert len(whole) == len(samples) // FRAME
    blocks = (samples[at : at + 50 * FRAME] for at in range(0, len(samples), 50 * FRAME))
    assert np.array_equal(detector.voiced(blocks), whole)  # a new detector each time: nothing is left of the first
    assert whole.mean() > 0.4
    assert all(60 <= start < stop <= 285 for start, stop in runs(whole))
    with pytest.raises(ValueError, match="no multiple of 480 samples was not the last"):
        detector.voiced([samples[:1], samples])
