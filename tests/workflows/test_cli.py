"""Every command as a user gives it: what it prints on which stream, what it writes, and its exit code."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from ruamel.yaml import YAML

from tests.workflows.corpora import lay_out, recipe
from workflows import cli
from workflows.cli import INIT_WORKFLOWS
from workflows.progress import console_progress
from workflows.recipe import Params, load_recipe, load_workflow
from workflows.stage import Manifest

STAGES = ["read", "clean", "dedup", "tokens"]


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


def corpusmill(*arguments: object) -> Ran:
    """The command in this process, with its streams and exit code."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    code: int | str | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        patch.setattr(sys, "argv", ["corpusmill", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return Ran(int(code or 0), out, err)


def read_yaml(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(text)
    return loaded


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    lay_out(folder / "in", sample)
    recipe(folder / "r.yaml", [str(folder / "in")], folder / "out")
    return folder


@pytest.fixture(scope="module")
def built(corpus: Path, ray_session: None) -> Ran:
    """The first build, with a summary for people."""
    return corpusmill("build", corpus / "r.yaml")


@pytest.fixture(scope="module")
def manifest(corpus: Path, built: Ran) -> Manifest:
    (path,) = (corpus / "out" / "builds").glob("*/manifest.json")
    loaded: Manifest = orjson.loads(path.read_bytes())
    return loaded


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Makes a recipe over one line of text."""
    (tmp_path / "in.jsonl").write_text('{"id": "a", "text": "One line."}\n')

    def make(**changes: Any) -> Path:
        inputs = changes.pop("inputs", [str(tmp_path / "in.jsonl")])
        return recipe(tmp_path / "r.yaml", inputs, tmp_path / "out", **changes)

    return make


def test_the_installed_command_prints_help_and_refuses_unknown_options() -> None:
    command = Path(sys.executable).with_name("corpusmill")
    helped = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    for name in ("init", "validate", "schema", "plan", "build", "report", "why", "verify", "export", "doctor"):
        assert name in helped.stdout
    assert corpusmill("build", "r.yaml", "--limt", "5").code == 2
    assert corpusmill("build", "r.yaml", "--limit", "0").code == 2


def test_order_is_a_recipe_that_may_be_shown_or_built(tmp_path: Path, ray_session: None, sample: Path) -> None:
    pq.write_table(pq.read_table(sample / "sample.parquet").slice(0, 60), tmp_path / "docs.parquet")
    out = tmp_path / "out"
    given = ("order", tmp_path / "docs.parquet", "-o", out, "--neighbours", "5", "--tokenizer", "train:bpe")
    shown = corpusmill(*given, "--seq-len", "512", "--formats", "mds,megatron", "--show-recipe")
    assert (shown.code, shown.err, out.exists()) == (0, "", False)
    assert read_yaml(shown.out) == {
        "workflow": "order",
        "inputs": [str(tmp_path / "docs.parquet")],
        "output": str(out),
        "fields": {},
        "params": {
            "order": {"method": "greedy_edge", "neighbours": 5},
            "tokenizer": {"name": "train:bpe"},
            "pack": {"seq_len": 512},
        },
        "shards": {"formats": ["mds", "megatron"]},
    }
    built = corpusmill("order", tmp_path / "docs.parquet", "-o", out, "--neighbours", "5", "--json")
    assert built.code == 0
    assert built.json["documents"] == 60
    [path] = [shard["path"] for shard in built.json["shards"]]
    assert pq.read_table(out / path)["order_rank"].to_pylist() == list(range(60))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-text"], "--no-text: without texts"),
        (["--no-text", "--column", "v", "--tokenizer", "train:bpe"], "--no-text: without texts"),
        (["--seq-len", "512"], "--mode, --seq-len, --formats: contexts are made of tokens"),
        (["--method", "best"], "params.order.method: Input should be 'greedy_edge', 'icp', 'random' or 'by_field'"),
        (["--column", "absent"], "params.order: no column 'absent'"),
        (["--column", "text"], "params.order: column 'text' is of type large_string: embeddings are lists of numbers"),
    ],
)
def test_order_refuses_what_does_not_fit(tmp_path: Path, sample: Path, arguments: list[str], message: str) -> None:
    ran = corpusmill("order", sample / "sample.parquet", "-o", tmp_path / "out", *arguments)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize("workflow", INIT_WORKFLOWS)
def test_what_init_prints_is_a_recipe_of_its_workflow(workflow: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(corpusmill("init", workflow).out)
    recipe, _ = load_recipe(tmp_path / "recipe.yaml")
    params = Params(recipe.params)
    load_workflow(recipe.workflow)(params)
    params.check_all_used()
    schema = Draft202012Validator(corpusmill("schema", workflow).json)
    assert [
        error.message for error in schema.iter_errors(read_yaml(tmp_path.joinpath("recipe.yaml").read_text()))
    ] == []


def test_init_prints_a_recipe_that_validates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Path) -> None:
    printed = corpusmill("init", "text")
    assert printed.code == 0
    (tmp_path / "crawl").mkdir()
    shutil.copy(sample / "sample.warc.gz", tmp_path / "crawl")
    (tmp_path / "web.yaml").write_text(printed.out)
    monkeypatch.chdir(tmp_path)
    checked = corpusmill("validate", "web.yaml")
    assert checked == (
        0,
        f"web.yaml: good; 1 input file, {(sample / 'sample.warc.gz').stat().st_size / 1e3:.1f} KB\n",
        "",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crawl", "web.yaml"]
    unknown = corpusmill("init", "spech")
    assert (unknown.code, unknown.out) == (2, "")
    assert "'spech'; there are: captions, order, speech, text" in unknown.err


def test_schema_accepts_the_printed_recipe_and_rejects_misspellings() -> None:
    schema = corpusmill("schema", "text").json
    Draft202012Validator.check_schema(schema)
    check = Draft202012Validator(schema)
    good = read_yaml(corpusmill("init").out)
    assert [error.message for error in check.iter_errors(good)] == []
    for params in ({"c4": "off"}, {"c4": None}, {"language": {"keep": ["en"]}}):
        assert check.is_valid(good | {"params": params}), params
    for params in ({"c5": {}}, {"language": {"kep": ["en"]}}, {"minhash_dedup": {"bands": "many"}}, {"c4": "maybe"}):
        assert not check.is_valid(good | {"params": params}), params
    assert not check.is_valid(good | {"shard": {}})


def test_validate_and_plan_name_files_that_are_passed_over(small: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("One line.")
    (tmp_path / "in" / "notes.doc").write_text("")
    made = small(inputs=[str(tmp_path / "in")])
    for command in ("validate", "plan"):
        ran = corpusmill(command, made)
        told = f"passed over, no reader knows their kind: {tmp_path / 'in' / 'notes.doc'}\n"
        assert (ran.code, ran.err) == (0, told), command
        assert "1 input file, 9 B" in ran.out


def test_plan_before_a_build_touches_nothing(small: Callable[..., Path], tmp_path: Path) -> None:
    planned = corpusmill("plan", small())
    assert (planned.code, planned.err) == (0, "")
    assert planned.out.count("would run") == 4
    assert "url_filter → extract → normalize" in planned.out
    assert "of keys exchanged; a process holds up to" in planned.out
    assert "more than workers.memory_bytes" not in planned.out
    bare = corpusmill("plan", small(params={"url_filter": "off", "extract": "off", "normalize": "off"}))
    assert len(bare.out.splitlines()) == len(planned.out.splitlines()) - 1
    assert all(line.strip() for line in bare.out.splitlines())
    assert not (tmp_path / "out").exists()


def test_build_tells_people_what_became_of_the_documents(built: Ran, corpus: Path, manifest: Manifest) -> None:
    assert built.code == 0
    dropped = sum(sum(stage["dropped"].values()) for stage in manifest["stages"])
    quarantined = sum(stage["quarantined"] for stage in manifest["stages"])
    reasons = {reason: n for stage in manifest["stages"] for reason, n in stage["dropped"].items()}
    done, most, committed, report, shards = built.out.splitlines()
    assert done == (
        f"Done. kept={manifest['documents']} dropped={dropped} quarantined={quarantined}"
        f" tokens={manifest['tokens']} shards={len(manifest['shards'])}"
    )
    told = most.removeprefix("most dropped: ").split(", ")
    assert told == [f"{r} {n}" for r, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3]] + ["…"]
    assert committed == f"committed as entry 1: build {manifest['build_id']}"
    assert Path(report.removeprefix("report: ")).is_file()
    assert Path(shards.removeprefix("shards: ")).is_dir()
    for name in STAGES:
        assert f"] {name}" in built.err


def test_plan_and_build_after_a_build_find_everything_done(built: Ran, corpus: Path, manifest: Manifest) -> None:
    planned = corpusmill("plan", corpus / "r.yaml", "--json").json
    assert [(stage["name"], stage["cached"], stage["changed"]) for stage in planned["stages"]] == [
        (name, True, []) for name in STAGES
    ]
    assert planned["build_id"] == manifest["build_id"]
    again = corpusmill("build", corpus / "r.yaml")
    assert again.code == 0
    assert f"nothing new: build {manifest['build_id']} is entry 1 already" in again.out


def test_a_build_with_nothing_left_to_do_starts_no_ray(built: Ran, corpus: Path) -> None:
    """In a process without a session: one at this address could not be had."""
    command = Path(sys.executable).with_name("corpusmill")
    arguments = ["build", str(corpus / "r.yaml"), "--address", "127.0.0.1:1"]
    ran = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "nothing new: " in ran.stdout


def test_an_interrupted_build_says_how_to_go_on_and_ends_with_130(small: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt\n")
    ran = corpusmill("build", small(workflow=f"{tmp_path / 'mine.py'}:mine"))
    assert (ran.code, ran.out, ran.err) == (130, "", "interrupted; run the same command again to go on\n")


def test_build_json_is_one_object_alone_on_standard_output(
    corpus: Path, built: Ran, manifest: Manifest, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured below Python, so that what libraries and workers write would be seen too."""
    monkeypatch.setattr(sys, "argv", ["corpusmill", "build", str(corpus / "r.yaml"), "--force", "tokens", "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    streams = capfd.readouterr()
    result = orjson.loads(streams.out)
    assert set(result) == {"build_id", "committed", "log_number", "stages", "documents", "tokens", "shards"}
    for stage in result["stages"]:
        assert {"name", "fingerprint", "cached", "rows_in", "created", "kept", "dropped", "quarantined"} <= set(stage)
        assert {"seconds", "operators"} <= set(stage)
        for operator in stage["operators"]:
            assert set(operator) == {"name", "rows_in", "dropped"}
    for shard in result["shards"]:
        assert {"format", "path", "sha256", "bytes", "documents", "sequences", "tokens"} <= set(shard)
    assert [stage["cached"] for stage in result["stages"]] == [True, True, True, False]
    assert (result["build_id"], result["documents"]) == (manifest["build_id"], manifest["documents"])
    assert "tokens" in streams.err


def test_limit_and_until_commit_nothing(built: Ran, corpus: Path) -> None:
    limited = corpusmill("build", corpus / "r.yaml", "--limit", "40", "--until", "clean", "--json")
    assert limited.code == 0
    stages = {stage["name"]: stage for stage in limited.json["stages"]}
    assert list(stages) == ["read", "sample", "clean"]
    assert stages["sample"]["kept"] == stages["clean"]["rows_in"] == 40
    assert limited.json["committed"] is False
    short = corpusmill("build", corpus / "r.yaml", "--until", "clean")
    assert (short.code, short.out.splitlines()[2:]) == (0, ["not committed"])
    assert [path.name for path in (corpus / "out" / "_log").glob("*.json")] == ["00000001.json"]


@pytest.mark.parametrize("option", ["--until", "--force"])
def test_an_unknown_stage_is_named(built: Ran, corpus: Path, option: str) -> None:
    ran = corpusmill("build", corpus / "r.yaml", option, "claen")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown stage 'claen'; allowed: read, clean, dedup, tokens" in ran.err


def a_dropped(stage: str, manifest: Manifest, corpus: Path, operator: str) -> dict[str, Any]:
    (found,) = (s for s in manifest["stages"] if s["name"] == stage)
    rows = [row for e in found["files"]["dropped"] for row in pq.read_table(corpus / "out" / e["path"]).to_pylist()]
    return next(row for row in rows if row["drop_reason"].startswith(f"{operator}/"))


def test_why_in_words(built: Ran, corpus: Path, manifest: Manifest) -> None:
    kept = corpusmill("why", corpus / "out", "eos")
    assert kept.out.startswith("eos: kept, in builds/")
    assert "at token" in kept.out
    short = corpusmill("why", corpus / "out", "short")
    assert short.out == ("short: dropped in stage clean by gopher_quality: too_few_words, value 4, threshold 20\n")
    twin = corpusmill("why", corpus / "out", "z-exact-0").out.splitlines()
    keeper = twin[0].rpartition("duplicate of ")[2]
    assert twin[0] == f"z-exact-0: dropped in stage dedup by exact_dedup: duplicate, duplicate of {keeper}"
    assert twin[1].startswith(f"  {keeper}: ")
    nobody = corpusmill("why", corpus / "out", "nobody")
    assert (nobody.code, nobody.out) == (1, "nobody: unknown: no document of the builds looked at has that id\n")


def test_why_for_programs(built: Ran, corpus: Path, manifest: Manifest) -> None:
    bad = [e["path"] for e in manifest["stages"][0]["files"]["quarantined"]]
    rows = pa.concat_tables([pq.read_table(corpus / "out" / path) for path in bad]).to_pylist()
    broken = next(row for row in rows if row["reason"] == "bad_json")
    near = a_dropped("dedup", manifest, corpus, "minhash_dedup")
    fates = {"eos": "kept", "short": "dropped", near["id"]: "dropped", broken["id"]: "quarantined", "no": "unknown"}
    for doc_id, fate in fates.items():
        ran = corpusmill("why", corpus / "out", doc_id, "--json")
        answer = ran.json
        assert (ran.code, answer["id"], answer["fate"]) == (int(fate == "unknown"), doc_id, fate)
        keys = {"stage", "operator", "reason", "value", "threshold", "duplicate_of", "shard", "offset"}
        assert keys <= set(answer)
    assert corpusmill("why", corpus / "out", near["id"], "--json").json["duplicate_of"] == near["duplicate_of"]
    assert corpusmill("why", corpus / "out", "a", "--build", "0123").code == 2


def test_report_writes_the_page_again(built: Ran, corpus: Path, manifest: Manifest) -> None:
    page = corpus / "out" / "builds" / manifest["build_id"] / "report.html"
    page.unlink()
    ran = corpusmill("report", corpus / "out")
    assert (ran.code, ran.out) == (0, f"{page}\n")
    assert manifest["build_id"] in page.read_text()


def test_export_loads_as_a_dataset_with_its_splits(
    built: Ran, corpus: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = corpusmill("export", corpus / "out", tmp_path / "hf", "--format", "hf")
    assert ran.code == 0
    import datasets

    loaded = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    text = [shard for shard in manifest["shards"] if shard["format"] == "parquet"]
    expected: dict[str, int] = {}
    for shard in text:
        expected[shard["split"]] = expected.get(shard["split"], 0) + shard["documents"]
    assert {name: split.num_rows for name, split in loaded.items()} == expected
    assert set(expected) == {"train", "validation"}
    assert all(loaded["train"]["text"][:5])
    card = (tmp_path / "hf" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    matter = read_yaml(front)
    assert {file["split"] for file in matter["configs"][0]["data_files"]} == set(expected)
    assert f"# Corpus {manifest['build_id']}" in body
    again = corpusmill("export", corpus / "out", tmp_path / "hf")
    assert (again.code, again.out) == (2, "")
    assert "is not empty" in again.err
    assert corpusmill("export", corpus / "out", tmp_path / "x", "--format", "csv").code == 2


def test_verify_passes_then_names_what_is_damaged_or_gone(
    built: Ran, corpus: Path, manifest: Manifest, tmp_path: Path
) -> None:
    good = corpusmill("verify", corpus / "out", "--json")
    assert (good.code, good.json["failures"]) == (0, [])
    assert good.json["checks"] > 20
    shutil.copytree(corpus / "out", tmp_path / "out")
    index = next((tmp_path / "out" / "builds").glob("*/shards/megatron/*.idx"))
    data = bytearray(index.read_bytes())
    data[-1] ^= 1
    index.write_bytes(bytes(data))
    (clean,) = (stage for stage in manifest["stages"] if stage["name"] == "clean")
    dropped = tmp_path / "out" / clean["files"]["dropped"][0]["path"]
    dropped.unlink()
    bad = corpusmill("verify", tmp_path / "out")
    assert bad.code == 1
    failures = [line for line in bad.out.splitlines() if line.startswith("FAILED")]
    assert len(failures) == 2
    assert failures[0].endswith(f"{dropped.relative_to(tmp_path / 'out')}: missing")
    assert index.name.rpartition("-")[0] in failures[1]
    assert bad.out.splitlines()[-1] == f"{good.json['checks'] - 2} of {good.json['checks']} checks passed"


@pytest.mark.parametrize("command", ["report", "why", "export"])
def test_an_output_without_a_build_is_refused(tmp_path: Path, command: str) -> None:
    more = {"why": ["id"], "export": [tmp_path / "to"]}.get(command, [])
    ran = corpusmill(command, tmp_path / "out", *more)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {tmp_path / 'out'}: there is no build here\n")


def test_verify_of_nothing_is_a_failure(tmp_path: Path) -> None:
    ran = corpusmill("verify", tmp_path / "out")
    assert (ran.code, ran.out.splitlines()[0]) == (1, "FAILED log: no build is committed here")
    assert not (tmp_path / "out").exists()


def test_doctor_looks_at_the_machine_and_the_output(tmp_path: Path) -> None:
    ran = corpusmill("doctor", tmp_path / "out")
    lines = ran.out.splitlines()
    assert f"ok      output: {tmp_path / 'out'} can be written" in lines
    assert {"ok", "problem"} >= {line.split()[0] for line in lines}
    assert ran.code == int("problem" in ran.out)
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))
    (tmp_path / "file").write_text("")
    blocked = corpusmill("doctor", tmp_path / "file")
    assert blocked.code == 1
    assert "problem output: " in blocked.out


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("inptus: [{file}]", "r.yaml:3: inptus: unknown key 'inptus'; did you mean 'inputs'? allowed: dropped_text, "),
        (
            "params: {finweb: off}",
            "params.finweb: unknown key 'finweb'; did you mean 'fineweb'? allowed: c4, coherence, correct, ",
        ),
        (
            "params:\n  language:\n    kep: [en]",
            "r.yaml:5: params.language.kep: unknown key 'kep'; did you mean 'keep'? allowed: ",
        ),
        ("params: {gopher_quality: {min_words: many}}", "r.yaml:3: params.gopher_quality.min_words: "),
        ("params: {gopher_quality: {mode: papr}}", "'paper', 'datatrove' or 'nemo', got 'papr'"),
        ("params: {rewrite: {style: wiki}}", "r.yaml:3: params.rewrite.model: required key missing"),
        ("shards: {formats: [csv]}", "r.yaml:3: shards.formats.0: Input should be 'megatron', 'datatrove'"),
        ("fields: {body: text}", "r.yaml:3: fields.body: unknown key 'body'; allowed: date, id, text, url"),
        ("fields: {text: body}", "no column 'body'"),
        ("splits: {validation: 1.5}", "r.yaml:3: splits.validation: Input should be less than 1, got 1.5"),
        ("splits: {../up: 0.1}", "r.yaml:3: splits"),
        ("splits: {train: 0.1}", "r.yaml:3: splits"),
        ("splits: {a: 0.7, b: 0.7}", "r.yaml:3: splits"),
        ("workflow: txt", "workflow: unknown 'txt'; allowed: captions, order, speech, text, or file.py:function"),
        ("workflow: absent.py:mine", "no such file: absent.py"),
        ("workflow: {folder}/mine.py:other", "has no function 'other'"),
        ("workflow: {folder}/broken.py:mine", "broken.py"),
        ("workflow: {folder}/wrong.py:mine", "wrong.py"),
        ("output: s3://no-such-bucket-here/out", "r.yaml:3: output: s3://no-such-bucket-here/out"),
        ("output: ftp://host/out", "output: ftp://host/out: a corpus lies in a local folder or at s3://"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "build"])
def test_a_wrong_recipe_ends_with_2_names_what_is_wrong_and_writes_nothing(
    tmp_path: Path, ray_session: None, command: str, body: str, message: str
) -> None:
    table = pa.table({"id": ["a"], "text": ["One line."]})
    pq.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "mine.py").write_text("def mine(params): ...\n")
    (tmp_path / "broken.py").write_text("def mine(params:\n")
    (tmp_path / "wrong.py").write_text("import no_such_module_anywhere\ndef mine(params): ...\n")
    body = body.replace("{folder}", str(tmp_path)).replace("{file}", "x")
    output = "" if body.startswith("output") else f"output: {tmp_path / 'out'}"
    inputs = f"inputs: [{tmp_path / 'in.parquet'}]"
    (tmp_path / "r.yaml").write_text(f"{inputs}\n{output}\n{body}\n")
    ran = corpusmill(command, tmp_path / "r.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


def test_a_missing_recipe_or_input_ends_with_2_and_writes_nothing(
    ray_session: None, small: Callable[..., Path], tmp_path: Path
) -> None:
    absent = corpusmill("build", tmp_path / "absent.yaml")
    assert (absent.code, absent.out) == (2, "")
    assert "absent.yaml: cannot be read" in absent.err
    (tmp_path / "notes.doc").write_text("")
    (tmp_path / "empty").mkdir()
    for given, message in {
        "gone.jsonl": "no such file or folder: ",
        "*.warc": "no file matches ",
        "empty": "no file matches ",
        "notes.doc": "is of no kind that can be read",
    }.items():
        ran = corpusmill("build", small(inputs=[str(tmp_path / "in.jsonl"), str(tmp_path / given)]))
        assert (ran.code, ran.out) == (2, ""), given
        assert message in ran.err
        assert "inputs.1: " in ran.err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_what_it_claims_is_refused_or_skipped_as_asked(
    ray_session: None, small: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "false.parquet").write_bytes(b"no Parquet at all")
    inputs = [str(tmp_path / "in.jsonl"), str(tmp_path / "false.parquet")]
    off = {name: "off" for name in ("language", "gopher_repetition", "gopher_quality", "fineweb", "tokenizer")}
    rest: dict[str, Any] = {"params": off, "shards": {"formats": ["parquet"]}, "splits": {}}
    refused = corpusmill("build", small(inputs=inputs, **rest), "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "false.parquet: does not end as a Parquet file; `on_bad_file: skip`" in refused.err
    assert not list((tmp_path / "out").glob("stages/*/kept"))
    skipped = corpusmill("build", small(inputs=inputs, on_bad_file="skip", **rest), "--json")
    assert skipped.code == 0, skipped.err
    read = skipped.json["stages"][0]
    assert (read["rows_in"], read["kept"], read["quarantined"]) == (2, 1, 1)
    assert (skipped.json["documents"], skipped.json["tokens"]) == (1, None)


def test_a_named_column_that_a_later_file_lacks_is_bad_input(
    ray_session: None, small: Callable[..., Path], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"body": ["Text."]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"txt": ["Text."]}), tmp_path / "b.parquet")
    inputs = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    ran = corpusmill("build", small(inputs=inputs, fields={"text": "body"}))
    assert (ran.code, ran.out) == (2, "")
    assert "b.parquet: no column 'body'; it has txt" in ran.err


def test_gates_end_with_3_and_leave_a_report_that_can_be_read(
    ray_session: None, small: Callable[..., Path], tmp_path: Path
) -> None:
    """One document too short for the rules: all are dropped."""
    ran = corpusmill("build", small())
    assert (ran.code, ran.out) == (3, "")
    assert "gates.min_kept: 0 documents were kept, at least 1 must be" in ran.err
    assert not (tmp_path / "out" / "_log").exists()
    (page,) = (tmp_path / "out" / "builds").glob("*/report.html")
    assert page.stat().st_size > 1000


def test_a_workflow_of_the_user_runs_and_answers(ray_session: None, small: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(
        "from typing import ClassVar\n"
        "import pyarrow.compute as pc\n"
        "from operators.document import Operator, parameters, with_columns\n"
        "from workflows.stage import Stage, TokenStage\n"
        "@parameters\n"
        "class Shout(Operator):\n"
        "    name: ClassVar[str] = 'shout'\n"
        "    times: int = 1\n"
        "    def __call__(self, docs):\n"
        "        return with_columns(docs, {'text': pc.binary_repeat(pc.utf8_upper(docs['text']), self.times)})\n"
        "def shout(params):\n"
        "    return TokenStage('tokens', Stage('read', None, (params.use(Shout),)), ())\n"
    )
    made = small(workflow=f"{tmp_path / 'shout.py'}:shout", params={}, shards={"formats": ["parquet"]}, splits={})
    body = read_yaml(made.read_text()) | {"params": {"shout": {"times": 2}}}
    with made.open("w") as file:
        YAML().dump(body, file)
    ran = corpusmill("build", made)
    assert ran.code == 0, ran.err
    (shard,) = (tmp_path / "out" / "builds").glob("*/shards/parquet/*.parquet")
    assert pq.read_table(shard)["text"].to_pylist() == ["ONE LINE.ONE LINE."]
    assert corpusmill("schema", body["workflow"]).json["properties"]["params"]["properties"].keys() == {"shout"}


def test_progress_off_a_terminal_begins_after_two_seconds_and_rates_only_this_runs_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr("workflows.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    lines = io.StringIO()
    record = {"rows_in": 10, "kept": 6, "dropped": {"c4/too_short": 3}, "quarantined": 1}
    with console_progress(Console(file=lines, soft_wrap=True)) as progress:
        progress.started("read", "", 20)
        for clock[0] in (100.1, 100.2, 101.0, 102.0, 104.0, 110.0, 112.0):
            progress.unit(record)
    assert lines.getvalue().splitlines() == [
        "  read: 4/20 units  40 in  24 kept  12 dropped  4 quarantined  10 rows/s  eta 16s",
        "  read: 7/20 units  70 in  42 kept  21 dropped  7 quarantined  4 rows/s  eta 31s",
    ]


def test_progress_gives_no_time_left_from_one_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("workflows.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    lines = io.StringIO()
    with console_progress(Console(file=lines, soft_wrap=True)) as progress:
        progress.started("tokens", "shards", 5)
        clock[0] = 103.0
        progress.unit({})
    assert lines.getvalue() == "  tokens shards: 1/5 units\n"
