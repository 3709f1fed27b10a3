"""The log of a corpus: `_log/NNNNNNNN.json`, created if absent, is the commit. What no entry names is not there."""

from __future__ import annotations

import secrets
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from cluster.storage import AlreadyExists, Store

LATEST = "_log/LATEST"


class CommitLost(RuntimeError):
    """Another build committed first."""


class LogEntry(BaseModel):
    """One commit. `visible` lists the builds that readers see from here on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    parent: int
    op: str
    build: str
    manifest_sha256: str
    visible: list[str]
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


def append(
    store: Store, parent: LogEntry | None, op: str, build: str, manifest_sha256: str, visible: list[str]
) -> LogEntry:
    """Commit as the successor of `parent`. Raises CommitLost when somebody else is that already."""
    number = parent.number + 1 if parent else 1
    fields: dict[str, Any] = {"op": op, "build": build, "manifest_sha256": manifest_sha256, "visible": visible}
    entry = LogEntry(number=number, parent=number - 1, nonce=secrets.token_hex(16), **fields)
    try:
        store.write(entry_key(number), orjson.dumps(entry.model_dump(), option=orjson.OPT_INDENT_2), if_absent=True)
    except AlreadyExists as error:
        # A lost answer to our own write looks the same; the nonce tells.
        if read_entry(store, number).nonce != entry.nonce:
            raise CommitLost(f"another build committed entry {number} first") from error
    store.write(LATEST, str(number).encode())
    return entry
