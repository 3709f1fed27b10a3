"""Emilia's gain rule to the bit, and one reason for each recording that gives no sound."""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

av = pytest.importorskip("av")
pytest.importorskip("soxr")

from operators.speech import standardise  # noqa: E402
from operators.speech.spool import RATE, Spool, release_all, samples_of  # noqa: E402
from operators.speech.standardise import COLUMNS, Level, Standardise, amplify, gain_of, gain_table  # noqa: E402
from tests.operators.speech.sounds import encoded, recording, tone  # noqa: E402


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    release_all()


def listen(path: Path, **parameters: Any) -> dict[str, Any]:
    """The row of one recording, standardised."""
    docs = pa.table({"id": ["r"], "recording": [path.name], "scratch/url": [str(path)]})
    found = Standardise(**parameters)(docs)
    assert found.num_rows == 1
    assert {name: found.schema.field(name).type for name in COLUMNS} == COLUMNS
    return found.to_pylist()[0]  # type: ignore[no-any-return]


def written(folder: Path, data: bytes, name: str = "a.wav") -> Path:
    (path := folder / name).write_bytes(data)
    return path


def wav(samples: NDArray[np.generic], rate: int = RATE) -> bytes:
    size, code = samples.dtype.itemsize, 3 if samples.dtype.kind == "f" else 1
    form = struct.pack("<HHIIHH", code, 1, rate, size * rate, size, 8 * size)
    raw = samples.tobytes()
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", len(raw)) + raw


def emilia(samples: NDArray[np.int16]) -> tuple[float, list[int]]:
    """The gain and the samples of 16 bits, sample by sample, as pydub and audioop compute them."""
    rms = int(math.sqrt(sum(int(s) * int(s) for s in samples) / len(samples)))  # audioop.rms
    dbfs = 20 * math.log(rms / 32768.0, 10) if rms else -math.inf  # pydub's ratio_to_db
    gain = min(max(-20 - dbfs, -3), 3)
    factor = 10 ** (gain / 20)  # pydub's db_to_float
    made = []
    for sample in samples:  # audioop.mul: fbound, then down
        value = int(sample) * factor
        if value > 32767.0:
            value = 32767.0
        elif value < -32768.0 + 1.0:
            value = -32768.0
        made.append(math.floor(value))
    return gain, made


@settings(max_examples=60, deadline=None)
@given(
    peak=st.sampled_from([1, 2, 5, 40, 1000, 3000, 4200, 5000, 12_000, 32_767]),
    length=st.integers(1, 400),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_gain_rule_is_emilias(peak: int, length: int, seed: int) -> None:
    samples = np.random.default_rng(seed).integers(-peak - 1, peak + 1, length).astype(np.int16)
    if not samples.any():
        return
    wide = samples.astype(np.int64)
    level = Level(length, int((wide * wide).sum()), min(0, int(wide.min())), max(0, int(wide.max())))
    gain, made = emilia(samples)
    assert gain_of(level) == gain
    spool = Spool()
    spool.append(samples)
    digest = amplify(spool, level, gain)
    loudest = max(map(abs, made))
    assert spool.read(0, length) == pytest.approx(np.array(made) / loudest, abs=1e-7)
    assert digest == xxhash.xxh3_128_hexdigest(np.array(made, "<i2").tobytes())


def test_golden_gains() -> None:
    assert gain_of(Level(1, 32767**2, 0, 32767)) == -3.0
    assert gain_of(Level(1, 3276**2, 0, 3276)) == pytest.approx(0.0021, abs=1e-4)  # 3276.8 would be -20 dBFS
    assert gain_of(Level(1, 100**2, 0, 100)) == 3.0
    louder = gain_table(3.0)  # a factor of 1.4125
    assert louder[[0, 32768 - 3, 32768 + 3, 65535]].tolist() == [-32768, -5, 4, 32767]
    assert np.array_equal(gain_table(0.0), np.arange(-32768, 32768))


def test_a_recording_is_at_hand_as_emilia_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standardise, "BLOCK_SECONDS", 0.7)  # more than one block
    samples = np.clip(tone(2.0).astype(int) * 4, -32768, 32767).astype(np.int16)
    row = listen(written(tmp_path, wav(samples)))
    gain, made = emilia(samples)
    spool = samples_of("r")
    assert spool.read(0, spool.length) == pytest.approx(np.array(made) / max(map(abs, made)), abs=1e-7)
    assert row == {
        **{"id": "r", "recording": "a.wav", "scratch/url": str(tmp_path / "a.wav"), "samples": 48_000},
        **{"digest": xxhash.xxh3_128_hexdigest(np.array(made, "<i2").tobytes()), "sample_rate": 24_000, "channels": 1},
        **{"codec": "pcm_s16le", "bit_rate": 384_000, "truncated": False, "gain_db": pytest.approx(gain)},
        **dict.fromkeys(("drop_reason", "drop_value", "drop_threshold", "drop_detail")),
    }


def test_the_same_sound_has_one_digest_whatever_holds_it(tmp_path: Path) -> None:
    samples = tone(1.0)
    rows = [
        listen(written(tmp_path, wav(samples), "a.wav")),
        listen(written(tmp_path, encoded(samples[None], "flac", "flac"), "b.flac")),
        listen(written(tmp_path, encoded(samples[None], "matroska", "flac", video=True), "c.mkv")),
    ]
    assert len({row["digest"] for row in rows}) == 1
    assert [row["codec"] for row in rows] == ["pcm_s16le", "flac", "flac"]
    assert listen(written(tmp_path, wav(samples[1:])))["digest"] != rows[0]["digest"]


