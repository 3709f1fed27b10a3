"""Whole builds that are disturbed while they run, each a process of its own as a user would run it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import orjson
import pyarrow.parquet as pq

from cluster.seaweed import Server
from cluster.storage import open_store
from tests.conftest import BUCKET
from tests.faults import FaultProxy
from tests.soak.checks import check_corpus, check_interrupted, tell_hashes
from tests.soak.mortal import DONE, run_together
from tests.soak.places import Place
from tests.workflows.corpora import lay_out, recipe

COMMAND = Path(sys.executable).with_name("corpusmill")
STAGES = ("read", "clean", "dedup", "tokens")
ROWS, PAGES_BYTES = 160, 120_000  # of the inputs: small enough to be built many times
SETTINGS: dict[str, Any] = {
    "params": {"tokenizer": {"name": "train:bpe", "vocab": 600}},
    "shards": {"formats": ["megatron", "tokens_parquet", "parquet"], "tokens_per_shard": 100_000},
    "workers": {"unit_bytes": 150_000},
}
FAULT_RATE = 0.03
RAY_LATE = b"node timed out during startup"
PATIENCE = 240.0
LOOK_SECONDS = 0.03
RESTARTS = 3  # of a build whose store was away for longer than it waits
DECADE = 10 * 365 * 86400
# In a name space of clocks where the machine started 300 days earlier.
LATER = ("unshare", "--time", "--fork", "--monotonic", str(300 * 86400), "--boottime", str(300 * 86400))


class Disturbance(NamedTuple):
    """What happens once `writes` files of the stage have been written. `driver`: the command is killed, Ray's processes
    find out for themselves, and the build is started again; `worker`: a process that runs a unit is killed; `server`:
    the S3 server is killed and started again on its data; `clock`: as `driver`, and before the new start all files of
    the local store get other times, many in the future; `boot`: as `clock`, and the clocks that count from the start
    of the machine jump too."""

    what: str
    stage: str
    writes: int


class Built(NamedTuple):
    """What is built: the stages that write often enough to be disturbed, the input, the recipe for input and output."""

    stages: tuple[str, ...]
    lay_out: Callable[[Path, Path], None]
    recipe: Callable[[Path, str, str], Path]


def draw(chance: random.Random, kinds: Sequence[str], stages: Sequence[str]) -> list[Disturbance]:
    """A disturbance of each kind, at random points of random stages, in the order of the stages."""
    found = [Disturbance(what, chance.choice(stages), chance.randrange(1, 9)) for what in kinds]
    return sorted(found, key=lambda one: (stages.index(one.stage), one.writes))


@dataclass(frozen=True)
class Ground:
    """What the builds of a run share: an S3 server, inputs by kind of place, and the shards of an undisturbed build."""

    server: Server
    inputs: dict[str, str]
    expected: list[tuple[str, str]]
    built: Built


def text_recipe(path: Path, inputs: str, output: str) -> Path:
    """The recipe of the small corpus."""
    return recipe(path, [inputs], output, **SETTINGS)


@contextmanager
def ground(folder: Path, sample: Path, built: Built | None = None) -> Iterator[Ground]:
    """Start the server, lay out the inputs, build once without any disturbance."""
    server = Server(folder / "server", [BUCKET])
    server.start()
    built = built or Built(STAGES, lay_out_inputs, text_recipe)
    try:
        built.lay_out(folder / "in", sample)
        inputs = {"local": str(folder / "in"), "s3": f"s3://{BUCKET}/in", "faulty s3": f"s3://{BUCKET}/in"}
        on = Ground(server, inputs, [], built)
        with site("local", 0, on) as there:
            run_disturbed(there, [], random.Random(0))
            there.check(tell_hashes, folder / "hashes.json")
        there = Place("s3", inputs["s3"], server.endpoint.environment(), folder)
        assert run_together(there, upload, [(folder / "in",)], [None]) == [DONE]
        yield replace(on, expected=orjson.loads((folder / "hashes.json").read_bytes()))
    finally:
        server.kill()


def run_series(on: Ground, kind: str, seed: int, kinds: Sequence[str]) -> Counter[str]:
    """Build with a disturbance of each of `kinds` at random points, and check the corpus. How often what happened."""
    chance = random.Random(seed)
    with site(kind, seed, on) as there:
        happened = run_disturbed(there, draw(chance, kinds, on.built.stages), chance)
        there.check(check_corpus, on.expected)
    return happened


@dataclass(frozen=True)
class Site:
    """A build's recipe and place. Object storage is reached through `proxy`, which sees what is written."""

    place: Place
    recipe: Path
    on: Ground
    proxy: FaultProxy | None

    def start(self, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Run `corpusmill build`, behind the words of `before`."""
        return subprocess.Popen(
            [*before, COMMAND, "build", self.recipe, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | dict(self.place.environment) | {"TMPDIR": str(self.place.folder)},
        )

    def writes(self, stage: str) -> int:
        """Files of the stage that were written so far, as far as can be seen from outside."""
        if self.proxy is not None:
            return self.proxy.count("PUT", f"/stages/{stage}-")
        folders = Path(self.place.url).glob(f"stages/{stage}-*")
        return sum(len(names) for folder in folders for _, _, names in os.walk(folder))

    def check(self, check: Callable[..., int], *arguments: Any) -> None:
        """Let a process of its own look into the store: this one may talk to another S3 server."""
        assert run_together(self.place, check, [arguments], [None]) == [DONE]


@contextmanager
def site(kind: str, seed: int, on: Ground) -> Iterator[Site]:
    """A recipe and an empty place of that kind (`tests.soak.places`)."""
    # Not below the test's folder: the paths of Ray's sockets have a length limit.
    with TemporaryDirectory(prefix="soak-", dir="/tmp") as short, ExitStack() as stack:
        folder = Path(short)
        (folder / "scratch").mkdir()
        if kind == "local":
            proxy, there = None, Place(kind, str(folder / "out"), {}, folder)
        else:
            proxy = stack.enter_context(
                FaultProxy(on.server.endpoint, seed, FAULT_RATE if kind == "faulty s3" else 0.0)
            )
            there = Place(kind, f"s3://{BUCKET}/build-{seed}", proxy.endpoint.environment(), folder)
        yield Site(there, on.built.recipe(folder / "recipe.yaml", on.inputs[kind], there.url), on, proxy)


def lay_out_inputs(folder: Path, sample: Path) -> None:
    """The small corpus of the end-to-end tests, smaller still."""
    lay_out(folder, sample)
    documents = pq.read_table(folder / "documents.parquet").slice(0, ROWS)
    pq.write_table(documents, folder / "documents.parquet", row_group_size=ROWS // 4)
    pages = folder / "pages.warc.gz"
    pages.write_bytes(pages.read_bytes()[:PAGES_BYTES])


def upload(url: str, folder: Path) -> int:
    """Put the files of a folder into a store."""
    store = open_store(url)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        store.write(path.relative_to(folder).as_posix(), path.read_bytes())
    return DONE


def run_disturbed(there: Site, disturbances: Sequence[Disturbance], chance: random.Random) -> Counter[str]:
    """Build, with all that happens meanwhile, until a build ends well. How often what happened to it."""
    happened: Counter[str] = Counter()
    finished: set[str] = set()
    with ExitStack() as stack:

        def start(before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
            process = there.start(before)
            stack.callback(_end_all, process)
            return process

        process = start()
        for one in disturbances:
            _wait(there, process, one)
            if process.poll() is not None:
                break
            if one.what == "worker":
                happened[one.what] += _kill_worker(process)
                continue
            happened[one.what] += 1
            if one.what == "server":
                there.on.server.kill()
                there.on.server.start()
                continue
            process.kill()
            process.wait()
            there.check(check_interrupted)
            finished |= _finished(there)
            if one.what != "driver":
                shift_times(Path(there.place.url), chance)
            process = start(LATER if one.what == "boot" else ())
        result = None
        while result is None:
            out, err = process.communicate(timeout=PATIENCE)
            if process.returncode == 0:
                result = orjson.loads(out)
            else:
                # Reasons to fail are a store that was away for too long, and a machine too busy to start Ray in time.
                assert process.returncode == 1, err.decode()
                assert happened["server"] or RAY_LATE in err, err.decode()
                happened["started again"] += 1
                assert happened["started again"] <= RESTARTS, err.decode()
                process = start()
        assert result["log_number"] == 1
        assert finished <= {stage["name"] for stage in result["stages"] if stage["cached"]}
    return happened


def _wait(there: Site, process: subprocess.Popen[bytes], one: Disturbance) -> None:
    """Return when the moment has come, or has passed unseen."""
    stages = there.on.built.stages
    later = stages[stages.index(one.stage) + 1 :]
    began = time.monotonic()
    while process.poll() is None:
        if there.writes(one.stage) >= one.writes or any(there.writes(stage) for stage in later):
            return
        assert time.monotonic() - began < PATIENCE, f"stage {one.stage} did not get on within {PATIENCE} s"
        time.sleep(LOOK_SECONDS)


def workers_of(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Processes of the build's Ray that are running a unit."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(ProcessLookupError, FileNotFoundError):
                if os.getsid(int(entry.name)) == process.pid and b"ray::MapBatches" in (entry / "cmdline").read_bytes():
                    yield int(entry.name)


def _kill_worker(process: subprocess.Popen[bytes]) -> bool:
    """Kill the next process that runs a unit; False where the build ended before there was one."""
    while process.poll() is None:
        for pid in workers_of(process):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        time.sleep(LOOK_SECONDS)
    return False


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a build: the command, and Ray's processes where they outlived it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _finished(there: Site) -> set[str]:
    """Stages with a manifest, where they can be seen."""
    root = Path(there.place.url)
    return {stage for stage in there.on.built.stages if list(root.glob(f"stages/{stage}-*/manifest.json"))}


def shift_times(folder: Path, chance: random.Random) -> None:
    """Give all files below the folder times of their own, up to ten years away."""
    now = time.time()
    for root, _, names in os.walk(folder):
        for name in names:
            moment = now + chance.uniform(-DECADE, DECADE)
            os.utime(Path(root, name), (moment, moment))
