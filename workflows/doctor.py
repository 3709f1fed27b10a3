"""Is this machine fit to build a corpus?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from typing import NamedTuple

from cluster.session import numba_cache
from cluster.storage import check_writable, open_store

PYTHON = ((3, 11), (3, 14))
FREE_BYTES = 5 << 30
MEMORY_BYTES = 4 << 30


class Finding(NamedTuple):
    what: str
    good: bool
    told: str


def examine(output: str | None = None) -> list[Finding]:
    """What was looked at and how it is; with `output` a file is written there and deleted again."""
    version = tuple(map(int, platform.python_version_tuple()[:2]))
    low, high = (".".join(map(str, bound)) for bound in PYTHON)
    findings = [Finding("python", PYTHON[0] <= version < PYTHON[1], f"{platform.python_version()} (>={low},<{high})")]
    findings += [_package(name) for name in ("ray", "pyarrow", "polars", "numba", "fasttext-community", "resiliparse")]
    findings.append(_faiss())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    findings.append(Finding("memory", memory >= MEMORY_BYTES, f"{memory / 1e9:.1f} GB, {os.cpu_count()} CPUs"))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    findings.append(Finding("disk for temporary files", free >= FREE_BYTES, f"{free / 1e9:.1f} GB free"))
    findings.append(_writable("cache of compiled kernels", numba_cache()))
    findings.append(_ray_authentication())
    if output is not None:
        findings.append(_output(output))
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed")


def _faiss() -> Finding:
    found = []
    for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(found) > 1:
        return Finding("faiss", False, f"{' and '.join(found)} provide the same module: uninstall one")
    return Finding("faiss", True, found[0] if found else "not installed (needed for ordering: corpusmill[cpu])")


def _writable(what: str, folder: str) -> Finding:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return Finding(what, True, folder)
    except OSError as error:
        return Finding(what, False, str(error))


def _ray_authentication() -> Finding:
    off = os.environ.get("RAY_AUTH_MODE") == "disabled"
    told = "RAY_AUTH_MODE=disabled: anybody who reaches a cluster's job API can run code" if off else "not switched off"
    return Finding("ray authentication", not off, told)


def _output(output: str) -> Finding:
    try:
        store = open_store(output)
        check_writable(store)
        return Finding("output", True, f"{store.url} can be written")
    except OSError as error:
        return Finding("output", False, str(error))
