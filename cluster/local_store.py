"""A folder as a store."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cluster.storage import SCRATCH, AlreadyExists, Forbidden, Missing, StorageError, Stored, check_key
from cluster.traffic import count_read, count_written

TRIES = 10  # to put a file into a folder that is being swept


@dataclass(frozen=True)
class LocalStore:
    """A folder. Files are made in its scratch folder and synced, then renamed or linked into place, and the folder
    where they lie is synced."""

    root: str

    @property
    def url(self) -> str:
        return self.root

    def _path(self, key: str) -> Path:
        check_key(key)
        return Path(self.root, key)

    def read(self, key: str) -> bytes:
        path = self._path(key)
        with self._told(key, Missing):
            data = path.read_bytes()
        count_read(len(data))
        return data

    def open(self, key: str) -> pa.NativeFile:
        path = self._path(key)
        with self._told(key, Missing):
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                raise Missing(f"{self.url}/{key}: a folder")
            # Arrow cannot map an empty file.
            return pa.memory_map(str(path)) if found.st_size else pa.OSFile(str(path))

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        target = self._path(key)
        made = self._scratch() / secrets.token_hex(8)
        with self._told(key):
            try:
                made.write_bytes(data)
                _place(made, target, os.link if if_absent else os.replace)
            except FileExistsError as error:
                if if_absent and target.is_file():
                    raise AlreadyExists(f"{self.url}/{key}: it exists") from error
                raise
            finally:
                made.unlink(missing_ok=True)
        count_written(len(data))

    def _scratch(self) -> Path:
        base = Path(self.root, SCRATCH)  # on the same file system, so that publishing is a rename
        with self._told(SCRATCH):
            base.mkdir(parents=True, exist_ok=True)
        return base

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._scratch()) as folder:
            yield Path(folder)

    def publish(self, path: Path, key: str) -> None:
        target = self._path(key)
        with self._told(key):
            size = path.stat().st_size
            _place(path, target, os.replace)
        count_written(size)

    @contextlib.contextmanager
    def local(self, *keys: str) -> Iterator[Path]:
        for key in keys:
            if not self.exists(key):
                raise Missing(f"{self.url}/{key}: there is no such file")
            count_read(self._path(key).stat().st_size)
        yield Path(self.root)

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._told(key):
            return path.is_file()

    def list(self, prefix: str) -> Iterator[Stored]:
        folder = prefix.rstrip("/")
        scratch = Path(self.root, SCRATCH)
        for path in self._files(self._path(folder) if folder else Path(self.root)):
            if not path.is_relative_to(scratch):
                with contextlib.suppress(FileNotFoundError):  # deleted while we look
                    found = path.stat()
                    yield Stored(path.relative_to(self.root).as_posix(), found.st_size, found.st_mtime)

    def _files(self, folder: Path) -> Iterator[Path]:
        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):  # no such folder, or no more
                with self._told(str(folder.relative_to(self.root))):
                    raise error

        for parent, _, names in os.walk(folder, onerror=fail):
            yield from (Path(parent, name) for name in names)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            # Empty folders stay until `sweep`: others may be writing there.
            with self._told(key), contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()

    def sweep(self, before: float) -> int:
        """Delete scratch files, and folders that are empty, last touched before that time; how many files."""
        swept = 0
        scratch = Path(self.root, SCRATCH)
        with self._told(SCRATCH):
            for path in self._files(scratch):
                with contextlib.suppress(FileNotFoundError):  # published while we look
                    if path.stat().st_mtime < before:
                        path.unlink()
                        swept += 1
        for folder in (Path(folder) for folder, _, _ in os.walk(self.root, topdown=False)):
            with contextlib.suppress(OSError):  # not empty, or gone
                if folder not in (Path(self.root), scratch) and folder.stat().st_mtime < before:
                    folder.rmdir()
        return swept

    @contextlib.contextmanager
    def _told(self, key: str, gone: type[StorageError] = StorageError) -> Iterator[None]:
        """Errors of the system as StorageError that name the file; as `gone` where there is none."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            kind = StorageError
            if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
                kind = gone
            elif isinstance(error, PermissionError):
                kind = Forbidden
            raise kind(f"{self.url}/{key}: {error.strerror or error}") from error


def _place(made: Path, target: Path, put: Callable[[Path, Path], None]) -> None:
    """Have a finished file under its name on the disk, by renaming or linking."""
    _sync(made)
    for left in reversed(range(TRIES)):
        try:
            _make_folder(target.parent)
            put(made, target)
            break
        except FileNotFoundError:  # the folder was empty, and swept before the file came
            if left == 0 or not made.exists():
                raise
    _sync(target.parent)


def _make_folder(folder: Path) -> None:
    """Have the folder, and those above it, on the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Have the file, or the names in the folder, on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
