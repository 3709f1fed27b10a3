"""WADA-SNR against mixtures whose ratio is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from numpy.typing import NDArray

from operators.apply import Step, apply
from operators.speech.snr import TABLE, Snr, wada_snr
from operators.speech.spool import RATE

pytest.importorskip("soundfile")
PROMPTS = Path(__file__).parents[3] / "workflows" / "sample" / "speech" / "prompts"


def noise(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def speech(seed: int, n: int = 10 * RATE) -> NDArray[np.float32]:
    """Amplitudes of the distribution that the method takes for speech's."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.gamma(0.4, 1.0, n) * rng.choice([-1, 1], n), np.float32)


def mixed(clean: NDArray[np.float32], decibels: float) -> NDArray[np.float32]:
    added = noise(len(clean), 1)
    ratio = math.sqrt(float(np.square(clean).mean() / np.square(added).mean()) / 10 ** (decibels / 10))
    both = clean + ratio * added
    return np.asarray(both / np.abs(both).max(), np.float32)


@pytest.mark.parametrize("decibels", [-5, 0, 5, 10, 15, 20, 30, 40])
def test_the_ratio_of_the_distribution_it_assumes(decibels: float) -> None:
    found = wada_snr(mixed(speech(2), decibels))
    assert abs(found - decibels) < 1


def prompts() -> dict[str, NDArray[np.float32]]:
    import av
    import soxr

    voices = {}
    for language in sorted(PROMPTS.iterdir()):
        parts = []
        for path in sorted(language.glob("*.g722"))[:6]:
            with av.open(str(path), format="g722") as container:
                frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
            parts.append(np.concatenate(frames).astype(np.float32) / 32768)
        voices[language.name] = soxr.resample(np.concatenate(parts), 16_000, RATE)
    return voices


def test_real_voices_in_white_noise() -> None:
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    added = (5, 10, 15, 20, 30)
    found = {name: [wada_snr(mixed(clean, db)) for db in added] for name, clean in prompts().items()}
    assert found.keys() >= {"en", "es", "fr", "it", "ru"}
    for values in found.values():  # too low by some dB: prompts have no pauses, and are evened out for telephones
        assert all(later - before > 1.5 for before, later in zip(values, values[1:], strict=False)), values
        assert all(db - 9 < value < db + 1 for db, value in zip(added[:3], values, strict=False)), values
    for name in ("en", "it"):  # the cleanest of them
        assert all(abs(db - value) < 5 for db, value in zip(added[:3], found[name], strict=False)), found[name]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.tile(np.array([0.5, -0.5], np.float32), 50), -20),  # the statistic is 0
        (np.full(100, 0.5, np.float32), math.nan),  # an offset is no sound
        (np.zeros(100, np.float32), math.nan),
        (np.zeros(0, np.float32), math.nan),
        (np.array([1, -1, *[0] * 9_998], np.float32), 100),  # a click in silence
    ],
)
def test_extremes(samples: NDArray[np.float32], expected: float) -> None:
    assert wada_snr(samples) == pytest.approx(expected, nan_ok=True)


def test_between_two_entries_of_the_table() -> None:
    """Two magnitudes x and 1: the statistic is log((1 + x) / 2) - log(x) / 2, here halfway from 10 dB to 11 dB."""
    wanted = (TABLE[30] + TABLE[31]) / 2
    root = math.exp(wanted) + math.sqrt(math.exp(2 * wanted) - 1)  # of 1/x: cosh(log(x) / 2) = e**wanted
    samples = np.tile(np.array([1, 1 / root**2, -1, -1 / root**2], np.float32), 500)
    assert wada_snr(samples) == 10.5
    assert wada_snr(-samples / 8) == 10.5  # how loud it is makes no difference


def table(*samples: NDArray[np.float32] | None) -> pa.Table:
    from operators.speech.codec import encode_flac

    audio = [None if one is None else encode_flac(one) for one in samples]
    ids = [str(n) for n in range(len(audio))]
    return pa.table({"id": ids, "payload": pa.array(audio, pa.large_binary())})


def test_a_floor_drops_what_is_below_it() -> None:
    docs = table(mixed(speech(3), 20), mixed(speech(3), 5), np.zeros(RATE, np.float32), None)
    kept, dropped, counts = apply([Step("snr", Snr(min=15))], docs)
    assert kept["id"].to_pylist() == ["0"]
    assert dropped["drop_reason"].to_pylist() == ["snr/low_snr"] * 3
    assert dropped["drop_threshold"].to_pylist() == [15.0] * 3
    values = dropped["drop_value"].to_pylist()
    assert values[0] == pytest.approx(5, abs=1)
    assert values[1:] == [None, None]
    assert sum(counts[0].measured["snr"].values()) == 2
    assert Snr(min=15).cuts == {"snr": (15,)}


def test_without_a_floor_nothing_is_dropped() -> None:
    docs = table(np.zeros(RATE, np.float32), mixed(speech(3), 5))
    marked = Snr()(docs)
    assert marked["snr"].to_pylist()[0] is None
    assert marked["snr"].type == pa.float32()
    alone = Snr()(docs.slice(1))
    assert alone["snr"].to_pylist() == marked["snr"].to_pylist()[1:]
    assert apply([Step("snr", Snr())], docs).kept.num_rows == 2


@pytest.mark.parametrize("fields", [{"min": -21}, {"min": 101}, {"max": 3}])
def test_bad_parameters(fields: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(fields))):
        Snr(**fields)
