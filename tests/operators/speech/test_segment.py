"""A recording becomes spans that are all of it, and utterances are its samples."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.apply import Applied, Step, apply
from operators.speech import pieces
from operators.speech.segment import FRAME, Segment, quietest, voiced
from operators.speech.spool import RATE, Spool, hold, release_all, samples_of

pytest.importorskip("soundfile")
from operators.speech.codec import decode  # noqa: E402

STRETCH = pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64())]))
TURN = pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64()), ("speaker", pa.int32())]))
PROMPTS = Path(__file__).parents[3] / "workflows" / "sample" / "speech" / "prompts"


def spool_of(samples: np.ndarray[Any, Any]) -> Spool:
    spool = Spool()
    spool.append(samples.astype(np.int16))
    return spool


def sound(seconds: float, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, 3000, round(seconds * RATE))


def at(*seconds: tuple[float, ...]) -> list[tuple[int, ...]]:
    return [(round(start * RATE), round(stop * RATE), *who) for start, stop, *who in seconds]  # type: ignore[misc]


def recordings(*rows: dict[str, Any]) -> pa.Table:
    """Rows as they come to `segment`; their samples are at hand."""
    columns: dict[str, pa.DataType] = {"music": STRETCH, "separated": STRETCH, "speech": STRETCH, "turns": TURN}
    ids = [f"{n:032x}" for n in range(len(rows))]
    for name, row in zip(ids, rows, strict=True):
        hold(name, spool_of(row["sound"]))
    given_ = {
        name: pa.array([row.get(name) for row in rows], kind) for name, kind in columns.items() if name in rows[0]
    }
    return pa.table(
        {
            "id": ids,
            "text": pa.nulls(len(rows), pa.large_string()),
            "source": ["calls"] * len(rows),
            "recording": [f"calls/{n}.wav" for n in range(len(rows))],
            "samples": pa.array([len(row["sound"]) for row in rows], pa.int64()),
            "digest": [f"d{n}" for n in range(len(rows))],
            **given_,
        }
    )


def cut(docs: pa.Table, **fields: Any) -> Applied:
    return apply([Step("segment", Segment(**fields))], docs)


def fates(found: Applied) -> list[tuple[str, float, float, str | None]]:
    """(id without the recording's, start, end, reason) of all spans."""
    rows = [*found.kept.to_pylist(), *found.dropped.to_pylist()]
    spans = [row for row in rows if row.get("drop_reason") != "segment/split"]
    spans.sort(key=lambda row: row["id"])
    return [(row["id"][33:], row["start"], row["end"], row.get("drop_reason")) for row in spans]


def test_a_recording() -> None:
    first = sound(40)
    row = {
        "sound": first,
        "music": at((30, 38)),
        "separated": at((30, 38)),
        "speech": at((2, 9), (12, 20), (25, 26)),
        "turns": at((2, 9, 0), (12, 17, 1), (16, 20, 0), (25, 26, 1)),
    }
    found = cut(recordings(row))
    assert fates(found) == [
        ("00000", 0, 1.9, "segment/no_speech"),
        ("00001", 1.9, 9.1, None),
        ("00002", 9.1, 11.9, "segment/no_speech"),
        ("00003", 11.9, 16, None),
        ("00004", 16, 17, "segment/overlap"),
        ("00005", 17, 20.1, None),
        ("00006", 20.1, 25, "segment/no_speech"),
        ("00007", 25, 26, "segment/too_short"),
        ("00008", 26, 40, "segment/music"),
    ]
    one = found.kept.to_pylist()[1]
    name = "0" * 32
    assert {
        key: one[key] for key in ("id", "speaker", "audio_key", "content_type", "samples", "recording", "source")
    } == {
        "id": f"{name}/00003",
        "speaker": f"{name}/S01",
        "audio_key": f"d0:{round(11.9 * RATE)}-{16 * RATE}",
        "content_type": "audio/flac",
        "samples": round(4.1 * RATE),
        "recording": "calls/0.wav",
        "source": "calls",
    }
    heard = np.rint(decode(one["payload"]) * 32768)
    assert np.array_equal(heard, first.astype(np.int16)[round(11.9 * RATE) : 16 * RATE])
    dropped = {row["id"]: row for row in found.dropped.to_pylist()}
    assert dropped[f"{name}/00007"]["drop_value"] == 1.0
    assert dropped[f"{name}/00007"]["drop_threshold"] == 3.0
    assert dropped[f"{name}/00008"]["drop_value"] == 14.0
    assert dropped[f"{name}/00008"]["payload"] is None
    timeline = dropped[name]["timeline"]
    assert timeline[0] == {"kind": "music", "start": 30.0, "end": 38.0, "speaker": None}
    assert timeline[-1] == {"kind": "turn", "start": 25.0, "end": 26.0, "speaker": 1}
    assert [entry["kind"] for entry in timeline] == ["music", "separated", *["speech"] * 3, *["turn"] * 4]
    assert not {"music", "separated", "speech", "turns"} & {*found.kept.column_names, *found.dropped.column_names}
    (count,) = found.counts
    assert (count.rows_in, count.created) == (1, 9)
    assert sum(count.measured["utterance_seconds"].values()) == 3


def test_recordings_are_let_go_of_and_do_not_mix() -> None:
    rows = [{"sound": sound(7, n), "speech": at((1, 5)) if n != 1 else [], "turns": at((1, 5, 0))} for n in range(3)]
    together = cut(recordings(*rows), pad=0)
    with pytest.raises(LookupError, match="are not at hand"):
        samples_of("0" * 32)
    assert [row["id"][31:] for row in together.kept.to_pylist()] == ["0/00001", "2/00001"]
    alone = cut(recordings(rows[0]), pad=0)
    assert alone.kept["payload"][0] == together.kept["payload"][0]
    splits = [row["id"][-1] for row in together.dropped.to_pylist() if row["drop_reason"] == "segment/split"]
    assert splits == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"sound": sound(10), "speech": []}, [("00000", 0, 10, "segment/no_speech")]),
        ({"sound": sound(0), "speech": []}, []),
        ({"sound": sound(1 / RATE), "speech": []}, [("00000", 0, 0, "segment/no_speech")]),
        ({"sound": sound(10), "speech": None}, [("00000", 0, 10, "segment/no_speech")]),
        ({"sound": sound(10), "speech": [], "turns": at((2, 9, 0))}, [("00000", 0, 10, "segment/no_speech")]),
        ({"sound": sound(10), "speech": at((0, 10)), "music": at((0, 10))}, [("00000", 0, 10, None)]),  # sung over
        ({"sound": sound(10), "speech": [], "music": at((4, 10))}, [("00000", 0, 10, "segment/music")]),
        ({"sound": sound(10), "speech": at((0, 10)), "turns": []}, [("00000", 0, 10, "segment/no_speaker")]),
    ],
)
def test_little_to_cut(row: dict[str, Any], expected: list[tuple[str, float, float, str | None]]) -> None:
    found = cut(recordings(row))
    assert fates(found) == expected
    assert found.kept.num_rows == 0 or found.kept["speaker"].to_pylist() == [None]


