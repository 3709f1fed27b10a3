"""A folder as a store."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cluster.storage import AlreadyExists, Missing, StorageError, Stored

SCRATCH = "_scratch"


@dataclass(frozen=True)
class LocalStore:
    """A folder. Files are synced, then renamed or linked into place, and their folder is synced."""

    root: str

    @property
    def url(self) -> str:
        return self.root

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise StorageError(f"not a key of a store: {key!r}")
        return Path(self.root, key)

    def read(self, key: str) -> bytes:
        with _missing(key, self):
            return self._path(key).read_bytes()

    def open(self, key: str) -> pa.NativeFile:
        path = self._path(key)
        with _missing(key, self):
            # Arrow cannot map an empty file.
            return pa.memory_map(str(path)) if path.stat().st_size else pa.OSFile(str(path))

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_bytes(data)
            _sync(temporary)
            if if_absent:
                try:
                    os.link(temporary, target)
                except FileExistsError as error:
                    raise AlreadyExists(f"{key} exists in {self.root}") from error
            else:
                os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        base = self._path(SCRATCH)  # on the same file system, so that publishing is a rename
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as folder:
            yield Path(folder)

    def publish(self, path: Path, key: str) -> None:
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(path)
        os.replace(path, target)
        _sync(target.parent)

    @contextlib.contextmanager
    def local(self, *keys: str) -> Iterator[Path]:
        for key in keys:
            if not self._path(key).is_file():
                raise Missing(f"{self.url}: there is no {key}")
        yield Path(self.root)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[Stored]:
        for path in self._files(prefix):
            if not path.name.endswith(".tmp"):
                with contextlib.suppress(FileNotFoundError):  # deleted while we look
                    stat = path.stat()
                    yield Stored(path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime)

    def _files(self, prefix: str) -> Iterator[Path]:
        for folder, _, names in os.walk(self._path(prefix.rstrip("/"))):
            yield from (Path(folder, name) for name in names)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)  # empty folders stay until `sweep`: others may be writing there

    def sweep(self, before: float) -> int:
        scratch = self._path(SCRATCH)
        left = [p for p in self._files("") if p.name.endswith(".tmp") or p.is_relative_to(scratch)]
        old = [p for p in left if p.stat().st_mtime < before]
        for path in old:
            path.unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.root, topdown=False):
            if folder != self.root and os.stat(folder).st_mtime < before:
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(folder)
        return len(old)


@contextlib.contextmanager
def _missing(key: str, store: LocalStore) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(f"{store.url}: there is no {key}") from error


def _sync(path: Path) -> None:
    """Have the file, or the names in the folder, on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
