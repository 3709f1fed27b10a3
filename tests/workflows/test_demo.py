"""`corpusmill demo`: what it lays out, what it replaces, and the whole of it in object storage."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.test_seaweed import unix_sockets
from workflows.build import prepare
from workflows.demo import DEMOS, discard, lay_out_input, write_recipe
from workflows.recipe import RecipeError

COMMAND = str(Path(sys.executable).with_name("corpusmill"))


class Ran(NamedTuple):
    folder: Path
    out: str
    err: str


def corpusmill(*arguments: object) -> subprocess.CompletedProcess[str]:
    # Settings of another store must not matter.
    stale = {"AWS_SESSION_TOKEN": "stale", "AWS_ACCESS_KEY_ID": "other", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    command = [COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | stale)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("demo") / "it's, [a] {folder}"
    done = corpusmill("demo", "text", folder, "--s3")
    assert done.returncode == 0, done.stdout + done.stderr
    return Ran(folder, done.stdout, done.stderr)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_it_runs_the_commands_of_a_user_and_prints_them(ran: Ran) -> None:
    recipe = shlex.quote(f"{ran.folder}/demo-s3.yaml")
    assert re.findall(r"^\$ corpusmill (.*)$", ran.out, re.M) == [
        f"plan {recipe}",
        f"build {recipe}",
        "why s3://corpora/demo near-0",
        "verify s3://corpora/demo",
    ]
    assert re.search(r"^near-0: dropped in stage dedup by minhash_dedup: duplicate, duplicate of", ran.out, re.M)
    assert re.search(r"^([1-9]\d*) of \1 checks passed$", ran.out, re.M)


def test_it_says_where_report_and_shards_are_and_leaves_a_report_to_look_at(ran: Ran) -> None:
    assert len(re.findall(r"^report: s3://corpora/demo/builds/\w{16}/report\.html$", ran.out, re.M)) == 2
    assert len(re.findall(r"^shards: s3://corpora/demo/builds/\w{16}/shards$", ran.out, re.M)) == 2
    (copy,) = re.findall(r"^copy of the report: (.*)$", ran.out, re.M)
    assert Path(copy).read_text("utf-8").lstrip().startswith("<!doctype html>")
    assert not (ran.folder / "demo").exists()


def test_megatron_core_reads_a_shard_from_the_store(ran: Ran) -> None:
    told = r"^megatron-core read the [1-9]\d* sequences of s3://corpora/demo/\S+\.bin as they were written$"
    assert re.search(told, ran.out, re.M)


def test_what_it_prints_brings_the_store_back_and_holds_no_secret(ran: Ran) -> None:
    lines = [line.strip() for line in ran.out.splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("The server has ended."))
    serve, source, why = lines[start + 1], lines[start + 3], lines[start + 4]
    port, *others = [int(port) for port in re.findall(r"-(?:s3|master|volume|filer)\.port=(\d+)", serve)][::-1]
    environment = Path(shlex.split(source)[1]).read_text("utf-8")
    (secret,) = re.findall(r"AWS_SECRET_ACCESS_KEY=(\w+)", environment)
    assert secret not in ran.out + ran.err
    assert not answers(port)
    with subprocess.Popen(["sh", "-c", serve], stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            deadline = time.monotonic() + 120
            while not answers(port) and time.monotonic() < deadline:
                time.sleep(0.05)
            again = why.replace("corpusmill", COMMAND, 1)
            done = subprocess.run(["sh", "-c", f"{source} && {again}"], capture_output=True, text=True, check=False)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
    for left in unix_sockets([number for one in (port, *others) for number in (one, one + 10_000)]):
        left.unlink()
    assert done.stdout.startswith("near-0: dropped in stage dedup by minhash_dedup"), done.stderr


def test_the_recipe_finds_the_input_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's, [a] {folder}: #1"
    lay_out_input(folder / "demo-input")
    write_recipe(folder / "demo.yaml", str(folder), DEMOS["text"])
    prepared = prepare(folder / "demo.yaml")
    found = {item["rel"]: item["format"] for item in prepared.job.inputs}
    assert found == {"documents.parquet": "parquet", "pages.warc.gz": "warc", "planted.jsonl.gz": "jsonl"}
    assert prepared.store.url == str(folder / "demo")


def test_the_input_is_the_same_every_time_and_has_its_faults(tmp_path: Path, sample: Path) -> None:
    for name in ("a", "b"):
        lay_out_input(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / name).read_bytes() for name in files] == [
        (tmp_path / "b" / name).read_bytes() for name in files
    ]
    lines = gzip.decompress((tmp_path / "a" / "planted.jsonl.gz").read_bytes()).splitlines()
    assert len(lines) == 2 * 12 + 2
    assert not lines[-2].endswith(b"}")
    assert b"\xe9" in lines[-1]
    whole = (sample / "sample.warc.gz").stat().st_size
    assert (tmp_path / "a" / "pages.warc.gz").stat().st_size == whole - 200


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    lay_out_input(tmp_path / "demo-input")
    (tmp_path / "demo" / "builds").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    discard(tmp_path, "demo", DEMOS["text"])
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    discard(tmp_path, "demo", DEMOS["text"])


@pytest.mark.parametrize("name", ["demo", "demo-input"])
def test_what_no_demo_made_is_refused_and_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_text("precious")
    with pytest.raises(RecipeError, match="no earlier demo made it"):
        discard(tmp_path, "demo", DEMOS["text"])
    assert (tmp_path / name / "mine").read_text() == "precious"


def test_the_command_refuses_as_any_bad_argument(tmp_path: Path) -> None:
    (tmp_path / "demo-s3").mkdir()
    done = corpusmill("demo", "text", tmp_path, "--s3")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/demo-s3 is there" in done.stderr
