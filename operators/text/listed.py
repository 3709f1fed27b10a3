"""Membership in lists of millions of hosts or addresses, at the cost of one copy a machine.

A list becomes a sorted array of the xxh3 hashes of its entries in a file of the user's cache. Workers map that file,
so they share its pages. Of 4.6 million entries, one lookup in 4 * 10^12 hits by chance.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import tempfile
import unicodedata
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.document import Pinned
from operators.hashes import xxh3_64

FORMAT = 1  # of the cached files; bumped when entries are read or hashed differently
BLOCK = 1 << 18  # entries hashed at once


class Listed:
    """Answers which strings are on a list."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self.hashes = hashes  # sorted

    def has(self, entries: Sequence[str]) -> NDArray[np.bool_]:
        asked = xxh3_64(pa.array(entries, pa.large_string()))
        if not self.hashes.size:
            return np.zeros(asked.size, np.bool_)
        at = np.minimum(np.searchsorted(self.hashes, asked), self.hashes.size - 1)
        found: NDArray[np.bool_] = self.hashes[at] == asked
        return found


@dataclass(frozen=True)
class ListFile:
    """A list in a file: an entry a line, blank lines and what follows a `#` aside; `kind` says what an entry is."""

    file: Pinned
    kind: Literal["hosts", "urls"]

    def load(self) -> Listed:
        path = cache_folder() / f"{self.kind}-{self.file.sha256}-{FORMAT}.npy"
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # one worker builds, the others on this machine wait for it
                if not path.exists():
                    _save(path, self._hashes())
        return Listed(np.load(path, mmap_mode="r", allow_pickle=False))

    def _hashes(self) -> NDArray[np.uint64]:
        entries, numbers = self._entries()
        bad = r"[\s/*:@]|^\.*$" if self.kind == "hosts" else r"\s|://|^[^/]*$|^/"
        for at in np.flatnonzero(pc.match_substring_regex(entries, bad))[:1]:
            wanted = "a host" if self.kind == "hosts" else "host/path"
            raise ValueError(f"{self.kind}: {self.file.path}, line {numbers[at]}: {entries[at]} is not {wanted}")
        names = ascii_hosts(pc.replace_substring_regex(entries, "/.*", "") if self.kind == "urls" else entries)
        if self.kind == "urls":
            paths = unquoted(pc.replace_substring_regex(entries, "^[^/]*|/+$", ""))
            names = pc.binary_join_element_wise(names, paths, pa.scalar("", pa.large_string()))
        blocks = [xxh3_64(names.slice(at, BLOCK)) for at in range(0, len(names), BLOCK)]
        return np.sort(np.concatenate([np.zeros(0, np.uint64), *blocks]))

    def _entries(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """The entries and the numbers of their lines."""
        data = self.file.read().removeprefix(codecs.BOM_UTF8)
        try:
            text = pa.array([data], pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.kind}: {self.file.path} is not UTF-8") from error
        lines = pc.list_flatten(pc.split_pattern(text, "\n"))
        if b"#" in data:
            lines = pc.replace_substring_regex(lines, r"(^|\s)#.*", "")
        lines = pc.utf8_trim_whitespace(lines)
        at = np.flatnonzero(pc.greater(pc.binary_length(lines), 0))
        return lines.take(pa.array(at)), at + 1


def cache_folder() -> Path:
    """The user's folder for what can be built again."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("CORPUSMILL_CACHE") or os.path.join(base, "corpusmill")) / "lists"


def ascii_hosts(hosts: pa.Array) -> pa.Array:
    """Each host in lower case and ASCII, without dots around it."""
    plain = pc.utf8_trim(pc.ascii_lower(hosts), ".")
    return rewritten(plain, pc.match_substring_regex(plain, "[^\x00-\x7f]|%"), ascii_host)


def unquoted(paths: pa.Array) -> pa.Array:
    """Each path without percent encoding."""
    return rewritten(paths, pc.match_substring(paths, "%"), urllib.parse.unquote)


def rewritten(column: pa.Array, which: pa.Array, function: Callable[[str], str]) -> pa.Array:
    """`function` of the strings in `which` rows, in Python; the others as they are."""
    if not pc.any(which, min_count=0).as_py():
        return column
    return pc.replace_with_mask(
        column, which, pa.array([function(s) for s in column.filter(which).to_pylist()], column.type)
    )


def ascii_host(host: str) -> str:
    """A host name as the DNS has it: each label beyond ASCII as xn-- and Punycode (RFC 3492).

    Labels are folded as browsers do for the names that exist (UTS 46: lower case, NFKC, other full stops), without
    UTS 46's checks of which characters a name may have: a name that nobody can register is on no list.
    """
    plain = unicodedata.normalize("NFKC", urllib.parse.unquote(host))
    folded = unicodedata.normalize("NFKC", plain.lower()).replace("\u3002", ".")
    labels = folded.strip(".").split(".")
    return ".".join([a if a.isascii() else "xn--" + a.encode("punycode").decode() for a in labels])


def _save(path: Path, hashes: NDArray[np.uint64]) -> None:
    """Write the array so that the path never names a part of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, hashes)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)
