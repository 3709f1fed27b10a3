"""Where a crash series runs: a local folder, object storage, or object storage behind a proxy that makes faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.seaweed import Endpoint
from cluster.storage import Store, open_store
from tests.conftest import BUCKET
from tests.faults import FaultProxy

KINDS = ("local", "s3", "faulty s3")
FAULT_RATE = 0.1


@dataclass(frozen=True)
class Place:
    """A store and what processes need to use it. This process itself reaches object storage without the proxy."""

    kind: str
    url: str
    environment: Mapping[str, str]
    folder: Path  # for what is told outside of the store

    @property
    def store(self) -> Store:
        return open_store(self.url)

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"


@contextmanager
def place(kind: str, name: str, folder: Path, server: Endpoint, seed: int = 0) -> Iterator[Place]:
    """An empty place. In object storage its url depends on `name` alone, so that a seed names the same faults again."""
    (folder / "scratch").mkdir(parents=True)
    if kind == "local":
        yield Place(kind, str(folder / "store"), {}, folder)
    elif kind == "s3":
        yield Place(kind, f"s3://{BUCKET}/{name}", server.environment(), folder)
    else:
        with FaultProxy(server, seed, FAULT_RATE) as proxy:
            yield Place(kind, f"s3://{BUCKET}/{name}", proxy.endpoint.environment(), folder)
