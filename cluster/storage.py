"""Where corpora live: immutable files behind one small protocol, in a local folder or in object storage.

Keys are relative, '/'-separated paths below the store's root. A key becomes visible whole or not at all: files are
made in a scratch folder on this machine and published under their key when they are complete. Readers go through
manifests; `list` is for housekeeping and for finding done-records, never for finding outputs.

A key is what every store can hold: see `check_key`. No key lies below another one: `a` and `a/b` cannot both be.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

SCRATCH = "_scratch"  # of a local folder; kept free in all stores
KEY_BYTES, NAME_BYTES = 900, 255  # object storage takes 1,024 with the store's own prefix, file systems 255 a name


class StorageError(OSError):
    """A store that cannot be read or written, or an address that names none."""


class Missing(StorageError, FileNotFoundError):
    """No object has that key."""


class Forbidden(StorageError, PermissionError):
    """The credentials in force do not allow that, or there are none."""


class AlreadyExists(StorageError):
    """`write(..., if_absent=True)` found the key taken."""


class Stored(NamedTuple):
    """What a listing says of an object."""

    key: str
    size: int
    modified: float  # seconds since the epoch, by the store's clock


class Store(Protocol):
    """What a local folder and object storage have in common. Errors are StorageError."""

    @property
    def url(self) -> str: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Raises AlreadyExists with `if_absent` where the key is taken, also by this very call when its answer was
        lost and it was sent again: who must know puts something of its own into `data` and reads it back."""
        ...

    def open(self, key: str) -> pa.NativeFile:
        """The object for random access, without reading more of it than is asked for."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder on this machine for files on their way to `publish`, gone when the block ends."""
        ...

    def publish(self, path: Path, key: str) -> None:
        """Make a finished file of a scratch folder visible under `key`, whole or not at all. The file moves away."""
        ...

    def local(self, *keys: str) -> AbstractContextManager[Path]:
        """A folder on this machine that holds those keys, to read inside the block."""
        ...

    def exists(self, key: str) -> bool: ...
    def list(self, prefix: str) -> Iterator[Stored]:
        """All objects below the folder `prefix`, in no order."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete in that order as far as the store keeps any; a key that is not there is no error."""
        ...

    def sweep(self, before: float) -> int:
        """Delete what interrupted writers left before that time (seconds since the epoch); how many."""
        ...


def is_unicode(text: str) -> bool:
    """False for text with halves of surrogate pairs, as file names that are not UTF-8 have them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_key(key: str) -> None:
    """Raises StorageError for a key that not every store holds as it is: empty, `.` or `..` between slashes,
    backslashes, control characters, what is no Unicode, too long."""
    if not is_unicode(key):
        raise StorageError(f"not a key of a store: {key!r} is not Unicode")
    if any(unicodedata.category(c) == "Cc" or c in "\\\ufffe\uffff" for c in key):
        raise StorageError(f"not a key of a store: {key!r} holds a backslash or a control character")
    names = key.split("/")
    if names[0] == SCRATCH or any(name in ("", ".", "..") for name in names):
        raise StorageError(f"not a key of a store: {key!r}")
    if len(key.encode()) > KEY_BYTES or any(len(name.encode()) > NAME_BYTES for name in names):
        raise StorageError(
            f"not a key of a store: {key[:40]!r}... has more than {NAME_BYTES} bytes in a name, or {KEY_BYTES} in all"
        )


def check_writable(store: Store) -> None:
    """Raises StorageError where nothing can be written, or where a commit would not be safe."""
    probe = f"_writable-{secrets.token_hex(4)}"
    try:
        for _ in range(2):
            store.write(probe, b"", if_absent=True)
    except AlreadyExists:  # by the first one too, where its answer was lost and it was sent again
        return
    finally:
        store.delete([probe])
    raise StorageError(f"{store.url}: this server overwrites what is to be created only if absent: no safe commit")


def without_secrets(url: str) -> str:
    """An address without what may be a secret: a user, a password, a query."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.rpartition("@")[2].partition("?")[0].partition("/")
    return f"{scheme}://{host}{slash}{path}"


def open_store(url: str) -> Store:
    """The store at `url`: a local path or `s3://bucket/prefix`. Touches nothing. Raises StorageError."""
    if url.startswith("s3://"):
        from cluster.s3_store import S3Store  # boto3 takes half a second to import

        return S3Store.at(url)
    if "://" in url:
        raise StorageError(f"{without_secrets(url)}: a corpus lies in a local folder or at s3://bucket/prefix")
    from cluster.local_store import LocalStore

    return LocalStore(str(Path(url).resolve()))
