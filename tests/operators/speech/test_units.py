"""The operator `units` on utterances with audio, and the codebooks that users train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from operators.document import loaded
from operators.models.units import CODEBOOK, LogMelUnits, read_codebook
from operators.speech.decode import Decoder
from operators.speech.spool import RATE
from operators.speech.units import Units
from workflows.recipe import RecipeError
from workflows.train_units import Sample, train_units

pytest.importorskip("av")
PROMPTS = Path(__file__).parents[3] / "workflows/sample/speech/prompts"


def table(payloads: list[bytes | None]) -> pa.Table:
    ids = [f"r/{n:05d}" for n in range(len(payloads))]
    return pa.table({"id": ids, "payload": pa.array(payloads, pa.large_binary())})


@pytest.fixture(scope="module")
def clips() -> list[bytes]:
    """Two seconds and a bit of noise, and one of a tone, as FLAC."""
    from operators.speech.codec import encode_flac

    noise = np.random.default_rng(0).normal(0, 0.1, round(2.3 * RATE)).astype(np.float32)
    return [encode_flac(noise), encode_flac((np.sin(np.arange(RATE) / 20) / 2).astype(np.float32))]


def test_utterances_get_units_each_for_itself(clips: list[bytes]) -> None:
    found = Units()(table([clips[0], None, clips[1]]))
    assert found.schema.field("units").type == pa.list_(pa.uint16())
    noise, nothing, tone = found["units"].to_pylist()
    assert (len(noise), nothing, len(tone)) == (29, None, 13)
    assert found["unit_rate"].to_pylist() == [12.5, None, 12.5]
    assert Units()(table([clips[1]]))["units"].to_pylist() == [tone]
    assert len(Units(rate=50)(table([clips[1]]))["units"][0]) == 50
    assert Units().clusters == 256
    assert max(noise + tone) < 256


@pytest.mark.parametrize("given", [{"rate": 10}, {"codebook": "absent.npz"}, {"codec": {"path": "absent"}}])
def test_bad_parameters_are_named(given: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(given))):
        Units(**given)


def test_a_codebook_of_one_s_own(tmp_path: Path, clips: list[bytes]) -> None:
    card = train_units([str(PROMPTS / "en")], tmp_path / "own.npz", 32, 25.0, 800, 1)
    assert card["unread"] == {}
    assert card["stretches"] == min(800, round(card["seconds"] * 25))
    again = train_units([str(PROMPTS / "en")], tmp_path / "again.npz", 32, 25.0, 800, 1)
    assert again["sha256"] == card["sha256"]
    given: dict[str, Any] = {"codebook": str(tmp_path / "own.npz"), "rate": 25}  # as a recipe has it
    units = Units(**given)
    assert units.clusters == 32 == len(read_codebook(units.codebook))  # type: ignore[arg-type]
    assert max(units(table([clips[0]]))["units"][0].as_py()) < 32


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"output": Path("own.bin")}, "--output own.bin"),
        ({"clusters": 1}, "--clusters 1"),
        ({"rate": 30.0}, "--rate 30"),
        ({"stretches_at_most": 3}, "--stretches 3"),
        ({"patterns": [str(PROMPTS.parent / "transcripts.json")]}, "no recording"),
        ({"patterns": ["absent/"]}, "absent/"),
    ],
)
def test_what_cannot_be_trained_is_told(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"patterns": [str(PROMPTS)], "output": tmp_path / "c.npz", "clusters": 8, "rate": 12.5}
    with pytest.raises(RecipeError, match=told):
        train_units(**(given | {"stretches_at_most": 1000, "seed": 0} | changed))


def test_a_sample_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    keys, rows = rng.permutation(500).astype(np.uint64), rng.normal(size=(500, 80)).astype(np.float32)
    found = []
    for parts in (np.arange(500), rng.permutation(500)):
        sample = Sample(40)
        for part in np.array_split(parts, 30):
            sample.add(keys[part], rows[part])
        found.append(sample.frames())
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], rows[np.argsort(keys)[:40]])


def test_real_speech_uses_the_codebook_whatever_its_loudness() -> None:
    encoder = loaded(LogMelUnits(CODEBOOK, 12.5))
    used: set[int] = set()
    same = total = 0
    for path in sorted(PROMPTS.rglob("*.g722"))[::2]:
        with path.open("rb") as file, Decoder(file, path.name) as decoder:
            samples = np.concatenate(list(decoder.blocks(60.0))).astype(np.float32) / 32768
        units = encoder.encode(samples)
        assert abs(len(units) - len(samples) / RATE * 12.5) <= 1
        used |= set(units.tolist())
        same += int((units == encoder.encode(samples / 2)).sum())
        total += len(units)
    assert total > 800
    assert len(used) > 180
    assert same / total > 0.95
