"""Files that builds learned or were given (tokenizers, models), kept in the store by hash and used from disk."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from cluster.session import cache_folder
from cluster.storage import StorageError, Store


def artefact_key(sha256: str) -> str:
    return f"artefacts/{sha256}"


def keep(store: Store, data: bytes) -> str:
    """Put an artefact into the store; its sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    store.write(artefact_key(sha256), data)
    return sha256


def on_disk(store: Store, sha256: str) -> Path:
    """A file on this machine with the artefact's bytes, fetched once. Raises StorageError where they are not those."""
    path = Path(cache_folder(), artefact_key(sha256))
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    data = store.read(artefact_key(sha256))
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StorageError(f"{store.url}/{artefact_key(sha256)}: its sha256 is not its name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{sha256}.{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return path
