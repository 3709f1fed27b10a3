"""Is this machine fit to build a corpus?"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from typing import NamedTuple
from urllib.parse import urlsplit

from cluster.session import AUTH_MODE, numba_cache, token_file
from cluster.storage import check_writable, open_store

PYTHON = ((3, 11), (3, 14))
FREE_BYTES = 5 << 30
MEMORY_BYTES = 4 << 30
ANSWER_SECONDS = 10  # for a cluster to answer
OPEN = "answers without a token: whoever reaches it can run code there; start every node with RAY_AUTH_MODE=token"


class Finding(NamedTuple):
    what: str
    good: bool
    told: str


def examine(output: str | None = None, address: str | None = None) -> list[Finding]:
    """What was looked at and how it is.

    With `output` a file is written there and deleted again. With the `address` of a cluster (`host:port`, `auto`,
    `ray://host:port`, or `http://host:port` of its dashboard) it is asked for something without a token.
    """
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
    findings.append(_ray_token())
    if address is not None:
        findings.append(_cluster_authentication(address))
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
    mode = os.environ.get(AUTH_MODE, "token")
    if mode.lower() == "token":
        return Finding("ray authentication", True, "on")
    return Finding("ray authentication", False, f"{AUTH_MODE}={mode}: whoever reaches Ray here can run code")


def _ray_token() -> Finding:
    file = token_file()
    if file is None:
        return Finding("ray token", True, "in RAY_AUTH_TOKEN")
    try:
        readable = file.stat().st_mode & 0o077
    except FileNotFoundError:
        named = "RAY_AUTH_TOKEN_PATH" in os.environ
        return Finding("ray token", not named, f"{file} is not there" if named else "made by the first build")
    except OSError as error:
        return Finding("ray token", False, str(error))
    told = f"others than its owner have rights to {file}: chmod 600" if readable else f"{file}, its owner's alone"
    return Finding("ray token", not readable, told)


def _cluster_authentication(address: str) -> Finding:
    what = f"ray authentication at {address}"
    try:
        asks = _dashboard_asks(address) if address.startswith(("http://", "https://")) else _cluster_asks(address)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Finding(what, False, f"cannot be told: {error}")
    return Finding(what, asks, "on" if asks else OPEN)


def _dashboard_asks(url: str) -> bool:
    """Whether the job API wants a token. Raises OSError, ValueError, HTTPException where there is no such API."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
    try:
        # Redirects are not followed: the page where a proxy lets people log in says nothing about Ray.
        connection.request("GET", f"{parts.path.rstrip('/')}/api/jobs/")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status not in (200, 401, 403):
        raise OSError(f"the job API answers with HTTP status {status}")
    return status != 200


def _cluster_asks(address: str) -> bool:
    """Whether the head (`host:port`, `auto`) or the server of Ray clients (`ray://`) wants a token; raises as above.

    The messages are sent as they are: a client of Ray's own would add the token.
    """
    import grpc  # type: ignore[import-untyped]
    from ray._private.services import canonicalize_bootstrap_address

    if address.startswith("ray://"):
        target, method = address.removeprefix("ray://"), "/ray.rpc.RayletDriver/KVExists"
    else:
        target = canonicalize_bootstrap_address("auto") if address == "auto" else address
        method = "/ray.rpc.NodeInfoGcsService/GetClusterId"
    if target is None:
        raise ConnectionError("no cluster was started on this machine")
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=ANSWER_SECONDS, metadata=[("client_id", "doctor")])
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                raise ConnectionError(f"{error.code().name}: {error.details()}") from error
            return True
    return False


def _output(output: str) -> Finding:
    try:
        store = open_store(output)
        check_writable(store)
        return Finding("output", True, f"{store.url} can be written")
    except OSError as error:
        return Finding("output", False, str(error))
