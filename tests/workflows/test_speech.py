"""Whole builds of recordings: real speech of two languages, music, silence, a copy, and what is no recording."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from ruamel.yaml import YAML

from benchmarks.speech_score import edits, words
from cluster.storage import open_store
from cluster.tables import read_entry
from operators.read.span import fallback_id
from workflows.build import build, prepare
from workflows.corpus import newest_build
from workflows.explain import why
from workflows.nightly import prepare_night, run_night
from workflows.recipe import RecipeError
from workflows.retract import retract
from workflows.speech_sample import SAMPLE, Mix, committed, listen, write
from workflows.verify import verify

TALK, COPY, SILENT, MUSIC, NO_AUDIO = "talk.flac", "talk again.flac", "quiet.wav", "hold.ogg", "notes.mp3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`in/` with the recordings."""
    made = tmp_path_factory.mktemp("speech")
    (made / "in").mkdir()
    write(made / "in" / TALK, talk().samples())
    shutil.copy(made / "in" / TALK, made / "in" / COPY)
    write(made / "in" / SILENT, np.zeros(48_000, np.float32))
    write(made / "in" / MUSIC, listen(next((SAMPLE / "music").iterdir()))[: 8 * 24_000], 48_000)
    (made / "in" / NO_AUDIO).write_text("no recording\n" * 100)
    return made


def talk() -> Mix:
    """Two speakers, two turns each."""
    clips, mix = committed(), Mix(3)
    for number, language in enumerate(("en", "it", "en", "it")):
        mix.turn(clips[language][2 * number : 2 * number + 2])
    return mix


def recipe(path: Path, inputs: Path | list[Path], output: Path, **changes: Any) -> Path:
    params: dict[str, Any] = {
        "transcribe": {"words": True},
        "units": {},
        "tokenizer": {"name": "train:bpe", "vocab": 400},
    } | changes.pop("params", {})
    body = {
        "workflow": "speech",
        "inputs": [str(one) for one in (inputs if isinstance(inputs, list) else [inputs])],
        "output": str(output),
        "dropped_text": True,
        "params": params,
        "shards": {"formats": ["webdataset", "tokens_parquet", "parquet"]},
        "workers": {"unit_bytes": 1024},
    } | changes
    with path.open("w") as file:
        YAML().dump(body, file)
    return path


@pytest.fixture(scope="module")
def built(folder: Path, ray_session: None) -> dict[str, Any]:
    return build(prepare(recipe(folder / "recipe.yaml", folder / "in", folder / "out")))


def rows_of(folder: Path, stage: str, fate: str) -> pa.Table:
    store = open_store(str(folder))
    found = next(one for one in newest_build(store)["stages"] if one["name"] == stage)
    return pa.concat_tables([read_entry(store, e) for e in found["files"][fate]], promote_options="permissive")


def utterances(folder: Path, built: dict[str, Any]) -> pa.Table:
    paths = [shard["path"] for shard in built["shards"] if shard["format"] == "parquet"]
    return pa.concat_tables([pq.read_table(folder / "out" / path) for path in paths]).sort_by("id")


def fate(folder: Path, name: str) -> tuple[str, str | None, str | None]:
    store = open_store(str(folder / "out"))
    told = why(store, [newest_build(store)], fallback_id(name, 0))
    return told["fate"], told["operator"], told["reason"]


def test_every_recording_has_a_fate_and_every_second_of_it(folder: Path, built: dict[str, Any]) -> None:
    assert fate(folder, SILENT) == ("dropped", "standardise", "silent")
    assert fate(folder, NO_AUDIO) == ("dropped", "standardise", "unreadable")
    split = {name: fate(folder, name) for name in (TALK, COPY, MUSIC)}
    assert set(split.values()) == {("dropped", "segment", "split")}
    dropped, kept = (rows_of(folder / "out", "segment", one) for one in ("dropped", "kept"))
    whole = pc.ends_with(dropped["drop_reason"], "/split")
    parents = dropped.filter(whole).sort_by("recording").select(["recording", "samples"]).to_pylist()
    columns = ["recording", "samples"]
    spans = pa.concat_tables([dropped.filter(pc.invert(whole)).select(columns), kept.select(columns)])
    added = spans.group_by("recording").aggregate([("samples", "sum")]).to_pylist()
    sums = {row["recording"]: row["samples_sum"] for row in added}
    assert {row["recording"]: row["samples"] for row in parents}.items() <= sums.items()
    assert kept.num_rows


