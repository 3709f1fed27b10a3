"""Recipes that hold secrets are refused without repeating them; test_whole_run.py has those of the environment."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.security.canaries import VALUES, leaks
from tests.workflows.corpora import recipe
from workflows.build import prepare
from workflows.recipe import RecipeError, load_recipe

SECRET = "hunter2/SECRET"


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