NOISE = np.random.default_rng(4)
FLOATS = tone(1.0).astype("<f4") / 32768
HALF_NAN = np.where(np.arange(len(FLOATS)) % 2, np.float32(np.nan), FLOATS)
FEW_NAN = np.where(np.arange(len(FLOATS)) % 2000, FLOATS, np.float32(np.nan))
BAD: dict[str, tuple[bytes, str, float | None]] = {
    "empty": (b"", "unreadable", None),
    "noise": (NOISE.bytes(50_000), "unreadable", None),
    "text": (b"not a sound\n" * 200, "unreadable", None),
    "no samples": (wav(np.zeros(0, np.int16)), "too_short", 0.0),
    "one sample": (wav(np.array([9000], np.int16)), "too_short", 1 / RATE),
    "silence": (wav(np.zeros(RATE, np.int16)), "silent", None),
    "one quiet sample": (wav(np.where(np.arange(RATE), 0, 1).astype(np.int16)), "silent", -134.111),
    "half of it no number": (wav(HALF_NAN), "not_finite", 0.5),
    "all of it no number": (wav(np.full(RATE, np.nan, "<f4")), "not_finite", 1.0),
    "a minute": (encoded(np.tile(tone(10), 6)[None], "flac", "flac"), "too_long", None),
}


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "ogg"])
@pytest.mark.parametrize("name", BAD)
def test_bad_recordings_have_a_reason(name: str, suffix: str, tmp_path: Path) -> None:
    data, reason, value = BAD[name]
    row = listen(written(tmp_path, data, f"a.{suffix}"), max_seconds=30)
    assert row["drop_reason"] == reason
    if value is not None:
        assert row["drop_value"] == pytest.approx(value, abs=0.001)
        assert row["drop_threshold"] is not None
    assert (row["samples"] is None) == (reason in ("unreadable", "too_long"))
    assert row["digest"] is None
    with pytest.raises(LookupError):
        samples_of("r")


GOOD = {
    "8 kHz": (lambda: recording("8k.wav"), 8000, 1),
    "6 channels": (lambda: recording("6.flac"), 48_000, 6),
    "a video": (lambda: recording("mp4"), 48_000, 1),
    "a truncated MP3": (lambda: recording("mp3", 2.0)[:20_000], 44_100, 2),
    "a few samples that are no numbers": (lambda: wav(FEW_NAN), 24_000, 1),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_recordings_are_kept(name: str, tmp_path: Path) -> None:
    make, rate, channels = GOOD[name]
    row = listen(written(tmp_path, make(), "a.mp3"))
    assert row["drop_reason"] is None
    assert (row["sample_rate"], row["channels"]) == (rate, channels)
    assert row["truncated"] == (name == "a truncated MP3")
    spool = samples_of("r")
    assert spool.length == row["samples"] > 0.9 * RATE
    assert np.abs(spool.read(0, spool.length)).max() == pytest.approx(1)


def test_what_only_the_first_frame_tells_is_told(tmp_path: Path) -> None:
    data = encoded(np.tile(tone(1.0, 44_100), (2, 1)), "mpegts", "aac", 44_100, "stereo", video=True, after=20)
    row = listen(written(tmp_path, data, "a.ts"))
    assert row["drop_reason"] is None
    assert (row["sample_rate"], row["channels"], row["codec"]) == (44_100, 2, "aac")
    late = listen(written(tmp_path, data, "a.ts"), min_seconds=2)
    assert (late["drop_reason"], late["sample_rate"]) == ("too_short", 44_100)


def test_a_file_that_is_gone_is_unreadable_and_its_path_not_told(tmp_path: Path) -> None:
    row = listen(tmp_path / "gone.wav")
    assert (row["drop_reason"], row["drop_detail"]) == ("unreadable", "No such file or directory")


def test_a_new_table_lets_go_of_the_last_one(tmp_path: Path) -> None:
    listen(written(tmp_path, wav(tone(1.0))))
    assert samples_of("r").length == RATE
    Standardise()(pa.table({"id": ["s"], "recording": ["a.wav"], "scratch/url": [str(tmp_path / "a.wav")]}))
    assert samples_of("s").length == RATE
    with pytest.raises(LookupError):
        samples_of("r")


def test_what_the_report_draws(tmp_path: Path) -> None:
    paths = [written(tmp_path, wav(tone(1.0))), written(tmp_path, b"", "b.wav"), tmp_path / "a.wav"]
    names = pa.array([path.name for path in paths])
    docs = pa.table({"id": ["1", "2", "3"], "recording": names, "scratch/url": [str(path) for path in paths]})
    operator = Standardise(max_seconds=600)
    found = operator(docs)
    assert operator.measured(found)["duration"].tolist() == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert operator.measured(found)["gain_db"].tolist() == pytest.approx([-3, np.nan, -3], nan_ok=True)
    assert operator.counted(found) == {"truncated": 0}
    assert operator.cuts == {"duration": (0.1, 600)}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"min_seconds": 5, "max_seconds": 4}, "min_seconds: 5.0 is more than max_seconds, 4.0"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"min_dbfs": 3}, "min_dbfs"),
        ({"max_not_finite": 1.5}, "max_not_finite"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Standardise(**parameters)