def test_the_second_of_two_equal_recordings_goes(folder: Path, built: dict[str, Any]) -> None:
    dropped = rows_of(folder / "out", "filter", "dropped")
    copies = dropped.filter(pc.equal(dropped["drop_reason"], "exact_dedup_audio/duplicate"))
    kept = utterances(folder, built)
    assert copies.num_rows >= kept.num_rows > 0
    assert len(set(copies["recording"].to_pylist()) | set(kept["recording"].to_pylist())) == 2
    assert kept["recording"].unique().to_pylist() != copies["recording"].unique().to_pylist()


def test_what_is_kept_is_what_was_said(folder: Path, built: dict[str, Any]) -> None:
    said = talk().said
    for row in utterances(folder, built).to_pylist():
        inside = [one for one in said if row["start"] - 0.3 <= one.start and one.end <= row["end"] + 0.3]
        assert {one.language for one in inside} == {row["language"]}
        reference = words(" ".join(one.text for one in inside))
        assert edits(reference, words(row["text"])) < 0.5 * len(reference)
        assert row["dnsmos"] >= 3.0
        assert [word["start"] for word in row["words"]] == sorted(word["start"] for word in row["words"])
        assert row["words"][-1]["end"] <= row["end"] - row["start"] + 0.05
        assert abs(len(row["units"]) - (row["end"] - row["start"]) * row["unit_rate"]) <= 1


def test_a_trainer_gets_tar_files_of_audio_and_text(folder: Path, built: dict[str, Any]) -> None:
    table = utterances(folder, built)
    (shard,) = [shard for shard in built["shards"] if shard["format"] == "webdataset"]
    with tarfile.open(folder / "out" / shard["path"]) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    told = {orjson.loads(data)["id"]: name for name, data in files.items() if name.endswith(".json")}
    assert sorted(told) == table["id"].to_pylist()
    for row in table.to_pylist():
        name = told[row["id"]]
        samples, rate = soundfile.read(io.BytesIO(files[name.replace(".json", ".flac")]))
        assert (rate, len(samples)) == (24_000, row["samples"])
        assert orjson.loads(files[name])["text"] == row["text"]


def test_the_report_lets_one_listen(folder: Path, built: dict[str, Any]) -> None:
    page = (folder / "out" / "builds" / built["build_id"] / "report.html").read_text("utf-8")
    assert page.count("<audio controls") >= 2
    assert "data:audio/mpeg;base64," in page
    assert "speaker 1" in page
    assert [error for _, error in verify(open_store(str(folder / "out"))) if error] == []


def test_interleaved_with_units_text_stays_whole(folder: Path, built: dict[str, Any]) -> None:
    shutil.copytree(folder / "out", folder / "turns")
    made = recipe(
        folder / "turns.yaml",
        folder / "in",
        folder / "turns",
        params={"interleave": {}},
        shards={"formats": ["tokens_parquet", "parquet"]},
    )
    result = build(prepare(made))
    assert [stage["cached"] for stage in result["stages"]] == [True, True, True, False]
    documents = pq.read_table(folder / "turns" / next(s["path"] for s in result["shards"] if s["format"] == "parquet"))
    text = " ".join(row["text"] for row in utterances(folder, built).sort_by("start").to_pylist())
    assert documents["text"].to_pylist() == [text]
    assert 0 < documents["speech_share"][0].as_py() < 1


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"transcribe": "off", "tokenizer": {}}, "params.tokenizer: there is no text to encode"),
        ({"segment": "off"}, "params.segment: without it there are no utterances"),
        ({"interleave": {}, "transcribe": {"words": False}}, "words"),
        ({"segment": {"mode": "emilia", "max_gap": 2}}, "max_gap"),
    ],
)
def test_what_does_not_fit_is_an_error_before_work(
    params: dict[str, Any], told: str, folder: Path, tmp_path: Path
) -> None:
    body = {"workflow": "speech", "inputs": [str(folder / "in")], "output": str(tmp_path / "out"), "params": params}
    (tmp_path / "recipe.yaml").write_bytes(orjson.dumps(body))
    with pytest.raises(RecipeError, match=told):
        prepare(tmp_path / "recipe.yaml")


