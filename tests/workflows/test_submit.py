"""What is sent to a cluster with a recipe, what is refused, and what a job's log says. Submitting to a real cluster is
tried in tests/soak/test_submit.py."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.jobs import Job
from cluster.packages import Package
from workflows import packing
from workflows.entrypoint import main, unfit
from workflows.job_log import RESULT, JobLog, marked
from workflows.packing import Packing
from workflows.recipe import Params, RecipeError, load_recipe, load_workflow
from workflows.submission import ended, entrypoint, on_this_machine, passed_on

PYTHON = ".".join(platform.python_version_tuple()[:2])
RAY = importlib.metadata.version("ray")


def recipe(path: Path, **changes: Any) -> Path:
    body = {"inputs": ["s3://b/in"], "output": "s3://b/out"} | changes
    path.write_bytes(orjson.dumps(body))  # JSON is YAML
    return path


def packed(path: Path, *also: Path, shared: bool = False, reachable: bool = False) -> tuple[str, Package]:
    told, located = load_recipe(path)
    stage = load_workflow(told.workflow)(Params(told.params))
    return Packing(path, located, shared, reachable).pack(told, stage, also)


def sent(name: str, package: Package, folder: Path) -> Any:
    """The recipe as the job reads it, in a folder that is like that of the job."""
    for rel, content in package.files.items():
        file = folder / rel
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return load_recipe(folder / name)[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_recipe_alone_is_sent(here: Path, tmp_path: Path) -> None:
    (here / "private.txt").write_text("not named")
    name, package = packed(recipe(Path("text.yaml")))
    assert name == "text.yaml"
    assert list(package.files) == ["text.yaml"]
    assert sent(name, package, tmp_path / "job") == load_recipe("text.yaml")[0]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"inputs": ["s3://b/in", "crawl/*.warc.gz"]}, r"inputs\.1: 'crawl/\*\.warc\.gz'"),
        ({"inputs": [{"path": "/data/in", "source": "a"}]}, r"inputs\.0\.path: '/data/in'"),
        ({"output": "corpus"}, "output: 'corpus'"),
    ],
)
def test_paths_that_mean_nothing_on_the_cluster_are_refused(here: Path, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError, match=f"text.yaml:1: {where} is a path of this machine.*--shared"):
        packed(recipe(Path("text.yaml"), **changes))


@pytest.mark.parametrize("how", [{"shared": True}, {"reachable": True}])
def test_paths_that_nodes_see_become_absolute(here: Path, tmp_path: Path, how: dict[str, bool]) -> None:
    inputs = ["crawl/*.gz", {"path": "../books", "source": "b"}, "s3://b/in"]
    name, package = packed(recipe(Path("text.yaml"), inputs=inputs, output="corpus"), **how)
    told = sent(name, package, tmp_path / "job")
    assert [one.path for one in told.inputs] == [f"{here}/crawl/*.gz", f"{tmp_path}/books", "s3://b/in"]
    assert told.output == f"{here}/corpus"


def test_files_of_operators_are_sent_and_found(here: Path, tmp_path: Path) -> None:
    (here / "lists").mkdir()
    (here / "lists" / "hosts.txt").write_text("example.org\n")
    outside = tmp_path / "ids.txt"
    outside.write_text("a\n")
    params = {
        "url_filter": {"hosts": "lists/hosts.txt", "words": ["lists/hosts.txt and more"]},
        "only_ids": {"files": [str(outside), "../ids.txt"]},
    }
    name, package = packed(recipe(Path("text.yaml"), params=params))
    there = f"_elsewhere/{outside.relative_to('/')}"
    assert sorted(package.files) == sorted(["text.yaml", "lists/hosts.txt", there])
    told = sent(name, package, tmp_path / "job").params
    assert told["url_filter"] == {"hosts": "lists/hosts.txt", "words": ["lists/hosts.txt and more"]}
    assert told["only_ids"] == {"files": [there, there]}


def test_a_tokenizer_is_named_by_its_kind_and_file(here: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"<|endoftext|>": 0}, [])).save(str(here / "tok.json"))
    given = {"tokenizer": {"name": f"hf:{here}/tok.json", "eos": "<|endoftext|>"}}
    name, package = packed(recipe(Path("text.yaml"), params=given))
    assert sent(name, package, tmp_path / "job").params["tokenizer"]["name"] == "hf:tok.json"
    assert "tok.json" in package.files
    name, package = packed(recipe(Path("text.yaml"), params=given), shared=True)
    assert list(package.files) == ["text.yaml"]
    assert sent(name, package, tmp_path / "job").params["tokenizer"]["name"] == f"hf:{here}/tok.json"


def test_a_workflow_goes_with_the_neighbours_it_imports(here: Path, tmp_path: Path) -> None:
    mine = here / "mine"
    mine.mkdir()
    (mine / "flow_sent.py").write_text("from neighbour_sent import text\ndef flow(params):\n    return text(params)\n")
    (mine / "neighbour_sent.py").write_text("from workflows.text import text\n")
    (mine / "other.py").write_text("raise SystemExit\n")
    name, package = packed(recipe(Path("text.yaml"), workflow="mine/flow_sent.py:flow"))
    assert sorted(package.files) == ["mine/flow_sent.py", "mine/neighbour_sent.py", "text.yaml"]
    assert sent(name, package, tmp_path / "job").workflow == "mine/flow_sent.py:flow"


def test_what_with_names_is_sent_but_for_hidden_files(here: Path) -> None:
    (here / "extra" / ".git").mkdir(parents=True)
    (here / "extra" / ".git" / "config").write_text("x")
    (here / "extra" / "list.txt").write_text("x")
    _, package = packed(recipe(Path("text.yaml")), Path("extra"))
    assert sorted(package.files) == ["extra/list.txt", "text.yaml"]
    with pytest.raises(RecipeError, match="--with nothing: no such file or folder"):
        packed(Path("text.yaml"), Path("nothing"))


@pytest.mark.parametrize("name", ["operators.py", "workflows", "cluster"])
def test_no_file_hides_our_code_on_the_nodes(here: Path, name: str) -> None:
    (here / name).mkdir()
    with pytest.raises(RecipeError, match=f"{name}: a file of this name would hide one of ours"):
        packed(recipe(Path("text.yaml")), Path(name))


def test_files_that_are_too_large_are_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 3_000_000)
    (here / "big.bin").write_bytes(bytes(4_000_000))
    with pytest.raises(RecipeError, match=r"have 4 MB, and a job carries 3 MB at most: big\.bin 4 MB.*--shared"):
        packed(recipe(Path("text.yaml")), Path("big.bin"))


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "RAY_AUTH_TOKEN",
        "MY_PASSWORD",
        "DB_PWD",
    ],
)
def test_secrets_are_not_passed_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(RecipeError, match=f"--env {name}: may be a secret") as caught:
        passed_on([name])
    assert "hunter2" not in str(caught.value)


def test_a_value_that_is_a_secret_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT", "https://me:hunter2@example.org")
    with pytest.raises(RecipeError, match="--env ENDPOINT") as caught:
        passed_on(["ENDPOINT"])
    assert "hunter2" not in str(caught.value)


def test_named_variables_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")
    assert passed_on(["AWS_ENDPOINT_URL"]) == {"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"}
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(RecipeError, match="--env NOT_SET: not set here"):
        passed_on(["NOT_SET"])
    with pytest.raises(RecipeError, match="--env takes the name") as caught:
        passed_on(["A=hunter2"])
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with pytest.raises(RecipeError, match="OMP_NUM_THREADS: is set on the nodes"):
        passed_on(["OMP_NUM_THREADS"])


def test_nodes_of_this_machine_are_told_from_others() -> None:
    assert on_this_machine(["127.0.0.1", "127.3.2.1"])
    assert not on_this_machine(["127.0.0.1", "192.0.2.1"])  # an address of documentation
    assert not on_this_machine([])


def test_the_entrypoint_can_be_given_any_name() -> None:
    command = entrypoint("build", "my recipe; rm -rf x.yaml")
    assert command.startswith("exec env PYTHONSAFEPATH=1 python -m workflows.entrypoint ")
    assert command.endswith("-- build 'my recipe; rm -rf x.yaml'")


@settings(deadline=None, max_examples=50)
@given(
    part=st.text(max_size=20),
    times=st.integers(0, 1_500),
    lines=st.lists(st.text(alphabet="ab: ", max_size=5), max_size=3),
    size=st.integers(300, 40_000),
)
def test_a_result_comes_out_of_the_log_as_it_went_in(part: str, times: int, lines: list[str], size: int) -> None:
    result = {"part": part * times}
    summary = "".join(f"{line}\n" for line in lines)
    text = "first\n" + "".join(marked(result, summary)) + "last"
    told: list[str] = []
    log = JobLog(told.append)
    for at in range(0, len(text), size):
        log.take(text[at : at + size])
    log.close()
    assert log.result == result
    assert log.summary == summary
    assert told == ["first\n", "last"]


def test_lines_of_a_log_are_short() -> None:
    lines = list(marked({"shards": ["x" * 100_000]}, ""))
    assert len(lines) == 7
    assert max(map(len, lines)) < 17_000
    assert all(line.startswith(RESULT) for line in lines)


def test_a_job_without_a_result_has_none() -> None:
    log = JobLog(lambda _: None)
    log.take("error: no\n")
    log.close()
    assert (log.result, log.summary) == (None, "")


def test_this_python_is_fit() -> None:
    assert unfit(PYTHON, RAY) == []


def test_another_python_or_ray_is_named_beside_ours() -> None:
    assert f"the head's Python is {PYTHON}" in unfit("3.8", RAY)[0]
    assert "Python 3.8" in unfit("3.8", RAY)[0]
    told = unfit(PYTHON, "2.9.3")[0]
    assert f"has Ray {RAY}" in told
    assert "Ray 2.9.3" in told


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "corpusmill-9.dist-info"
    shipped.mkdir()
    wanted = ["no-such-thing>=2", "ray==1.0", "numpy>=1", 'pytest>=1; extra == "dev"', "never; python_version < '3'"]
    lines = "".join(f"Requires-Dist: {one}\n" for one in wanted)
    (shipped / "METADATA").write_text(f"Metadata-Version: 2.1\nName: corpusmill\nVersion: 9\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path))
    told = unfit(PYTHON, RAY)
    assert len(told) == 2
    assert "no-such-thing is not installed (no-such-thing>=2 is needed)" in told[0]
    assert f"ray {RAY} is installed (ray==1.0 is needed)" in told[1]


def test_the_entrypoint_ends_with_2_where_it_cannot_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended_with:
        main(["--python", "2.7", "--ray", RAY, "--", "build", "text.yaml"])
    assert ended_with.value.code == 2
    assert "make them the same" in capsys.readouterr().err


def test_a_job_that_is_stopped_ends_as_by_ctrl_c() -> None:
    """Even where a library has set a handler of its own since."""
    code = (
        "import signal, time; from workflows.entrypoint import end_softly; end_softly()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "try: print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: print('softly', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.read() == "softly\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("status", "code", "how"),
    [
        ("SUCCEEDED", 0, "is done"),
        ("STOPPED", None, "was stopped"),
        ("FAILED", 3, "failed with exit code 3"),
        ("FAILED", -9, "killed by signal 9"),
        ("FAILED", 137, "killed by signal 9"),
        ("FAILED", 127, "`python` was not found"),
        ("FAILED", None, "failed: the runtime environment"),
    ],
)
def test_how_jobs_end_is_told(status: str, code: int | None, how: str) -> None:
    assert how in ended(Job("a", status, "the runtime environment\nmore", {}, 1.0, 2.0, code))
