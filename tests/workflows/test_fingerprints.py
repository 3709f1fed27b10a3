from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

pytest.importorskip("av")
pytest.importorskip("soxr")
pytest.importorskip("soundfile")

import pyarrow as pa

from operators.caption.decontaminate_audio import DecontaminateAudio
from operators.caption.fingerprint import WORDS, words_of
from operators.speech.codec import encode_flac, encode_mp3
from operators.speech.spool import RATE
from tests.operators.caption.sounds import prompts, tracks
from workflows.cli import app
from workflows.fingerprints import fingerprints
from workflows.recipe import RecipeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings of an evaluation set, and what else lies about."""
    (tmp_path / "set" / "music").mkdir(parents=True)
    (tmp_path / "set" / "voice.mp3").write_bytes(encode_mp3(prompts()[0], 96))
    (tmp_path / "set" / "music" / "tune.flac").write_bytes(encode_flac(tracks()[0][: 10 * RATE]))
    (tmp_path / "set" / "silence.flac").write_bytes(encode_flac(np.zeros(2 * RATE, np.float32)))
    (tmp_path / "set" / "page.mp3").write_text("no recording")
    (tmp_path / "set" / "list.csv").write_text("file_name\n")
    return tmp_path


def test_what_is_written_is_found(folder: Path) -> None:
    output = folder / "eval.parquet"
    made = fingerprints([str(folder / "set")], output)
    assert made["recordings"] == 2
    assert made["unread"] == {"page.mp3": "unreadable", "silence.flac": "silent"}
    table = pq.read_table(output)
    assert table.column_names == ["name", "fingerprint"]
    assert table["name"].to_pylist() == ["music/tune.flac", "voice.mp3"]
    clips = [tracks()[0][2 * RATE : 8 * RATE], prompts()[0], prompts()[1]]
    marked = DecontaminateAudio(sets={"mine": str(output)})(
        pa.table({"fingerprint": pa.array([words_of(samples) for samples in clips], WORDS)})
    )
    assert marked["drop_detail"].to_pylist() == ["mine: music/tune.flac", "mine: voice.mp3", None]
    again = folder / "again.parquet"
    fingerprints([str(folder / "set" / "music"), str(folder / "set" / "*.mp3")], again)
    assert pq.read_table(again)["fingerprint"].to_pylist() == table["fingerprint"].to_pylist()


def test_the_command(folder: Path) -> None:
    output = folder / "eval.parquet"
    done = CliRunner().invoke(app, ["fingerprint", str(folder / "set"), "-o", str(output)])
    assert done.exit_code == 0
    assert "page.mp3: unreadable" in done.output
    assert "2 fingerprints, 2 without one: eval.parquet" in done.output
    said = CliRunner().invoke(app, ["fingerprint", str(folder / "set"), "-o", str(output), "--json"])
    assert '"recordings": 2' in said.output


def test_bad_arguments(folder: Path) -> None:
    good = folder / "eval.parquet"
    for patterns, output, message in (
        (["set"], folder / "eval.csv", "ends in .parquet"),
        (["set"], folder / "nowhere" / "eval.parquet", "no such folder"),
        ([str(folder / "nothing")], good, "no such file"),
        ([str(folder / "set" / "list.csv")], good, "no recording in there"),
        ([str(folder / "set" / "page.mp3")], good, "no recording that has a fingerprint, of 1"),
        ([str(folder / "set"), str(folder / "set" / "voice.mp3")], good, "two recordings voice.mp3"),
    ):
        with pytest.raises(RecipeError, match=message):
            fingerprints(patterns, output)
    assert not good.exists()
