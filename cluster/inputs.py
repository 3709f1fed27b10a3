"""Inputs: what a path, folder or glob names, locally or in object storage, and reading it."""

from __future__ import annotations

import fnmatch
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from cluster.storage import StorageError, without_secrets
from cluster.traffic import count_read

BUFFER_BYTES = 128 << 10


@dataclass(frozen=True)
class InputObject:
    """One input as the listing found it. `rel` is its path below the fixed (wildcard-free) part of the pattern;
    `version` changes when the content may have (size and mtime here, the etag in object storage)."""

    url: str
    rel: str
    size: int
    version: str


def list_inputs(pattern: str) -> list[InputObject]:
    """Files that a path, folder or glob names, sorted by path. Hidden files are skipped in folders and globs.

    Raises FileNotFoundError when nothing is there.
    """
    if pattern.startswith("s3://"):
        from cluster import s3_inputs

        return s3_inputs.list_inputs(pattern)
    if "://" in pattern:
        raise StorageError(f"{without_secrets(pattern)}: inputs are local paths or s3://bucket/path")
    path = Path(os.path.abspath(pattern))
    if path.is_file():
        return [_describe(path, path.parent)]
    if path.is_dir():
        root, found = path, _walk(path)
    else:
        parts = path.parts
        wild = first_wild(parts)
        if wild is None:
            raise FileNotFoundError(f"no such file or folder: {pattern}")
        root = Path(*parts[:wild])
        wanted = parts[wild:]
        found = (file for file in _walk(root) if matches(file.relative_to(root).parts, wanted))
    files = [_describe(file, root) for file in found]
    if not files:
        raise FileNotFoundError(f"no file matches {pattern}")
    return sorted(files, key=place)


def first_wild(parts: Sequence[str]) -> int | None:
    """The first component with a wildcard."""
    return next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)


def shown(rel: str) -> bool:
    """Neither hidden nor in a hidden folder."""
    return not any(part.startswith(".") for part in rel.split("/"))


def place(item: InputObject) -> list[str]:
    """Sorts inputs by folder and name."""
    return item.rel.split("/")


def _walk(root: Path) -> Iterator[Path]:
    """Files below `root`, through links too, each folder once. Raises OSError for a folder that cannot be read."""

    def fail(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=fail):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(f for f in folders if shown(f))
        yield from (Path(folder, name) for name in names if shown(name))


def matches(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Shell matching by path component; `**` stands for any number of folders."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(matches(parts[i:], wanted[1:] or ("*",)) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and matches(parts[1:], wanted[1:])


def _describe(path: Path, root: Path) -> InputObject:
    stat = path.stat()
    rel = path.relative_to(root).as_posix()
    return InputObject(str(path), rel, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")


def describe_input(url: str) -> InputObject:
    """The input as it is now. Raises FileNotFoundError."""
    if url.startswith("s3://"):
        from cluster import s3_inputs

        return s3_inputs.describe_input(url)
    path = Path(url)
    return _describe(path, path.parent)


def open_input(url: str) -> BinaryIO:
    """An input opened for seeking binary reads."""
    if url.startswith("s3://"):
        from cluster import s3_inputs

        return s3_inputs.open_input(url)
    return cast(BinaryIO, io.BufferedReader(_Counted(url), BUFFER_BYTES))


class _Counted(io.FileIO):
    """A file that counts what is read of it."""

    def readinto(self, buffer: Any) -> int:
        n: int = super().readinto(buffer)
        count_read(n)
        return n

    def readall(self) -> bytes:
        data = super().readall()
        count_read(len(data))
        return data
