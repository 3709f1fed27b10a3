from __future__ import annotations

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("av")
pytest.importorskip("soundfile")
pytest.importorskip("speechmos")
pytest.importorskip("onnxruntime")

from operators.models import weights
from operators.models.dnsmos import LENGTH, RATE
from operators.speech import spool
from operators.speech.codec import decode_at, encode_flac
from operators.speech.dnsmos import Dnsmos, published_windows
from tests.operators.speech.recordings import Samples, bed, music, speech


def utterances(*clips: Samples) -> pa.Table:
    payload = pa.array([encode_flac(clip) for clip in clips], pa.large_binary())
    return pa.table({"id": [f"a/{k:05}" for k in range(len(clips))], "payload": payload})


def published_segments(audio: Samples) -> list[Samples]:
    """What DNS-Challenge's script gives its model, written after it."""
    fs = 16000
    len_samples = int(9.01 * fs)
    while len(audio) < len_samples:
        audio = np.append(audio, audio)
    num_hops = int(np.floor(len(audio) / fs) - 9.01) + 1
    segments = []
    for idx in range(num_hops):
        segment = audio[int(idx * fs) : int((idx + 9.01) * fs)]
        if len(segment) < len_samples:
            continue
        segments.append(segment)
    return segments


def published_scores(audio: Samples) -> tuple[float, float, float]:
    """OVRL, SIG and BAK as the script has them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(weights.find(weights.DNSMOS), options, providers=["CPUExecutionProvider"])
    p_ovr = np.poly1d([-0.06766283, 1.11546468, 0.04602535])
    p_sig = np.poly1d([-0.08397278, 1.22083953, 0.0052439])
    p_bak = np.poly1d([-0.13166888, 1.60915514, -0.39604546])
    found = [session.run(None, {"input_1": segment[None]})[0][0] for segment in published_segments(audio)]
    sig, bak, ovr = np.array(found).T
    return p_ovr(ovr).mean(), p_sig(sig).mean(), p_bak(bak).mean()


def test_emilia_is_the_published_script() -> None:
    clip = speech("fr", 5.6)  # twice, of which it hears two windows
    docs = utterances(clip)
    marked = Dnsmos(mode="emilia")(docs).to_pylist()[0]
    expected = published_scores(decode_at(docs["payload"][0].as_py(), RATE))
    assert [marked[name] for name in ("dnsmos", "dnsmos_sig", "dnsmos_bak")] == pytest.approx(expected, abs=6e-4)


@given(st.integers(1, 40 * RATE))
@settings(max_examples=40, deadline=None)
def test_published_windows(samples: int) -> None:
    clip = np.arange(samples, dtype=np.float32)
    ours, theirs = published_windows(clip), published_segments(clip)
    assert len(ours) == len(theirs)
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_published_script_hears_no_window_from_seven_seconds_on() -> None:
    starts = [int(window[0]) // RATE for window in published_windows(np.arange(30 * RATE, dtype=np.float32))]
    assert starts == list(range(7))


@given(st.integers(1, 40 * RATE), st.floats(0.5, 9.01))
@settings(max_examples=25, deadline=None)
def test_windows_cover_the_utterance_evenly(samples: int, hop: float) -> None:
    clip = np.arange(samples, dtype=np.float32)
    windows = Dnsmos(hop_seconds=hop)._windows(clip)
    assert all(len(window) == LENGTH for window in windows)
    if samples <= LENGTH:
        (window,) = windows
        assert np.array_equal(window, clip[np.arange(LENGTH) % samples])
        return
    starts = np.array([window[0] for window in windows])
    if len(windows) == 1:
        assert starts[0] == (samples - LENGTH) // 2  # in the middle
        assert samples - LENGTH <= 0.51 * hop * RATE
        return
    assert (starts[0], starts[-1]) == (0, samples - LENGTH)
    assert np.ptp(np.diff(starts)) <= 1
    assert 0.49 * hop * RATE <= np.diff(starts).mean() <= 1.51 * hop * RATE


def test_music_beneath_makes_it_worse_and_no_row_changes_another() -> None:
    voice = speech("en", 8.0)
    docs = utterances(voice, bed(voice, music(8.0), 20), bed(voice, music(8.0), 5))
    marked = Dnsmos()(docs)
    clean, low, loud = marked["dnsmos"].to_pylist()
    assert clean > 3
    assert clean > low > loud
    assert 1 <= loud < 2.8
    assert marked["dnsmos_bak"].to_pylist() == sorted(marked["dnsmos_bak"].to_pylist(), reverse=True)
    alone = Dnsmos()(docs.slice(1, 1))
    assert alone.equals(marked.slice(1, 1))
    assert [round(score, 3) for score in marked["dnsmos_sig"].to_pylist()] == pytest.approx(
        marked["dnsmos_sig"].to_pylist(), abs=1e-6
    )


def test_silence_has_a_score_and_what_has_no_audio_none() -> None:
    docs = utterances(np.zeros(spool.RATE, np.float32))
    docs = pa.concat_tables([docs, pa.table({"id": ["b"], "payload": pa.array([None], pa.large_binary())})])
    silent, none = Dnsmos()(docs)["dnsmos"].to_pylist()
    assert 0.5 < silent < 5
    assert none is None


def test_parameters_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pydantic.ValidationError, match="hop_seconds: 2 has no meaning in mode emilia"):
        Dnsmos(mode="emilia", hop_seconds=2)
    with pytest.raises(pydantic.ValidationError, match="hop_seconds"):
        Dnsmos(hop_seconds=0)
    real = weights.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "speechmos" else real(name))
    with pytest.raises(pydantic.ValidationError, match=r"corpusmill\[speech\].*no package speechmos"):
        Dnsmos()
