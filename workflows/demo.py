"""`corpusmill demo`: real pages and documents, with planted faults, through the whole text workflow.

Lays the input out below a folder, or in a real S3 server started for it, then runs the commands that a user would. The
planted rows show what the report and `why` say of an exact duplicate, a near duplicate, a truncated record and a bad
line.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.util
import os
import shlex
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import typer

from cluster.flat_formats import ShardError
from cluster.storage import Store, open_store
from workflows.corpus import newest_build
from workflows.recipe import RecipeError
from workflows.stage import Manifest

SAMPLE = Path(__file__).parent / "sample"
RECIPE = Path(__file__).parent / "templates" / "demo.yaml"
INPUT, OUTPUT, SERVER = "demo-input", "demo", "demo-s3"
BUCKET = "corpora"
PLANTED = "planted.jsonl.gz"
PLANTED_TEXTS = 12
NEAR_DUPLICATE = "near-0"
PARQUET_ROWS = 400


def demo(folder: Path, s3: bool) -> None:
    """Build the demo's corpus below `folder`, in the place of an earlier one. Raises RecipeError where something else
    has its names, ServerError, and subprocess.CalledProcessError where a command fails, which has told why."""
    began = time.monotonic()
    discard(folder, SERVER if s3 else OUTPUT)
    lay_out_input(folder / INPUT)
    if s3:
        _in_object_storage(folder)
    else:
        _build(folder / "demo.yaml", str(folder))
    typer.echo(f"\nThe demo took {time.monotonic() - began:.0f} s.")


def discard(folder: Path, output: str) -> None:
    """Delete an earlier demo's input and `output`. Raises RecipeError where they are not an earlier demo's."""
    there = [folder / name for name in (output, INPUT) if os.path.lexists(folder / name)]
    if there and not (folder / INPUT / PLANTED).is_file():
        raise RecipeError(f"{there[0]} is there, and no earlier demo made it: name another folder")
    for path in there:
        shutil.rmtree(path)


def lay_out_input(folder: Path) -> None:
    """Write the demo's input files."""
    folder.mkdir(parents=True)
    documents = pq.read_table(SAMPLE / "sample.parquet")
    english = [t for t in documents["text"].to_pylist() if len(t.split()) > 300 and " the " in t][:PLANTED_TEXTS]
    lines = [orjson.dumps({"id": f"exact-{n}", "text": text, "source": "planted"}) for n, text in enumerate(english)]
    lines += [
        orjson.dumps({"id": f"near-{n}", "text": near_duplicate(text), "source": "planted"})
        for n, text in enumerate(english)
    ]
    lines += [b'{"id": "broken", "text": "this line ends too', b'{"id": "latin", "text": "caf\xe9"}']
    with gzip.GzipFile(folder / PLANTED, "wb", mtime=0) as file:
        file.write(b"\n".join(lines) + b"\n")
    pq.write_table(documents, folder / "documents.parquet", row_group_size=PARQUET_ROWS)
    pages = (SAMPLE / "sample.warc.gz").read_bytes()
    (folder / "pages.warc.gz").write_bytes(pages[:-200])  # the last record ends in the middle


