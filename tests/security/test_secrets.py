"""Secrets of the environment end up nowhere, and recipes that hold some are refused without repeating them."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import boto3
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.seaweed import serve
from tests.security.canaries import VALUES, environment, leaks, seen_in
from tests.workflows.corpora import recipe
from workflows.build import prepare
from workflows.recipe import RecipeError, load_recipe

COMMAND = str(Path(sys.executable).with_name("corpusmill"))
SECRET = "hunter2/SECRET"


class Left(NamedTuple):
    """What commands left behind: their streams, and the folder that holds all files, Ray's session too."""

    streams: bytes
    folder: Path


def build_with(environment: dict[str, str], folder: Path, output: str) -> Left:
    """Build, report, explain and verify a small corpus into `output`, with Ray's files below `folder`."""
    lines = [{"id": f"d{n}", "text": f"Document {n} says something of its own."} for n in range(20)]
    (folder / "in.jsonl").write_bytes(b"\n".join(map(orjson.dumps, [*lines, {"id": "none"}])))
    off = dict.fromkeys(("language", "gopher_repetition", "gopher_quality", "c4", "fineweb"), "off")
    params = off | {"tokenizer": {"name": "train:bpe", "vocab": 400}}
    inputs = [str(folder / "in.jsonl")]
    made = recipe(folder / "r.yaml", inputs, output, params=params, splits={})
    streams = b""
    (folder / "tmp").mkdir()
    for arguments in (["build", made, "--json"], ["report", output], ["why", output, "d1"], ["verify", output]):
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=folder,
            env=environment | {"TMPDIR": str(folder / "tmp")},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        streams += done.stdout + done.stderr
    return Left(streams, folder)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One with a short path, as Ray's sockets need."""
    made = Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def left(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A build into a store that is opened with one of the secrets; what lies there is brought below the folder."""
    secret = VALUES["AWS_SECRET_ACCESS_KEY"]
    with serve(tmp_path_factory.mktemp("server"), ["corpora"], "anyone", secret) as endpoint:
        found = build_with(environment(**endpoint.environment()), folder, "s3://corpora/out")
        keys = {"aws_access_key_id": "anyone", "aws_secret_access_key": secret, "region_name": "us-east-1"}
        bucket = boto3.resource("s3", endpoint_url=endpoint.url, **keys).Bucket("corpora")
        for stored in bucket.objects.all():
            target = folder / stored.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stored.get()["Body"].read())
    return found


def test_no_secret_of_the_environment_is_in_any_file_or_stream(left: Left) -> None:
    assert seen_in(left.streams, VALUES) == []
    assert leaks(left.folder, VALUES) == []


def test_ray_s_own_files_were_looked_through(left: Left) -> None:
    """Logs and job records of the session that the build started."""
    names = {path.name for path in (left.folder / "tmp").rglob("*")}
    assert {"logs", "raylet.out", "gcs_server.out"} <= names
    assert any(path.suffix == ".parquet" for path in (left.folder / "out").rglob("*"))


def test_the_search_finds_what_is_hidden(tmp_path: Path) -> None:
    secret = VALUES["AWS_SECRET_ACCESS_KEY"]
    pq.write_table(pa.table({"a": [f"x{secret}"]}), tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "b.gz").write_bytes(gzip.compress(secret.encode() * 3))
    (tmp_path / "c.json").write_bytes(orjson.dumps({"url": secret.replace("/", "%2F").replace("+", "%2B")}))
    (tmp_path / "d.txt").write_text("nothing")
    found = {Path(path).name: names for path, names in leaks(tmp_path, VALUES)}
    assert found == dict.fromkeys(("a.parquet", "b.gz", "c.json"), ["AWS_SECRET_ACCESS_KEY"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"inputs: ['s3://key:{SECRET}@bucket/x']\noutput: o\n", "r.yaml:1: inputs.0: an address with a user name"),
        (f"inputs: [a]\noutput: s3://{SECRET.replace('/', '')}@bucket\n", "r.yaml:2: output: an address with a user"),
        (f"inputs: [a]\noutput: https://user:{SECRET}@host/x\n", "r.yaml:2: output: an address with a user name"),
        (f"inputs: ['https://b/x?X-Amz-Signature={SECRET}']\noutput: o\n", "inputs.0: an address that is signed"),
        (f"inputs: ['s3://b/x?versionId=1&sig={SECRET}']\noutput: o\n", "inputs.0: an address that is signed"),
        (
            f"inputs: [a]\noutput: o\naws_secret_access_key: {SECRET}\n",
            "'aws_secret_access_key': a recipe holds no secrets",
        ),
        (
            f"inputs: [a]\noutput: o\nparams: {{language: {{password: {SECRET}}}}}\n",
            "r.yaml:3: params.language: 'password': a recipe holds",
        ),
        (
            f"inputs: [a]\noutput: o\nparams: {{language: {{sessionToken: {SECRET}}}}}\n",
            "'sessionToken': a recipe holds",
        ),
        (f"inputs: [a]\noutput: {{secret: {SECRET}}}\n", "r.yaml:2: output: 'secret': a recipe holds"),
        (f"inputs: [a]\noutput: o\napi_key: {SECRET}\napi_key: {SECRET}\n", "r.yaml:4: found duplicate key"),
        (f"inputs: [a]\noutput: o\n's3://u:{SECRET}@b': 1\n", "an address with a user name"),
        ("inputs: [a]\noutput: o\nfields: {text: AKIAIOSFODNN7EXAMPLE}\n", "fields.text: it looks like a key"),
    ],
)
def test_a_recipe_with_a_secret_is_refused_without_repeating_it(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(body)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    told = str(error.value)
    assert message in told
    assert "hunter2" not in told
    assert "AKIA" not in told


@pytest.mark.parametrize(
    "body",
    [
        "inputs: ['s3://bucket/2026-??/*.jsonl', 'http://host:80/a@b']\noutput: s3://bucket/a@b\n",
        "inputs: [a]\noutput: o\nparams: {tokenizer: {name: 'train:bpe'}, url_filter: {patterns: ['[?&]token=']}}\n",
        "inputs: [a]\noutput: o\nshards: {tokens_per_shard: 2000}\nsplits: {keyed: 0.1}\n",
    ],
)
def test_what_only_resembles_a_secret_is_not_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(body)
    load_recipe(path)


@pytest.mark.parametrize("address", ["http://example.org/a.jsonl", "file:///etc/passwd", "ftp://h/a.jsonl"])
@pytest.mark.parametrize("where", ["inputs", "output"])
def test_addresses_that_a_build_does_not_speak_are_refused(tmp_path: Path, address: str, where: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "t"}\n')
    inputs = [address if where == "inputs" else str(tmp_path / "in.jsonl")]
    made = recipe(tmp_path / "r.yaml", inputs, address if where == "output" else tmp_path / "out")
    with pytest.raises(RecipeError, match=rf"{where}.*{re.escape(address)}: .*s3://bucket"):
        prepare(made)
