"""Whole builds of captions: real speech, music and effects, copies, evaluation clips, and a model server that fails."""

from __future__ import annotations

import csv
import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from ruamel.yaml import YAML

from benchmarks.chat_server import ChatServer, Faults, chat_server
from cluster.storage import open_store
from cluster.tables import read_entry
from cluster.units import UnitFailed
from operators.caption.evidence import consistency
from operators.caption.facts import facts_of
from operators.read.span import fallback_id
from tests.workflows.corpora import hashes
from workflows.build import build, prepare
from workflows.captions_sample import CLIPS, LABELS
from workflows.captions_sample import LISTED as EVALUATION_NAMES
from workflows.corpus import newest_build
from workflows.demo import DEMOS, HELD_OUT, write_recipe
from workflows.explain import why
from workflows.export_captions import export_captions
from workflows.fingerprints import fingerprints
from workflows.recipe import RecipeError
from workflows.speech_sample import RATE, SAMPLE, Mix, committed, listen, write
from workflows.verify import verify

ENGLISH, ITALIAN, OVER, MUSIC = "a woman.flac", "a man.flac", "radio/a man over music.ogg", "hold.flac"
COPY, NEAR, SILENT, NO_AUDIO = "a woman again.flac", "hold again.mp3", "quiet.wav", "notes.mp3"
LISTED, HEARD = "eval/listed.flac", "eval/under another name.mp3"
SERVER = {"endpoint": "http://localhost:8000/v1", "model": "m"}
FAULTS = Faults(0.005, rate_429=0.1, rate_500=0.1, rate_malformed=0.1, rate_refusal=0.1, retry_after=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`in/` with the recordings, and the lists that name what is held out."""
    made = tmp_path_factory.mktemp("captions")
    clips, music = committed(), [listen(path) for path in sorted((SAMPLE / "music").iterdir())]
    for name, language in ((ENGLISH, "en"), (ITALIAN, "it"), (OVER, "it"), (LISTED, "fr"), (HEARD, "es")):
        mix = Mix(3)
        mix.turn(clips[language][:1] if name != OVER else clips[language][4:5])
        if name == OVER:
            mix.under(0, "music", 10, music[1])
        write(made / "in" / name, mix.samples(), 48_000 if name.endswith("ogg") else RATE)
    write(made / "in" / MUSIC, music[0][: 10 * RATE])
    write(made / "in" / NEAR, 0.5 * music[0][RATE // 2 : 10 * RATE], 44_100)
    shutil.copy(made / "in" / ENGLISH, made / "in" / COPY)
    write(made / "in" / SILENT, np.zeros(2 * RATE, np.float32))
    (made / "in" / NO_AUDIO).write_text("no recording\n" * 100)
    (made / "listed.txt").write_text(f"{Path(LISTED).stem}\n")
    mix = Mix(3)
    mix.turn(clips["es"][:1])
    write(made / "held out.flac", mix.samples())
    fingerprints([str(made / "held out.flac")], made / "eval.parquet")
    (made / "labels.csv").write_text(f"recording,labels\n{MUSIC},Jingle (music);Synthesizer\n")
    return made


def recipe(path: Path, inputs: Path, output: Path, params: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    base = path.parent
    body = {
        "workflow": "captions",
        "inputs": [str(inputs)],
        "output": str(output),
        "dropped_text": True,
        "params": {
            "decontaminate_clips": {"sets": {"listed": str(base / "listed.txt")}},
            "decontaminate_audio": {"sets": {"heard": str(base / "eval.parquet")}},
            "label": {"file": str(base / "labels.csv")},
            "tokenizer": {"name": "train:bpe", "vocab": 300},
            **(params or {}),
        },
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


def clips(folder: Path, built: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of the Parquet shards, by the name of the recording."""
    paths = [shard["path"] for shard in built["shards"] if shard["format"] == "parquet"]
    rows = pa.concat_tables([pq.read_table(folder / path) for path in paths]).to_pylist()
    return {row["recording"]: row for row in rows}


def fate(folder: Path, name: str) -> tuple[str, str | None, str | None]:
    store = open_store(str(folder / "out"))
    told = why(store, [newest_build(store)], fallback_id(name, 0))
    return told["fate"], told["operator"], told["reason"]


def test_every_recording_and_clip_has_a_fate(folder: Path, built: dict[str, Any]) -> None:
    assert fate(folder, SILENT) == ("dropped", "standardise", "silent")
    assert fate(folder, NO_AUDIO) == ("dropped", "standardise", "unreadable")
    assert fate(folder, LISTED) == ("dropped", "decontaminate_clips", "held_out")
    dropped = {stage: rows_of(folder / "out", stage, "dropped") for stage in ("clip", "unique")}
    reasons = {
        (row["recording"], row["drop_reason"])
        for rows in dropped.values()
        for row in rows.to_pylist()
        if not row["drop_reason"].endswith("/split")
    }
    assert (HEARD, "decontaminate_audio/held_out") in reasons
    assert {name for name, reason in reasons if reason == "exact_dedup_audio/duplicate"} & {ENGLISH, COPY}
    assert {name for name, reason in reasons if reason == "similar_audio/duplicate"} & {MUSIC, NEAR}
    kept = clips(folder / "out", built)
    assert len({ENGLISH, COPY} & set(kept)) == len({MUSIC, NEAR} & set(kept)) == 1
    assert {ITALIAN, OVER} <= set(kept)


def test_captions_say_what_is_heard_and_nothing_else(folder: Path, built: dict[str, Any]) -> None:
    kept = clips(folder / "out", built)
    (woman,) = (kept[name] for name in (ENGLISH, COPY) if name in kept)
    assert "English" in woman["text"]
    assert "Italian" in kept[ITALIAN]["text"]
    assert "usic" in kept[OVER]["text"]
    for row in kept.values():
        (facts,) = facts_of(pa.chunked_array([[row["facts"]]]))
        assert consistency(row["text"], facts).score == 1
        assert (row["written_by"], row["verified_by"], row["accepted"]) == ("grammar", "evidence", True)
        assert row["qa"]
    labelled = kept.get(MUSIC)
    assert labelled is None or labelled["labels"] == ["Jingle (music)", "Synthesizer"]


def test_a_trainer_gets_clips_with_captions(folder: Path, built: dict[str, Any]) -> None:
    kept = {row["id"]: row for row in clips(folder / "out", built).values()}
    (shard,) = [shard for shard in built["shards"] if shard["format"] == "webdataset"]
    with tarfile.open(folder / "out" / shard["path"]) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    told = {name: orjson.loads(data) for name, data in files.items() if name.endswith(".json")}
    assert {one["id"] for one in told.values()} == set(kept)
    for name, one in told.items():
        samples, rate = soundfile.read(io.BytesIO(files[name.replace(".json", ".flac")]))
        assert (rate, len(samples)) == (RATE, one["samples"])
        assert {key: one[key] for key in ("text", "qa", "attempts")} == {
            key: kept[one["id"]][key] for key in ("text", "qa", "attempts")
        }
    assert built["tokens"] > 0


def test_the_report_shows_clips_with_facts_and_captions(folder: Path, built: dict[str, Any]) -> None:
    page = (folder / "out" / "builds" / built["build_id"] / "report.html").read_text("utf-8")
    kept = clips(folder / "out", built)
    assert page.count("<audio controls") >= len(kept)
    assert all(row["text"] in page for row in kept.values())
    assert "accepted at try 1" in page
    assert "Written by grammar, verified by evidence" in page
    assert [error for _, error in verify(open_store(str(folder / "out"))) if error] == []


def test_the_same_bytes_whatever_the_units(folder: Path, built: dict[str, Any]) -> None:
    again = build(
        prepare(recipe(folder / "other.yaml", folder / "in", folder / "other", workers={"unit_bytes": 1 << 30}))
    )
    assert hashes(again) == hashes(built)


def test_captions_as_tables(folder: Path, built: dict[str, Any], tmp_path: Path) -> None:
    store = open_store(str(folder / "out"))
    captions, questions = export_captions(store, newest_build(store), tmp_path / "tables")
    kept = clips(folder / "out", built)
    with captions.open(newline="") as file:
        assert {row["recording"]: row["caption"] for row in csv.DictReader(file)} == {
            name: row["text"] for name, row in kept.items()
        }
    with questions.open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for row in kept.values():
        assert rows[row["id"]]["answer_1"] == row["qa"][0]["answer"]
    with pytest.raises(RecipeError, match="is not empty"):
        export_captions(store, newest_build(store), tmp_path / "tables")


def asking(server: ChatServer) -> dict[str, Any]:
    """Parameters that have a server do all that one can do."""
    model = {"endpoint": server.url, "model": "tested", "concurrency": 8, "pause": 0.01, "timeout": 20}
    return {
        "extract": {"model": {**model}},
        "compose": {"writer": {**model, "temperature": 0.7}},
        "questions": {"writer": {**model}},
    }


def test_a_server_that_fails_at_times_loses_no_clip_and_is_asked_nothing_twice(
    folder: Path, built: dict[str, Any]
) -> None:
    shutil.copytree(folder / "out", folder / "served")
    with chat_server("tests.workflows.captioning_model:reply", FAULTS) as server:
        path = recipe(folder / "served.yaml", folder / "in", folder / "served", asking(server))
        result = build(prepare(path))
        assert [stage["cached"] for stage in result["stages"]] == [True, True, False, False, False]
        listened, told = rows_of(folder / "served", "listen", "kept"), rows_of(folder / "served", "caption", "kept")
        dropped = [stage["dropped"] for stage in result["stages"][2:4]]
        assert len(told) + sum(sum(reasons.values()) for reasons in dropped) == len(clips(folder / "out", built))
        assert set(told["written_by"].to_pylist()) <= {"tested", "grammar"}
        accepted = told.filter(told["accepted"])
        assert set(accepted["attempts"].to_pylist()) <= {2, 3}  # the first caption is wrong
        assert accepted.num_rows
        assert listened["answers_from"].null_count < len(listened)
        before = server.told()["requests"]
        assert before > 0
        again = build(prepare(path), force="listen")
        assert server.told()["requests"] == before
        assert hashes(again) == hashes(result)
        (stage,) = (folder / "served" / "stages").glob(f"caption-{again['stages'][3]['fingerprint']}")
        counted = {
            one["name"]: one["counted"] for one in orjson.loads((stage / "manifest.json").read_bytes())["operators"]
        }
        assert counted["compose"]["calls"] == 0 < counted["compose"]["cached"]
    page = (folder / "served" / "builds" / again["build_id"] / "report.html").read_text("utf-8")
    assert "What servers were asked" in page


def test_a_budget_ends_the_build_which_goes_on_with_a_larger_one(folder: Path, built: dict[str, Any]) -> None:
    shutil.copytree(folder / "out", folder / "dear")
    with chat_server("tests.workflows.captioning_model:reply") as server:
        for most in (1, 1000):
            params = asking(server)
            params["compose"]["writer"] = {**params["compose"]["writer"], "max_calls": most}
            path = recipe(folder / "dear.yaml", folder / "in", folder / "dear", params)
            if most == 1:
                with pytest.raises(UnitFailed, match=r"max_calls: all 1 calls .*; with a larger one") as told:
                    build(prepare(path))
                assert not hasattr(told.value, "__notes__")  # which hold tracebacks of bugs
                asked = server.told()["requests"]
        assert build(prepare(path))["committed"]
        bodies = [orjson.dumps(body, option=orjson.OPT_SORT_KEYS) for body in server.bodies()]
        assert len(bodies) == len(set(bodies)) > asked


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"compose": "off"}, r"params\.compose: without it there are no captions"),
        ({"label": "off"}, r"params\.label: .* cannot be off, and without a `file` it adds no labels"),
        ({"extract": "off"}, r"params\.extract: .* cannot be off, and without a `model` it asks nobody"),
        (
            {"facts": "off"},
            r"params\.facts: off, which leaves extract, compose, questions without `facts`: leave it on, or do without:"
            " extract with a `model` .*; compose with a server .*; questions with a server",
        ),
        (
            {"facts": "off", "extract": {"model": SERVER}, "questions": {"writer": SERVER}},
            r"params\.facts: off, which leaves compose without `facts`: ",
        ),
        ({"fingerprint": "off"}, r"params\.fingerprint: off, .* similar_audio off, too"),
        ({"questions": {"writer": "mistral"}}, r"params\.questions\.writer: must be {endpoint: URL, model: NAME}"),
        ({"clip": {"mode": "fixed", "seconds": 0}}, r"params\.clip\.seconds"),
        ({"compose": {"writer": {"endpoint": "http://user:pass@host/v1", "model": "m"}}}, "password"),
        (
            {"compose": {"writer": {"endpoint": "http://h/v1", "model": "m"}, "attempts": 2}},
            "attempts: 2 at temperature 0",
        ),
        ({"label": {"file": "missing.csv"}}, r"params\.label\.file: no such file"),
    ],
)
def test_what_does_not_fit_is_an_error_before_work(
    params: dict[str, Any], told: str, folder: Path, tmp_path: Path
) -> None:
    body = {"workflow": "captions", "inputs": [str(folder / "in")], "output": str(tmp_path / "out"), "params": params}
    (tmp_path / "recipe.yaml").write_bytes(orjson.dumps(body))
    with pytest.raises(RecipeError, match=told):
        prepare(tmp_path / "recipe.yaml")


def test_the_demos_recipe_is_good(folder: Path, tmp_path: Path) -> None:
    shown = DEMOS["captions"]
    clips = tmp_path / shown.input / CLIPS
    clips.mkdir(parents=True)
    shutil.copy(folder / "in" / MUSIC, clips)
    shutil.copy(folder / "labels.csv", clips.parent / LABELS)
    shutil.copy(folder / "eval.parquet", clips.parent / HELD_OUT)
    (clips.parent / EVALUATION_NAMES).write_text("file_name\nradio/held-out.flac\n")
    write_recipe(tmp_path / "recipe.yaml", str(tmp_path), shown)
    prepared = prepare(tmp_path / "recipe.yaml")
    assert [stage.name for stage in prepared.stage.chain()] == ["clip", "unique", "listen", "caption", "tokens"]
    assert shown.before == (("fingerprint", "{input}/evaluation", "--output", f"{{input}}/{HELD_OUT}"),)