def test_chunks() -> None:
    found = cut(recordings({"sound": sound(50), "speech": at((1, 47), (48, 49))}), mode="chunks", min_seconds=0)
    assert fates(found) == [
        ("00000", 0, 1, "segment/no_speech"),
        ("00001", 1, 21, None),
        ("00002", 21, 41, None),
        ("00003", 41, 47, None),
        ("00004", 47, 48, "segment/no_speech"),
        ("00005", 48, 49, None),
        ("00006", 49, 50, "segment/no_speech"),
    ]


@pytest.mark.parametrize(
    ("fields", "missing"), [({}, "soundfile"), ({"mode": "emilia"}, "soxr"), ({"mode": "emilia"}, "faster_whisper")]
)
def test_packages_are_checked_when_the_recipe_is_read(
    fields: dict[str, Any], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    with pytest.raises(pydantic.ValidationError, match=rf"corpusmill\[speech\].*no package {missing}"):
        Segment(**fields)


marked: list[pa.Table] = []


class Seen(Segment):
    """Segment, whose table is looked at before it is parted."""

    def __call__(self, docs: pa.Table) -> pa.Table:
        marked[:] = [super().__call__(docs)]
        return marked[0]


def test_audio_is_in_pieces_that_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"sound": sound(30), "speech": at((1, 5), (7, 12), (14, 14.5), (16, 20))}
    whole = cut(recordings(row)).kept
    monkeypatch.setattr(pieces, "PIECE", 200_000)
    found = apply([Step("segment", Seen())], recordings(row))
    assert whole["payload"].num_chunks == 1
    assert found.kept["payload"].num_chunks == 2
    assert found.kept.equals(whole)
    made, kept = ({chunk.buffers()[2].address for chunk in at["payload"].chunks} for at in (marked[0], found.kept))
    assert kept < made


def test_without_recordings_the_columns_are_there() -> None:
    whole = Segment()(recordings({"sound": sound(4), "speech": at((0, 4))}))
    found = Segment()(recordings({"sound": sound(4), "speech": at((0, 4))}).slice(0, 0))
    assert len(found) == 0
    assert {field.name: field.type for field in found.schema} == {field.name: field.type for field in whole.schema}


