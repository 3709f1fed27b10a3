from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

pytest.importorskip("faster_whisper", reason="needs the extra corpusmill[speech]")
pytest.importorskip("webrtcvad", reason="needs the extra corpusmill[speech]")
pytest.importorskip("av", reason="needs the extra corpusmill[speech]")

from operators.document import identity
from operators.speech import vad
from operators.speech.spool import RATE, Spool, hold
from operators.speech.stretches import SPANS
from operators.speech.vad import Vad, mostly, peak
from tests.operators.speech.recordings import Samples, music, speech, spooled


def run(operator: Vad, *spools: Spool) -> list[list[tuple[float, float]]]:
    """The islands of each recording, in seconds."""
    names = [f"{k:032x}" for k in range(len(spools))]
    for name, spool in zip(names, spools, strict=True):
        hold(name, spool)
    docs = pa.table({"id": names, "samples": pa.array([spool.length for spool in spools], pa.int64())})
    found = operator(docs)
    assert found.column_names == ["id", "samples", "speech"]
    assert found.schema.field("speech").type == SPANS
    lengths = [spool.length for spool in spools]
    for length, spans in zip(lengths, found["speech"].to_pylist(), strict=True):
        places = [span[end] for span in spans for end in ("start", "stop")]
        assert places == sorted(places)
        assert all(0 <= place <= length for place in places)
    shares = operator.measured(found)["speech_share"]
    assert np.nan_to_num(shares).max() <= 1
    total = sum(span["stop"] - span["start"] for spans in found["speech"].to_pylist() for span in spans)
    assert operator.counted(found) == {"speech_ms": total * 1000 // RATE}
    return [[(span["start"] / RATE, span["stop"] / RATE) for span in spans] for spans in found["speech"].to_pylist()]


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


@pytest.mark.parametrize("operator", [Vad(), Vad(backend="webrtc")])
def test_speech_between_silences(operator: Vad) -> None:
    samples = np.concatenate([silence(3), speech("it", 6), silence(4), speech("fr", 5), silence(2)])
    (found,) = run(operator, spooled(samples))
    assert 2.8 < found[0][0] < 3.6
    assert 16.5 < found[-1][1] < 18.7
    assert not [span for span in found if span[0] < 12.5 and span[1] > 9.6]  # the pause, and what hangs over into it
    spoken = sum(stop - start for start, stop in found)
    assert 7 < spoken < 12


def test_no_speech() -> None:
    empty = run(Vad(), spooled(silence(0)), spooled(silence(3)), spooled(music(10)), spooled(np.full(1, 0.5, "f4")))
    assert empty == [[], [], [], []]
    assert run(Vad(backend="webrtc"), spooled(silence(0)), spooled(silence(3))) == [[], []]


def test_what_is_half_sure_in_music_is_no_speech() -> None:
    probabilities = np.array([0.1, 0.6, 0.7, 0.2, 0.0, 0.5, 0.95, 0.5])
    assert [peak(probabilities, at) for at in ((1 * 512, 3 * 512), (0, 100), (5 * 512 + 1, 8 * 512 - 1))] == [
        0.7,
        0.1,
        0.95,
    ]
    music = [(0, 3000), (9000, 9600)]
    assert [mostly(at, music) for at in ((0, 2000), (1000, 3000), (1000, 3002), (5000, 7400), (6000, 6400))] == [
        True,
        True,
        False,
        False,
        True,
    ]
    samples = np.concatenate([silence(1), speech("es", 6), silence(1)])
    hold("r", spooled(samples))
    docs = pa.table(
        {"id": ["r"], "samples": [len(samples)], "music": pa.array([[{"start": 0, "stop": len(samples)}]], SPANS)}
    )
    sure = Vad()(docs)["speech"].to_pylist()
    assert sure == Vad(music_threshold=0)(docs)["speech"].to_pylist()  # speech over music is speech
    assert Vad(music_threshold=0.9999, threshold=0.3)(docs)["speech"].to_pylist() != sure
    without = Vad(music_threshold=0.9999)(docs.drop_columns(["music"]))["speech"].to_pylist()
    assert without == sure  # where no music is known, the threshold is not asked


def test_recordings_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (np.concatenate([speech(language, 6), silence(1)]) for language in ("ru", "es"))
    alone = [*run(Vad(), spooled(first)), *run(Vad(), spooled(second))]
    assert run(Vad(), spooled(second), spooled(first)) == alone[::-1]
    monkeypatch.setattr(vad, "SECONDS", 2.4)  # windows of both detectors still fit, samples at both rates too
    blocks = run(Vad(), spooled(first), spooled(second))
    for one, other in zip(alone, blocks, strict=True):
        assert np.abs(np.array(one) - np.array(other)).max() <= 0.033  # resampled piecewise: a window at the most


def test_parameters_reach_the_backend() -> None:
    samples = spooled(np.concatenate([silence(1), speech("en", 8), silence(1)]))
    (usual,) = run(Vad(), samples)
    (wide,) = run(Vad(pad_ms=200, min_silence_ms=2000), samples)
    assert len(wide) == 1
    assert wide[0][0] == pytest.approx(usual[0][0] - 0.17, abs=1e-3)
    assert run(Vad(min_speech_ms=60_000), samples) == [[]]
    strict, lax = (run(Vad(backend="webrtc", aggressiveness=level), samples)[0] for level in (3, 0))
    assert sum(b - a for a, b in strict) <= sum(b - a for a, b in lax)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 1.0}, "threshold"),
        ({"pad_ms": -1}, "pad_ms"),
        ({"backend": "loudness"}, "backend"),
        ({"backend": "webrtc", "music_threshold": 0.5}, "music_threshold: 0.5 means nothing to the backend webrtc"),
        ({"aggressiveness": 2}, "aggressiveness: 2 means nothing to the backend silero"),
        ({"backend": "webrtc", "threshold": 0.5}, r"threshold: 0\.5 means nothing to the backend webrtc"),
        ({"backend": "webrtc", "pad_ms": 0}, "pad_ms: 0 means nothing to the backend webrtc"),
        ({"backend": "webrtc", "aggressiveness": 4}, "aggressiveness"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Vad(**fields)


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for backend in ("silero", "webrtc"):
        with pytest.raises(ValidationError, match=rf"backend: {backend}: needs the extra corpusmill\[speech\]"):
            Vad(backend=backend)


def test_identity() -> None:
    assert identity(Vad()) != identity(Vad(threshold=0.6))
    assert identity(Vad())["revision"] == 1
