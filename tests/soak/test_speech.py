"""Recordings in earnest: builds that are killed, ten hours in one file, two workers beside one."""

from __future__ import annotations

import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.soak.building import Built, Ground, ground, run_series
from tests.workflows.corpora import hashes
from tests.workflows.test_speech import recipe as speech_recipe
from workflows.build import build, prepare
from workflows.speech_sample import Mix, committed, lay_out

KILLS = [
    ["worker"],
    ["driver"],
    ["worker", "driver"],
    ["driver", "driver", "worker"],
    ["worker", "worker"],
    ["clock", "worker"],
]
HOURS, SPEECH_HOURS = 10, 0.5
MOST_BYTES = 1_500_000_000  # of resident memory
RATE = 24_000


def lay_out_recordings(folder: Path, _sample: Path) -> None:
    lay_out(folder, folder.with_name("truth"))


def build_recipe(path: Path, inputs: str, output: str) -> Path:
    return speech_recipe(path, Path(inputs), Path(output))


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[Ground]:
    built = Built(("segment", "transcribe", "filter", "tokens"), lay_out_recordings, build_recipe)
    with ground(tmp_path_factory.mktemp("speech"), sample, built) as found:
        yield found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seed", "kinds"), list(enumerate(KILLS)))
def test_a_killed_build_ends_with_the_shards_of_one_that_nobody_disturbed(
    seed: int, kinds: list[str], on: Ground, tally: Counter[Any]
) -> None:
    tally.update(run_series(on, "local", seed, kinds))
    tally["speech"] += 1


@pytest.mark.usefixtures("ray_session")
def test_the_same_bytes_whatever_the_units(on: Ground, tmp_path: Path) -> None:
    made = speech_recipe(
        tmp_path / "r.yaml", Path(on.inputs["local"]), tmp_path / "out", workers={"unit_bytes": 1 << 30}
    )
    assert [list(one) for one in hashes(build(prepare(made)))] == [list(one) for one in on.expected]


MEASURE = """
import resource, sys, orjson, time
import pyarrow as pa
from operators.apply import apply
from operators.read.recording import read_recording
from operators.read.span import Span
from workflows.recipe import Params
from workflows.speech import speech
stages = speech(Params({})).chain()[:2]
span = Span(sys.argv[1], "long.wav", "audio", 0, -1, 0, None, 0, 1.0)
(batch,) = read_recording(span)
docs, began = batch.docs, time.process_time()
rows = {}
for stage in stages:
    applied = apply(stage.steps, docs)
    docs = applied.kept
    for row in applied.dropped.select(["drop_reason", "samples"]).to_pylist():
        rows[row["drop_reason"]] = rows.get(row["drop_reason"], 0) + (row["samples"] or 0)
kept = sum(docs["samples"].to_pylist())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(orjson.dumps({"peak": peak, "kept": kept, "dropped": rows, "cpu": time.process_time() - began}).decode())
"""


@pytest.mark.timeout(3600)
def test_ten_hours_in_one_file_take_less_than_1_5_gb(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    write_long(path)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)
    print(told)  # noqa: T201  (figures for the docs)
    assert told["peak"] < MOST_BYTES
    assert told["dropped"]["segment/split"] == HOURS * 3600 * RATE
    assert told["kept"] > 0.8 * SPEECH_HOURS * 3600 * RATE


def write_long(path: Path) -> None:
    """Ten hours, minutes of speech here and there, in between a quiet room."""
    clips = committed()
    talk = Mix(5)
    while talk.seconds < 180:
        for language in ("en", "fr", "it"):
            talk.turn([clips[language][int(n)] for n in talk.random.integers(0, len(clips[language]), 2)])
    spoken = talk.samples()[: 180 * RATE]
    room = (np.random.default_rng(0).standard_normal(RATE * 60) * 1e-4).astype(np.float32)
    hour = (np.concatenate([spoken, *[room] * 57]) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for _ in range(HOURS):
            file.writeframes(hour)
