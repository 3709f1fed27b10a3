"""Files on their way to the nodes of a cluster: one zip archive, named by its content, that Ray unpacks on each."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from cluster.session import NOT_SHIPPED, SessionError, shipped_code

MAX_BYTES = 100 << 20  # Ray's job server reads no larger body of a request
DISTRIBUTION = "corpusmill"
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """Files by the path that they have on the nodes; `what` names it in messages."""

    what: str
    files: Mapping[str, Path | bytes]

    @property
    def uri(self) -> str:
        """Ray's name for it: the same files are sent once to a cluster, and unpacked once on a node."""
        seen = hashlib.sha256()
        for name, content in self._contents():
            seen.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        return f"gcs://_ray_pkg_{seen.hexdigest()[:32]}.zip"

    def archive(self) -> bytes:
        """The zip archive. Raises SessionError where it is larger than a job server takes."""
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in self._contents():
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, content)
        data = written.getvalue()
        if len(data) > MAX_BYTES:
            told = f"{self.what}: {len(data) / 1e6:.0f} MB when packed"
            raise SessionError(f"{told}; a job carries {MAX_BYTES / 1e6:.0f} MB at most")
        return data

    def _contents(self) -> list[tuple[str, bytes]]:
        return [
            (name, content if isinstance(content, bytes) else content.read_bytes())
            for name, content in sorted(self.files.items())
        ]


def code() -> Package:
    """This very code: our packages without what was compiled, and what they depend on as installed here is told."""
    files: dict[str, Path | bytes] = {}
    for folder in map(Path, shipped_code()["py_modules"]):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not any(fnmatch(f"/{file.as_posix()}", pattern) for pattern in NOT_SHIPPED):
                files[f"{folder.name}/{file.relative_to(folder).as_posix()}"] = file
    try:
        told = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # a checkout that was never installed
        return Package("the code", files)
    if metadata := told.read_text("METADATA"):
        files[f"{DISTRIBUTION}-{told.version}.dist-info/METADATA"] = metadata.encode()
    return Package("the code", files)