def near_duplicate(text: str) -> str:
    """The text with its middle word replaced and a line added."""
    words = text.split(" ")
    words[len(words) // 2] = "edited"
    return " ".join(words) + "\nThis copy was edited for the demo."


def write_recipe(path: Path, root: str) -> None:
    """The demo's recipe, for input and output below `root`."""
    quoted = root.replace("'", "''")  # as YAML's single quotes have it
    path.write_text(string.Template(RECIPE.read_text("utf-8")).substitute(root=quoted), "utf-8")


def _build(recipe: Path, root: str) -> tuple[Store, Manifest]:
    write_recipe(recipe, root)
    output = f"{root}/{OUTPUT}"
    corpusmill("plan", str(recipe))
    corpusmill("build", str(recipe))
    corpusmill("why", output, NEAR_DUPLICATE)
    corpusmill("verify", output)
    store = open_store(output)
    build = newest_build(store)
    typer.echo(f"\nreport: {output}/builds/{build['build_id']}/report.html")
    typer.echo(f"shards: {output}/builds/{build['build_id']}/shards")
    return store, build


def corpusmill(*arguments: str) -> None:
    """Run the command as a user would type it, printed first."""
    typer.echo(f"\n$ corpusmill {shlex.join(arguments)}")
    command = [sys.executable, "-P", "-c", "from workflows.cli import main; main()", *arguments]
    subprocess.run(command, check=True)


def _in_object_storage(folder: Path) -> None:
    from cluster.seaweed import Server

    server = Server(folder / SERVER, [BUCKET])
    server.start()
    try:
        os.environ.update(server.endpoint.environment())  # for this command and those it runs
        root = f"s3://{BUCKET}"
        typer.echo(f"{root} is a SeaweedFS server at {server.endpoint.url}, its data in {folder / SERVER}")
        inputs = open_store(f"{root}/{INPUT}")
        for path in sorted((folder / INPUT).iterdir()):
            inputs.write(path.name, path.read_bytes())
        store, build = _build(folder / "demo-s3.yaml", root)
        copy = folder / SERVER / "report.html"
        copy.write_bytes(store.read(f"builds/{build['build_id']}/report.html"))
        typer.echo(f"copy of the report: {copy}")
        _read_back(store, build)
    finally:
        server.kill()
    typer.echo("\nThe server has ended. To look around, start it again (Ctrl-C ends it):")
    typer.echo(f"  (cd {shlex.quote(str(folder / SERVER))} && {shlex.join(server.command())})")
    typer.echo("and in another terminal:")
    typer.echo(f"  . {shlex.quote(str(server.environment_file))}")
    typer.echo(f"  corpusmill why {root}/{OUTPUT} {NEAR_DUPLICATE}")


def _read_back(store: Store, build: Manifest) -> None:
    """Read the largest shard with Megatron's own reader, straight from the store. Raises ShardError where it reads
    anything but the tokens that were written."""
    written = [shard for shard in build["shards"] if shard["format"] == "megatron"]
    shard = max(written, key=lambda shard: (shard["bytes"], shard["path"]))
    url = f"{store.url}/{shard['path']}"
    with _megatron_datasets() as datasets, TemporaryDirectory() as cache:
        if datasets is None:
            typer.echo("megatron-core is not installed: no shard was read with it")
            return
        config = datasets.ObjectStorageConfig(path_to_idx_cache=cache)
        read = datasets.IndexedDataset(url.removesuffix(".bin"), mmap=False, object_storage_config=config)
        tokens = hashlib.sha256()
        for sequence in range(len(read)):
            tokens.update(read[sequence].tobytes())
        if (len(read), tokens.hexdigest()) != (shard["sequences"], shard["sha256"]):
            raise ShardError(f"{url}: megatron-core does not read what was written")
    typer.echo(f"megatron-core read the {shard['sequences']} sequences of {url} as they were written")


@contextmanager
def _megatron_datasets() -> Iterator[ModuleType | None]:
    """Megatron's module of indexed datasets, None where megatron-core is not installed. Reading takes no more of torch
    than a few names, so where there is no torch it gets those, and its package without what that imports."""
    spec = importlib.util.find_spec("megatron")
    if spec is None:
        yield None
        return
    before = set(sys.modules)
    if importlib.util.find_spec("torch") is None:
        core = Path(next(iter(spec.submodule_search_locations or ())), "core")
        torch = _module("torch", Tensor=np.ndarray)
        torch.utils = _module("torch.utils")
        torch.utils.data = _module("torch.utils.data", Dataset=object)
        torch.distributed = _module("torch.distributed", is_available=lambda: False, is_initialized=lambda: False)
        _module("megatron.core", __path__=[str(core)])
        _module("megatron.core.datasets", __path__=[str(core / "datasets")])
        _module("megatron.core.utils", log_single_rank=lambda *_: None)
    try:
        yield importlib.import_module("megatron.core.datasets.indexed_dataset")
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("torch", "megatron"):
                del sys.modules[name]


def _module(name: str, **names: Any) -> Any:
    """A module of that name with those names in it, for whoever imports it from now on."""
    module = ModuleType(name)
    module.__dict__.update(names)
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    sys.modules[name] = module
    return module