def test_emilia_keeps_overlapping_speech_twice() -> None:
    row = {"sound": sound(16), "turns": at((0, 10, 0), (3, 5, 1), (8, 14, 1), (14.5, 15, 0))}
    found = cut(recordings(row), mode="emilia")
    assert fates(found) == [
        ("00000", 0, 10, None),
        ("00001", 3, 5, "segment/nested"),
        ("00002", 8, 14, None),
        ("00003", 14, 14.5, "segment/no_speech"),
        ("00004", 14.5, 15, "segment/too_short"),
        ("00005", 15, 16, "segment/no_speech"),
    ]


def prompts() -> np.ndarray[Any, Any]:
    """Half a minute of voices with a second of silence between them, at RATE."""
    import av
    import soxr

    parts = []
    for path in itertools.chain(*(sorted((PROMPTS / one).glob("*.g722"))[:3] for one in ("en", "it", "fr"))):
        with av.open(str(path), format="g722") as container:
            parts += [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
        parts.append(np.zeros(16_000, np.int16))
    return np.asarray(soxr.resample(np.concatenate(parts), 16_000, RATE))


def test_emilia_listens_to_long_turns() -> None:
    for package in ("av", "soxr", "onnxruntime", "faster_whisper"):
        pytest.importorskip(package)
    voices = prompts()
    length = len(voices)
    islands = voiced(spool_of(voices), RATE // 2, length)
    assert islands == sorted(islands)
    assert RATE // 2 <= islands[0][0] < islands[-1][1] <= length
    assert 0.5 < sum(stop - start for start, stop in islands) / length < 0.95
    found = cut(recordings({"sound": voices, "turns": [(RATE // 2, length, 0)]}), mode="emilia")
    utterances = [(start, end) for _, start, end, reason in fates(found) if reason is None]
    assert utterances
    assert all(end - start < 20 for start, end in utterances)  # each at a pause
    edges = {round(edge / RATE, 3) for island in islands for edge in island}
    assert {edge for utterance in utterances for edge in utterance} <= edges


def test_the_quietest_place() -> None:
    samples = sound(4)
    samples[RATE : 2 * RATE] /= 4
    samples[round(1.5 * RATE) : round(1.6 * RATE)] = 0
    spool = spool_of(samples)
    assert 1.5 * RATE < quietest(spool, 0, 4 * RATE) < 1.6 * RATE
    assert 3 * RATE < quietest(spool, 3 * RATE, 4 * RATE) < 4 * RATE
    assert quietest(spool, 10, 10 + FRAME // 2) == 10 + FRAME // 2
    release_all()


def test_a_monologue_without_a_pause_is_cut_where_it_is_quiet() -> None:
    samples = sound(50)
    samples[round(27.3 * RATE) : round(27.4 * RATE)] /= 100
    found = cut(recordings({"sound": samples, "speech": at((0, 50)), "turns": at((0, 50, 0))}))
    (first, second) = fates(found)
    assert 27.3 <= first[2] == second[1] <= 27.4
    assert second[2] == 50


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 9000)), max_size=6),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 9000), st.integers(0, 2)), max_size=5),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_samples_add_up(drawn: list[tuple[int, int]], said: list[tuple[int, int, int]], diarised: bool) -> None:
    speech, reached = [], 0
    for gap, size in drawn:
        speech.append((reached + gap, reached + gap + size))
        reached += gap + size
    row: dict[str, Any] = {"sound": sound((reached + 500) / RATE), "speech": speech}
    if diarised:
        row["turns"] = sorted((start, start + size, who) for start, size, who in said)
    found = cut(recordings(row), min_seconds=0.05, max_seconds=0.2, max_gap=0.03, pad=0.005)
    spans = [*found.kept.to_pylist(), *found.dropped.filter(found.dropped["start"].is_valid()).to_pylist()]
    assert sum(span["samples"] for span in spans) == reached + 500
    for span in found.kept.to_pylist():
        assert len(decode(span["payload"])) == span["samples"] <= 0.2 * RATE


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mode": "emilia", "min_seconds": 2}, "min_seconds: 2 has no meaning in mode emilia"),
        ({"mode": "chunks", "pad": 0.1}, "pad: 0.1 has no meaning in mode chunks"),
        ({"chunk_seconds": 20}, "chunk_seconds: 20 has no meaning in mode default"),
        ({"max_seconds": 5}, "max_seconds: 5 is less than twice min_seconds"),
        ({"mode": "chunks", "chunk_seconds": 30}, "chunk_seconds: 30 is above max_seconds 25"),
        ({"mode": "other"}, "mode"),
        ({"pad": -1}, "pad"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"min_seconds": 0, "max_seconds": 1e-5}, "max_seconds\n.*greater than or equal to 0.1"),  # less than a sample
        ({"mode": "chunks", "chunk_seconds": 1e-5}, "chunk_seconds\n.*greater than or equal to 0.1"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        Segment(**fields)


def test_what_it_needs() -> None:
    assert Segment().needs == ("samples", "digest", "speech")
    assert Segment(mode="emilia").needs == ("samples", "digest", "turns")
