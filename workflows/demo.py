"""`corpusmill demo`: real pages, recordings or clips, with planted faults, through a whole workflow.

Lays the input out below a folder, or in a real S3 server started for it, then runs the commands that a user would. What
is planted shows what the report and `why` say: of pages an exact duplicate, a near duplicate, a truncated record and a
bad line, of recordings silence, music alone, a copy, a file cut short and one that is no audio, of clips a copy under
another level and format, and clips of an evaluation set, by name and by sound.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow.parquet as pq
import typer

from cluster.flat_formats import ShardError
from cluster.storage import Store, open_store
from operators.models.weights import needs
from operators.read.span import fallback_id
from workflows import captions_sample, speech_sample
from workflows.corpus import newest_build
from workflows.recipe import RecipeError
from workflows.speech_sample import SILENCE
from workflows.stage import Manifest

SAMPLE = Path(__file__).parent / "sample"
TEMPLATES = Path(__file__).parent / "templates"
BUCKET = "corpora"
PLANTED = "planted.jsonl.gz"
PLANTED_TEXTS = 12
NEAR_DUPLICATE = "near-0"
HELD_OUT = "evaluation.parquet"  # fingerprints, of captions
PARQUET_ROWS = 400


class Demo(NamedTuple):
    """What is shown of a workflow. `prefix` begins the names of its folders and recipe."""

    prefix: str
    lay_out: Callable[[Path], None]  # the input, into a new folder
    planted: str  # a file of the input that only a demo has
    asked: str  # the id that `why` is shown with
    before: tuple[tuple[str, ...], ...] = ()  # commands that come first; {input}: where `lay_out` has laid it out

    @property
    def input(self) -> str:
        return f"{self.prefix}-input"

    @property
    def truth(self) -> str:
        """Where `lay_out` may leave what is in its input."""
        return f"{self.prefix}-truth"


def demo(what: str, folder: Path, s3: bool) -> None:
    """Build the demo's corpus below `folder`, in the place of an earlier one. Raises RecipeError where something else
    has its names or there is no such demo, ServerError, and subprocess.CalledProcessError where a command fails, which
    has told why."""
    if what not in DEMOS:
        raise RecipeError(f"no demo {what!r}; there are: {', '.join(DEMOS)}")
    began = time.monotonic()
    shown = DEMOS[what]
    discard(folder, f"{shown.prefix}-s3" if s3 else shown.prefix, shown)
    shown.lay_out(folder / shown.input)
    if s3:
        _in_object_storage(folder, shown)
    else:
        _build(folder / f"{shown.prefix}.yaml", str(folder), shown)
    typer.echo(f"\nThe demo took {time.monotonic() - began:.0f} s.")


def discard(folder: Path, output: str, shown: Demo) -> None:
    """Delete an earlier demo's input and `output`. Raises RecipeError where they are not an earlier demo's."""
    there = [folder / name for name in (output, shown.input, shown.truth) if os.path.lexists(folder / name)]
    if there and not (folder / shown.input / shown.planted).is_file():
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


def write_recipe(path: Path, root: str, shown: Demo) -> None:
    """The demo's recipe, for input and output below `root`, and lists beside the recipe."""
    places = {"root": root, "lists": str(path.parent / shown.input)}
    quoted = {name: place.replace("'", "''") for name, place in places.items()}  # as YAML's single quotes have it
    template = (TEMPLATES / f"{shown.prefix}.yaml").read_text("utf-8")
    path.write_text(string.Template(template).substitute(quoted), "utf-8")


def _build(recipe: Path, root: str, shown: Demo) -> tuple[Store, Manifest]:
    for command in shown.before:
        corpusmill(*(word.replace("{input}", str(recipe.parent / shown.input)) for word in command))
    write_recipe(recipe, root, shown)
    output = f"{root}/{shown.prefix}"
    corpusmill("plan", str(recipe))
    corpusmill("build", str(recipe))
    corpusmill("why", output, shown.asked)
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


def _in_object_storage(folder: Path, shown: Demo) -> None:
    from cluster.seaweed import Server

    place = folder / f"{shown.prefix}-s3"
    server = Server(place, [BUCKET])
    server.start()
    try:
        os.environ.update(server.endpoint.environment())  # for this command and those it runs
        root = f"s3://{BUCKET}"
        typer.echo(f"{root} is a SeaweedFS server at {server.endpoint.url}, its data in {place}")
        inputs = open_store(f"{root}/{shown.input}")
        for path in sorted(path for path in (folder / shown.input).rglob("*") if path.is_file()):
            inputs.write(path.relative_to(folder / shown.input).as_posix(), path.read_bytes())
        store, build = _build(folder / f"{shown.prefix}-s3.yaml", root, shown)
        copy = place / "report.html"
        copy.write_bytes(store.read(f"builds/{build['build_id']}/report.html"))
        typer.echo(f"copy of the report: {copy}")
        _read_back(store, build)
    finally:
        server.kill()
    typer.echo("\nThe server has ended. To look around, start it again (Ctrl-C ends it):")
    typer.echo(f"  (cd {shlex.quote(str(place))} && {shlex.join(server.command())})")
    typer.echo("and in another terminal:")
    typer.echo(f"  . {shlex.quote(str(server.environment_file))}")
    typer.echo(f"  corpusmill why {root}/{shown.prefix} {shown.asked}")


def _read_back(store: Store, build: Manifest) -> None:
    """Read the largest shard with Megatron's own reader, straight from the store. Raises ShardError where it reads
    anything but the tokens that were written."""
    written = [shard for shard in build["shards"] if shard["format"] == "megatron"]
    if not written:
        return
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


def _sounding(what: str, lay_out: Callable[[Path, Path], None], folder: Path) -> None:
    """Write a demo's recordings, and what is in them beside. Raises RecipeError without the extra."""
    try:
        needs("av", "soxr")
    except ValueError as error:
        raise RecipeError(f"demo {what}: {error}") from error
    lay_out(folder, folder.with_name(DEMOS[what].truth))


DEMOS = {
    "text": Demo("demo", lay_out_input, PLANTED, NEAR_DUPLICATE),
    "speech": Demo(
        "demo-speech", partial(_sounding, "speech", speech_sample.lay_out), SILENCE, fallback_id(SILENCE, 0)
    ),
    "captions": Demo(
        "demo-captions",
        partial(_sounding, "captions", captions_sample.lay_out),
        captions_sample.LABELS,
        f"{fallback_id(captions_sample.FOUND, 0)}/00000",
        (("fingerprint", f"{{input}}/{captions_sample.EVALUATION}", "--output", f"{{input}}/{HELD_OUT}"),),
    ),
}
