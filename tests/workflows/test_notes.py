"""What is told of a stage beside its counts, from what its operators count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa

from operators.apply import Step, apply
from operators.caption.decontaminate import DecontaminateClips
from operators.caption.label import Label
from workflows.notes import notes


def told(folder: Path, *recordings: str) -> list[str]:
    steps = [
        Step("decontaminate_clips", DecontaminateClips(sets={n: str(folder / f"{n}.txt") for n in ("one", "two")})),
        Step("label", Label(file=str(folder / "labels.csv"))),
    ]
    docs = pa.table({"id": list(recordings), "recording": pa.array(recordings, pa.string())})
    return list(notes({"operators": [dataclasses.asdict(count) for count in apply(steps, docs).counts]}))


def test_files_that_had_no_part_in_a_stage_are_told_of(tmp_path: Path) -> None:
    for name, content in (("one.txt", "a"), ("two.txt", "b"), ("labels.csv", "recording,labels\nc,Speech\n")):
        (tmp_path / name).write_text(content)
    assert told(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav") == []
    assert told(tmp_path) == []
    held, unlabelled = told(tmp_path, "a.wav", "d.wav")
    assert held == "decontaminate_clips: 'two' held nothing out of 2; is it the list that was meant?"
    assert unlabelled.startswith("label: no line of `file` is about any of 1;")
