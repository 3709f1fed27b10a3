"""The log of a corpus: `_log/NNNNNNNN.json`, created if absent, is the commit. What no entry names is not there."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterator, Mapping
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict

from cluster.storage import AlreadyExists, Store

LATEST = "_log/LATEST"
Op = Literal["build", "nightly", "rollback", "retract"]


class CommitLost(RuntimeError):
    """Another build committed first."""


class LogEntry(BaseModel):
    """One commit: what readers see from here on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    parent: int
    op: Op
    build: str  # the newest of the visible builds
    manifest_sha256: str  # of its manifest
    visible: list[str]  # builds, oldest first
    manifests: dict[str, str]  # sha256 of the manifest of each visible build
    tombstones: str | None  # sha256 of the set of ids that were ever retracted
    created: str
    nonce: str


def entry_key(number: int) -> str:
    return f"_log/{number:08d}.json"


def head(store: Store) -> LogEntry | None:
    """The newest entry. `LATEST` is only a hint where to start looking."""
    number = int(store.read(LATEST)) if store.exists(LATEST) else 0
    while store.exists(entry_key(number + 1)):
        number += 1
    return read_entry(store, number) if number else None


def read_entry(store: Store, number: int) -> LogEntry:
    return LogEntry.model_validate_json(store.read(entry_key(number)))


def entries(store: Store) -> Iterator[LogEntry]:
    """All entries, the newest first."""
    newest = head(store)
    if newest is not None:
        yield newest
        for number in range(newest.number - 1, 0, -1):
            yield read_entry(store, number)


def append(
    store: Store, parent: LogEntry | None, op: Op, manifests: Mapping[str, str], tombstones: str | None = None
) -> LogEntry:
    """Commit as the successor of `parent`; `manifests` are the visible builds, oldest first, with the sha256 of the
    manifest of each. `tombstones` unset: those of the parent. Raises CommitLost when somebody else succeeded it."""
    number = parent.number + 1 if parent else 1
    build, digest = list(manifests.items())[-1]
    entry = LogEntry(
        number=number,
        parent=number - 1,
        op=op,
        build=build,
        manifest_sha256=digest,
        visible=list(manifests),
        manifests=dict(manifests),
        tombstones=tombstones or (parent.tombstones if parent else None),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        nonce=secrets.token_hex(16),
    )
    try:
        store.write(entry_key(number), orjson.dumps(entry.model_dump(), option=orjson.OPT_INDENT_2), if_absent=True)
    except AlreadyExists as error:
        # A lost answer to our own write looks the same; the nonce tells.
        if read_entry(store, number).nonce != entry.nonce:
            raise CommitLost(f"another build committed entry {number} first") from error
    store.write(LATEST, str(number).encode())
    return entry
