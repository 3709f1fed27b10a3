"""Where corpora live: a folder of immutable files behind one small protocol.

Keys are relative, '/'-separated paths below the store's root. A key becomes visible whole or not at all: `writer`
hands out a local path that is published when its block ends well. Readers go through manifests; `list` is for
housekeeping and for finding done-records, never for finding outputs.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


class StorageError(OSError):
    """A store that cannot be read or written, or an address that names none."""


class AlreadyExists(StorageError):
    """`write(..., if_absent=True)` found the key taken."""


class Store(Protocol):
    """What a local folder and object storage have in common."""

    @property
    def url(self) -> str: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None: ...
    def writer(self, key: str) -> AbstractContextManager[Path]:
        """A local path to write to; what is there when the block ends well is published under `key`."""
        ...

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A local file with the key's bytes, to read or memory-map inside the block."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder for files on their way to `writer`, gone when the block ends."""
        ...

    def exists(self, key: str) -> bool: ...
    def list(self, prefix: str) -> Iterator[str]: ...
    def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class LocalStore:
    """A folder. Writes go to a temporary name beside the target, are synced, then renamed or linked into place."""

    root: str

    @property
    def url(self) -> str:
        return self.root

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise StorageError(f"not a key of a store: {key!r}")
        return Path(self.root, key)

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        with self._published(key, if_absent) as path:
            path.write_bytes(data)

    def writer(self, key: str) -> AbstractContextManager[Path]:
        return self._published(key, if_absent=False)

    @contextlib.contextmanager
    def _published(self, key: str, if_absent: bool) -> Iterator[Path]:
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            if if_absent:
                try:
                    os.link(temporary, target)
                except FileExistsError as error:
                    raise AlreadyExists(f"{key} exists in {self.root}") from error
            else:
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def local(self, key: str) -> Iterator[Path]:
        yield self._path(key)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        base = self._path("_scratch")  # on the same file system, so that publishing is a rename
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as folder:
            yield Path(folder)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        base = self._path(prefix.rstrip("/"))
        for folder, _, names in os.walk(base):
            for name in names:
                if not name.endswith(".tmp"):
                    yield Path(folder, name).relative_to(self.root).as_posix()

    def delete(self, key: str) -> None:
        path = self._path(key)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # object stores have no empty folders, so neither has this one
            for folder in path.parents:
                if folder == Path(self.root):
                    break
                folder.rmdir()


def open_store(url: str) -> Store:
    """The store at `url`: a local path."""
    if "://" in url:
        raise StorageError(f"{url}: only local folders can be written so far")
    return LocalStore(str(Path(url).resolve()))


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
    if "://" in pattern:
        raise StorageError(f"{pattern}: only local inputs can be read so far")
    path = Path(os.path.abspath(pattern))
    if path.is_file():
        return [_describe(path, path.parent)]
    if path.is_dir():
        root, found = path, _walk(path)
    else:
        parts = path.parts
        wild = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
        if wild is None:
            raise FileNotFoundError(f"no such file or folder: {pattern}")
        root = Path(*parts[:wild])
        wanted = parts[wild:]
        found = (file for file in _walk(root) if _matches(file.relative_to(root).parts, wanted))
    files = sorted(found)
    if not files:
        raise FileNotFoundError(f"no file matches {pattern}")
    return [_describe(file, root) for file in files]


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
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _matches(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Shell matching by path component; `**` stands for any number of folders."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_matches(parts[i:], wanted[1:] or ("*",)) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _matches(parts[1:], wanted[1:])


def _describe(path: Path, root: Path) -> InputObject:
    stat = path.stat()
    rel = path.relative_to(root).as_posix()
    return InputObject(str(path), rel, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")


def describe_input(url: str) -> InputObject:
    """The input as it is now. Raises FileNotFoundError."""
    path = Path(url)
    return _describe(path, path.parent)


def open_input(url: str) -> BinaryIO:
    """An input opened for seeking binary reads."""
    return open(url, "rb")
