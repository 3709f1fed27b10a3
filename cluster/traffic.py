"""How many bytes this process has moved between itself and stores, and what tells that of a unit of work.

Counted is what was asked for, the same way for a local folder and for object storage, so that both give the same
figures for the same work:

- read: objects read whole (`read`, Arrow files of an exchange, what `local` hands out, layers over files); of Parquet
  files the compressed columns of each row group; of one partition of an exchange its rows; of an index the rows found
  in it; of inputs what the reader took from the file.
- written: every object written or published, by its size.
- shuffled: the part of what was written that is a file of an exchange.

`spilled_bytes` is the one figure that is the cluster's: what Ray wrote to disk because its memory was full. Near zero,
since only work and records travel through Ray.

Not counted: footers and listings, what a connection fetches ahead or sends again, and what child processes read.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

SPILLED_WAIT = 5  # seconds


@dataclass(frozen=True)
class Traffic:
    """Bytes moved."""

    read: int = 0
    written: int = 0
    shuffled: int = 0

    def since(self, before: Traffic) -> Traffic:
        return Traffic(self.read - before.read, self.written - before.written, self.shuffled - before.shuffled)


_adding = threading.Lock()
_read = _written = _shuffled = 0


def _after_fork() -> None:
    global _adding
    _adding = threading.Lock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)


def count_read(size: int) -> None:
    global _read
    with _adding:
        _read += size


def count_written(size: int) -> None:
    global _written
    with _adding:
        _written += size


def count_shuffled(size: int) -> None:
    """Of bytes that were counted as written, those that are rows on their way through an exchange."""
    global _shuffled
    with _adding:
        _shuffled += size


def traffic() -> Traffic:
    """What this process has moved so far."""
    with _adding:
        return Traffic(_read, _written, _shuffled)


def spilled_bytes() -> int | None:
    """Bytes that the object stores of all nodes have spilled to disk since they started; None where a node did not
    answer, as one that is lost."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.internal_api import get_memory_info_reply
    from ray._private.state import state

    try:
        reply = get_memory_info_reply(state, timeout_seconds=SPILLED_WAIT)
    except (grpc.RpcError, AssertionError):
        return None
    return int(reply.store_stats.spilled_bytes_total)
