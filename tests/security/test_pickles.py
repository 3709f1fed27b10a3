"""Nothing that comes with data is unpickled: not by any way into a Parquet file, nor by anything else we read."""

from __future__ import annotations

import base64
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from operators.read.reader import cut, read
from operators.read.span import Fields
from tests.operators.read.archives import opened, whole
from workflows.build import prepare
from workflows.recipe import RecipeError, load_recipe

NAMES = ("ray.data.arrow_pickled_object", "ray.data.arrow_tensor", "arrow.py_extension_type")
SHAPES: dict[str, Callable[[pa.Field], pa.DataType]] = {
    "list": pa.list_,
    "large list": pa.large_list,
    "list of fixed length": lambda field: pa.list_(field, 1),
    "struct": lambda field: pa.struct([field]),
    "map": lambda field: pa.map_(pa.string(), field),
    "list of structs": lambda field: pa.list_(pa.struct([field])),
    "struct of lists of structs": lambda field: pa.struct([pa.field("in", pa.list_(pa.struct([field])))]),
}
VALUES: dict[str, Callable[[bytes], Any]] = {
    "list": lambda data: [data],
    "large list": lambda data: [data],
    "list of fixed length": lambda data: [data],
    "struct": lambda data: {"evil": data},
    "map": lambda data: [("k", data)],
    "list of structs": lambda data: [{"evil": data}],
    "struct of lists of structs": lambda data: {"in": [{"evil": data}]},
}


class Canary:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def armed(path: Path, canary: Path, name: str, shape: str | None) -> None:
    """A Parquet file with a pickle as the type's parameters and as its value."""
    payload = pickle.dumps(Canary(canary))
    metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": payload}
    field = pa.field("evil", pa.binary(), metadata=metadata)
    plain = pa.field("evil", pa.binary())
    kind, storage, value = field.type, plain.type, payload
    if shape is not None:
        kind, storage, value = SHAPES[shape](field), SHAPES[shape](plain), VALUES[shape](payload)
        field = pa.field("outer", kind)
    column = pa.array([value], storage)
    table = pa.table({"text": ["unsafe"], field.name: column})
    schema = pa.schema([pa.field("text", pa.string()), field])
    with pq.ParquetWriter(path, schema) as file:
        file.write_table(pa.Table.from_arrays([table["text"], column.cast(kind)], schema=schema))
    held = max(re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", path.read_bytes()), key=len)
    assert {name.encode() in base64.b64decode(held), payload in base64.b64decode(held)} == {True}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [None, *SHAPES])
def test_no_way_into_a_parquet_file_unpickles(tmp_path: Path, name: str, shape: str | None) -> None:
    """By all ways a file is opened: listed and cut, read, and looked at for its columns before a build."""
    import ray.data  # noqa: F401  (registers the types that unpickle)

    path, canary = tmp_path / "in" / "evil.parquet", tmp_path / "canary"
    path.parent.mkdir()
    armed(path, canary, name, shape)
    assert len(cut(whole(path), opened, 1, Fields())) == 1
    (batch,) = read(whole(path), opened, Fields())
    assert batch.quarantined["reason"].to_pylist() == ["unsafe_type"]
    assert batch.docs.num_rows == 0
    prepare(recipe(tmp_path, inputs=[str(path.parent)]))
    assert not canary.exists()


def test_the_canary_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))  # noqa: S301
    assert (tmp_path / "canary").is_dir()


def recipe(folder: Path, **keys: Any) -> Path:
    path = folder / "r.yaml"
    with path.open("w") as file:
        YAML().dump({"workflow": "text", "output": str(folder / "out"), **keys}, file)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE",
        "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
        "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
        "RAY_DATA_WEBDATASET_ALLOW_UNSAFE_DESERIALIZATION",
    ],
)
def test_an_environment_that_lets_ray_unpickle_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = recipe(tmp_path, inputs=["x.jsonl"])
    monkeypatch.setenv(name, "0")
    load_recipe(path)
    monkeypatch.setenv(name, "1")
    with pytest.raises(RecipeError, match=name):
        load_recipe(path)


def test_files_that_are_pickles_or_archives_are_no_input(tmp_path: Path) -> None:
    """Allowed are the kinds of docs/input.md; a folder's others are passed over and named, one alone is refused."""
    for name in ("a.pkl", "a.pt", "a.npy", "a.joblib", "a.zip", "a.tar", "a.tar.gz", "a.jsonl.bz2"):
        (tmp_path / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
        with pytest.raises(RecipeError, match="no kind that can be read"):
            prepare(recipe(tmp_path, inputs=[str(tmp_path / name)]))
    assert not (tmp_path / "canary").exists()
