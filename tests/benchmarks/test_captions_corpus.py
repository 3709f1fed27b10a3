from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import captions_corpus as corpus
from benchmarks.captions_score import truths
from tests.benchmarks.test_speech_corpus import packages as speech_packages  # noqa: F401  (a fixture)
from workflows.captions_sample import SAMPLE, Known
from workflows.speech_sample import RATE, write

pytest.importorskip("av", reason="needs the extra corpusmill[speech]")


@pytest.fixture(scope="module")
def packages(speech_packages: Path) -> Path:  # noqa: F811
    """Those of speech, and some of the committed sounds where the others would have theirs."""
    share = speech_packages / "root" / "usr" / "share"
    for name in set(corpus.PACKAGES) - set(corpus.speech_corpus.PACKAGES):
        (speech_packages / f"{name}_1.0_all.deb").touch()
        (share / "doc" / name).mkdir()
    (share / "sonic-pi" / "samples").mkdir(parents=True)
    for name in ("guit_em9", "perc_bell", "loop_mika", "loop_tabla", "ambi_piano"):
        shutil.copyfile(SAMPLE / "sounds" / f"{name}.ogg", share / "sonic-pi" / "samples" / f"{name}.flac")
    return speech_packages


def test_a_corpus_is_all_told_and_the_same_every_time(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CLEAN", 1), ("ACTED", 1), ("LEVELS", (5.0,)), ("PIECES", 1)):
        monkeypatch.setattr(corpus, name, value)
    made = corpus.build(tmp_path / "one", 3, packages)
    assert corpus.build(tmp_path / "two", 3, packages) == made
    one, other = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    )
    assert one == other
    known = truths(tmp_path / "one" / "truth")
    assert {name for name, _ in known} == set(made) == {path.name for path in (tmp_path / "one" / "audio").iterdir()}
    kinds = Counter(clip.kind for clip in known.values())
    assert kinds == {
        **{kind: 5 for kind in ("speech", "speech over music", "speech over noise")},
        **{"acted speech": 4, "music": 4, "instrument": 2, "effect": 1},
    }
    assert {clip.gender for clip in known.values() if clip.kind == "acted speech"} == {"male", "female"}
    assert {clip.language for clip in known.values()} == {None, *corpus.LANGUAGES, *corpus.FOREIGN}
    assert all(1 <= seconds <= corpus.LONGEST for seconds in made.values())
    with open(tmp_path / "one" / "labels-3.csv", encoding="utf-8") as file:
        labels = {row["recording"]: row["labels"] for row in csv.DictReader(file)}
    assert set(labels) == set(made)
    assert labels[next(name for name in made if "guit_em9" in name)] == "Guitar"
    first = [next(corpus.voices(corpus.Source(packages, seed), seed)).samples for seed in (3, 3, 4)]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


def test_sounds_are_what_their_names_tell(tmp_path: Path) -> None:
    hum = np.sin(np.arange(2 * RATE) / 10).astype(np.float32)
    expected = {
        "guit_em9": ("instrument", None, ("guitar",), ("Guitar",)),
        "perc_bell2": ("effect", False, (), ("Bell",)),
        "loop_amen_full": ("music", True, ("drums",), ("Drum kit",)),
        "loop_mika": ("music", True, None, ("Music",)),
        "loop_3d_printer": ("effect", False, (), ("Printer",)),
    }
    for name, (kind, music, instruments, labels) in expected.items():
        write(tmp_path / f"{name}.flac", hum)
        one = corpus.recorded(tmp_path / f"{name}.flac")
        assert one
        assert one.known == Known(kind, False, music, instruments=instruments, labels=labels)
    for name, samples in (
        ("ambi_choir", hum),
        ("glitch_robot1", hum),
        ("elec_beep", hum[:100]),
        ("drum_roll", hum * 0),
    ):
        write(tmp_path / f"{name}.flac", samples)
        assert corpus.recorded(tmp_path / f"{name}.flac") is None