def test_texts_beside_recordings_are_read_without_them(tmp_path: Path) -> None:
    for name in ("a.txt", "b.wav", "c.wav.gz", "d.ts"):
        (tmp_path / name).write_text("text")
    body = {"workflow": "text", "inputs": [str(tmp_path)], "output": str(tmp_path / "out")}
    (tmp_path / "recipe.yaml").write_bytes(orjson.dumps(body))
    prepared = prepare(tmp_path / "recipe.yaml")
    assert [Path(item["url"]).name for item in prepared.job.inputs] == ["a.txt"]
    assert {Path(url).name for url in prepared.ignored} == {"b.wav", "c.wav.gz", "d.ts", "recipe.yaml"}


@pytest.mark.parametrize(
    ("workflow", "name", "told"),
    [("text", TALK, "no kind that can be read by workflow text"), ("speech", "a.txt", "by workflow speech")],
)
def test_a_workflow_takes_what_it_can_read(workflow: str, name: str, told: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    path = folder / "in" / name if name == TALK else tmp_path / name
    body = {"workflow": workflow, "inputs": [str(path)], "output": str(tmp_path / "out")}
    (tmp_path / "recipe.yaml").write_bytes(orjson.dumps(body))
    with pytest.raises(RecipeError, match=told):
        prepare(tmp_path / "recipe.yaml")


def test_an_utterance_is_taken_out_of_every_format(folder: Path, built: dict[str, Any]) -> None:
    shutil.copytree(folder / "out", folder / "less")
    store = open_store(str(folder / "less"))
    gone, *left = utterances(folder, built)["id"].to_pylist()
    assert retract(store, pa.array([gone]))["unknown"] == []
    assert [error for _, error in verify(store) if error] == []
    shards = newest_build(store)["shards"]
    for shard in (one for one in shards if one["format"] == "webdataset"):
        with tarfile.open(folder / "less" / shard["path"]) as archive:
            assert len(archive.getnames()) == 2 * len(left)


def test_a_recording_is_taken_out_whole(folder: Path, built: dict[str, Any]) -> None:
    shutil.copytree(folder / "out", folder / "none")
    store = open_store(str(folder / "none"))
    (recording,) = {name.partition("/")[0] for name in utterances(folder, built)["id"].to_pylist()}
    told = retract(store, pa.array([recording]))
    assert (told["unknown"], told["builds"][0]["documents"]) == ([], built["documents"])
    assert [error for _, error in verify(store) if error] == []
    assert why(store, [newest_build(store)], TALK)["fate"] == "dropped"  # by the file's name


def test_a_night_with_other_units_is_refused(folder: Path, built: dict[str, Any]) -> None:
    other = recipe(
        folder / "units.yaml",
        folder / "in",
        folder / "turns",
        params={"interleave": {}, "units": {"rate": 25}},
        shards={"formats": ["tokens_parquet", "parquet"]},
    )
    with pytest.raises(RecipeError, match=r"params\.units: rate is 25.*a corpus has one"):
        prepare_night(other)


def test_a_night_knows_what_was_published(folder: Path, built: dict[str, Any]) -> None:
    shutil.copytree(folder / "out", folder / "night")
    (folder / "later").mkdir()
    shutil.copy(folder / "in" / TALK, folder / "later" / "third copy.flac")
    new = Mix(4)
    new.turn(committed()["fr"][:2])
    write(folder / "later" / "new.ogg", new.samples(), 48_000)
    recipe(folder / "night.yaml", [folder / "in", folder / "later"], folder / "night")
    result = run_night(folder / "night.yaml", prepare_night(folder / "night.yaml"))
    assert result["committed"]
    kept, dropped = (rows_of(folder / "night", "filter", one) for one in ("kept", "dropped"))
    assert set(kept["recording"].to_pylist()) == {"new.ogg"}
    assert "exact_dedup_audio/duplicate" in dropped["drop_reason"].to_pylist()
    assert [error for _, error in verify(open_store(str(folder / "night"))) if error] == []
