"""A recording becomes spans that are all of it, and clips are its samples."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.apply import Applied, Step, apply
from operators.caption.clip import Clip, levels, sounding, widened
from operators.speech.segment import FRAME
from operators.speech.spool import RATE, Spool, hold, samples_of

pytest.importorskip("soundfile")
from operators.speech.codec import decode  # noqa: E402

Samples = np.ndarray[Any, Any]


def spool_of(samples: Samples) -> Spool:
    spool = Spool()
    spool.append(samples.astype(np.int16))
    return spool


def noise(seconds: float, level: float = 3000, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE))


def scene(*parts: tuple[float, bool]) -> Samples:
    """Stretches of so many seconds, of noise or of nothing."""
    return np.concatenate([noise(seconds) if loud else np.zeros(round(seconds * RATE)) for seconds, loud in parts])


def recordings(*sounds: Samples) -> pa.Table:
    ids = [f"{n:032x}" for n in range(len(sounds))]
    for name, samples in zip(ids, sounds, strict=True):
        hold(name, spool_of(samples))
    return pa.table(
        {
            "id": ids,
            "text": pa.nulls(len(sounds), pa.large_string()),
            "recording": [f"sounds/{n}.wav" for n in range(len(sounds))],
            "samples": pa.array([len(samples) for samples in sounds], pa.int64()),
            "digest": [f"d{n}" for n in range(len(sounds))],
        }
    )


def cut(*sounds: Samples, **fields: Any) -> Applied:
    return apply([Step("clip", Clip(**fields))], recordings(*sounds))


def spans(found: Applied) -> list[dict[str, Any]]:
    rows = [*found.kept.to_pylist(), *found.dropped.to_pylist()]
    return sorted((row for row in rows if row.get("drop_reason") != "clip/split"), key=lambda row: row["id"])


def fates(found: Applied) -> list[tuple[float, float, str | None]]:
    return [(row["start"], row["end"], (row.get("drop_reason") or "").removeprefix("clip/")) for row in spans(found)]


def test_windows_of_ten_seconds() -> None:
    sound = np.concatenate([noise(10), np.zeros(10 * RATE), noise(10.5)])
    found = cut(sound)
    assert fates(found) == [(0, 10, ""), (10, 20, "silent"), (20, 30, ""), (30, 30.5, "too_short")]
    rows = spans(found)
    assert [row["id"] for row in rows] == [f"{0:032x}/{n:05d}" for n in range(4)]
    assert {key: rows[2][key] for key in ("audio_key", "content_type", "samples", "recording")} == {
        "audio_key": f"d0:{20 * RATE}-{30 * RATE}",
        "content_type": "audio/flac",
        "samples": 10 * RATE,
        "recording": "sounds/0.wav",
    }
    assert np.array_equal(np.rint(decode(rows[2]["payload"]) * 32768), sound.astype(np.int16)[20 * RATE : 30 * RATE])
    assert (rows[3]["drop_value"], rows[3]["drop_threshold"]) == (0.5, 1.0)
    assert (rows[1]["drop_value"], rows[1]["drop_threshold"], rows[1]["payload"]) == (None, -60.0, None)
    (count,) = found.counts
    assert (count.created, sum(count.measured["clip_seconds"].values())) == (4, 2)
    with pytest.raises(LookupError, match="are not at hand"):
        samples_of(f"{0:032x}")


def test_the_last_window_may_be_shorter() -> None:
    assert fates(cut(noise(12), seconds=5, min_seconds=2)) == [(0, 5, ""), (5, 10, ""), (10, 12, "")]
    assert [reason for *_, reason in fates(cut(noise(3.5), seconds=1.99999))] == ["", ""]


def test_silence_is_a_matter_of_the_loudest_moment() -> None:
    quiet, click = noise(10, 20), noise(10, 20)  # 20 of 32768 are -64 dBFS
    click[RATE : RATE + FRAME] += noise(FRAME / RATE, 200, 1)
    found = cut(quiet, click)
    assert fates(found) == [(0, 10, "silent"), (0, 10, "")]
    assert -65 < spans(found)[0]["drop_value"] < -60
    assert fates(cut(quiet, min_dbfs=-70)) == [(0, 10, "")]


def test_whole_recordings() -> None:
    found = cut(noise(20), noise(31), noise(0.5), np.zeros(5 * RATE), mode="whole")
    assert fates(found) == [(0, 20, ""), (0, 31, "too_long"), (0, 0.5, "too_short"), (0, 5, "silent")]
    assert spans(found)[1]["drop_threshold"] == 30


def test_events_are_cut_at_silences() -> None:
    sound = scene((3, False), (2, True), (0.3, False), (1, True), (4, False), (0.06, True), (2.94, False), (5, True))
    found = cut(sound, mode="events")
    # 0.1 s of silence stays at the edges of what is long enough; 0.06 s of sound get enough of it on either side
    assert fates(found) == [
        (0, 2.9, "silence"),
        (2.9, 6.4, ""),
        (6.4, pytest.approx(9.73, abs=0.01), "silence"),
        (pytest.approx(9.73, abs=0.01), pytest.approx(10.93, abs=0.01), ""),
        (pytest.approx(10.93, abs=0.01), 13.2, "silence"),
        (13.2, 18.3, ""),
    ]
    assert spans(found)[0]["drop_value"] == 2.9


def test_long_events_are_cut_in_silence_or_where_it_is_quietest() -> None:
    pauses = scene((6, True), (0.4, False), (3, True), (0.2, False), (4, True))
    found = cut(pauses, mode="events")
    assert [(start, end) for start, end, reason in fates(found) if not reason] == [(0, 6.1), (6.3, 13.6)]
    steady = noise(16)
    steady[9 * RATE : 9 * RATE + 4 * FRAME] /= 100
    (first, second) = fates(cut(steady, mode="events"))
    assert 9 <= first[1] == second[0] <= 9.1


@pytest.mark.parametrize("mode", ["fixed", "events", "whole"])
@pytest.mark.parametrize("samples", [0, 1, FRAME, FRAME + 1])
def test_next_to_nothing(mode: str, samples: int) -> None:
    expected = [(0, round(samples / RATE, 3), "silent" if mode != "events" else "silence")] if samples else []
    assert fates(cut(np.zeros(samples), mode=mode, min_seconds=0)) == expected
    loud = cut(np.full(samples, 9000), mode=mode, min_seconds=0)
    assert [reason for *_, reason in fates(loud)] == ([""] if samples else [])


PARTS = st.lists(st.tuples(st.integers(1, 30_000), st.sampled_from([0, 10, 3000])), max_size=8)


@given(
    PARTS,
    st.sampled_from(
        [
            {"mode": "fixed", "seconds": 0.3, "min_seconds": 0.11},
            {"mode": "fixed", "seconds": 0.1, "min_seconds": 0},
            {"mode": "fixed", "seconds": 0.33333, "min_seconds": 0.33333},  # no whole number of samples
            {"mode": "events", "max_seconds": 0.4, "min_seconds": 0.1, "max_gap": 0.05},
            {"mode": "events", "max_seconds": 1, "min_seconds": 0.5, "max_gap": 0},
            {"mode": "events", "max_seconds": 0.2, "min_seconds": 0, "max_gap": 2},
            {"mode": "whole", "max_seconds": 2, "min_seconds": 0.2},
        ]
    ),
)
@settings(max_examples=60, deadline=None)
def test_spans_are_all_of_the_recording(parts: list[tuple[int, int]], fields: dict[str, Any]) -> None:
    sound = np.concatenate([np.zeros(0), *(noise(size / RATE, level, size) for size, level in parts)])
    operator, found = Clip(**fields), cut(sound, **fields)
    rows = spans(found)
    edges = [tuple(map(int, row["audio_key"].removeprefix("d0:").split("-"))) for row in rows]
    assert [at for edge in edges for at in edge][1:-1] == [at for edge in edges[1:] for at in (edge[0],) * 2]
    assert (edges[0][0], edges[-1][1]) == (0, len(sound)) if len(sound) else not edges
    assert all(row["samples"] == stop - start for row, (start, stop) in zip(rows, edges, strict=True))
    for row, (start, stop) in zip(rows, edges, strict=True):
        kept = row.get("drop_reason") is None
        assert kept == (row["payload"] is not None)
        if kept:
            assert round(operator.min_seconds * RATE) <= row["samples"] <= round(operator._most * RATE)
            assert np.array_equal(np.rint(decode(row["payload"]) * 32768), sound.astype(np.int16)[start:stop])
        if row.get("drop_reason") == "clip/silence":
            level = levels(spool_of(sound[start:stop]), 0, stop - start)
            assert np.mean(level < operator.min_dbfs) > 0.5 or len(level) < 3  # a frame at each edge may be another's
    assert cut(sound, **fields).kept.equals(found.kept)


def test_without_recordings_the_columns_are_there() -> None:
    whole, found = Clip()(recordings(noise(3))), Clip()(recordings())
    assert len(found) == 0
    assert {*found.column_names} == {*whole.column_names}
    assert all(found[name].type == whole[name].type for name in Clip().adds)


def test_levels_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spool_of(noise(3))
    whole = levels(spool, 100, spool.length)
    monkeypatch.setattr("operators.caption.clip.BLOCK", 10 * FRAME)
    assert np.array_equal(levels(spool, 100, spool.length), whole)
    assert len(whole) == -(-(spool.length - 100) // FRAME)
    assert whole.mean() == pytest.approx(20 * np.log10(3000 / 32768), abs=0.1)
    assert np.isneginf(levels(spool_of(np.zeros(500)), 0, 500)).all()


def test_stretches_that_sound() -> None:
    found = sounding(np.array([-10, -70, -20, -20, -90, -60.0]), -60)
    assert found.tolist() == [[0, FRAME], [2 * FRAME, 4 * FRAME], [5 * FRAME, 6 * FRAME]]
    assert widened(np.array([[0, 10], [50, 60], [500, 510], [990, 1000]]), 100, 1000) == [
        (0, 105),
        (455, 555),
        (900, 1000),
    ]
    assert widened(np.array([[0, 10]]), 100, 50) == [(0, 50)]
    assert widened(np.zeros((0, 2), np.int64), 100, 50) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mode": "whole", "seconds": 5}, "seconds: 5 has no meaning in mode whole"),
        ({"max_seconds": 5}, "max_seconds: 5 has no meaning in mode fixed"),
        ({"mode": "whole", "max_gap": 0}, "max_gap: 0 has no meaning in mode whole"),
        ({"mode": "events", "max_seconds": 1.5}, "max_seconds: 1.5 is less than twice min_seconds"),
        ({"seconds": 2, "min_seconds": 3}, "min_seconds: 3 is more than a clip may have, 2"),
        ({"mode": "whole", "min_seconds": 40}, "min_seconds: 40 is more than a clip may have, 30"),
        ({"seconds": 0}, "seconds\n.*greater than or equal to 0.1"),
        ({"min_dbfs": 1}, "min_dbfs"),
        ({"mode": "hop"}, "mode"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        Clip(**fields)


def test_packages_are_checked_when_the_recipe_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "soundfile" else found(name))
    with pytest.raises(pydantic.ValidationError, match="no package soundfile"):
        Clip()
