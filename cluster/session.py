"""The one place that knows how Ray is started and set up.

Embedded, Ray runs on this machine for this process only; with an address it connects to a cluster. The settings
below are measured: without the worker limits a two-core machine restarts workers between stages (seconds each).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = {
    "RAY_num_workers_soft_limit": "12",
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_TQDM": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Ray gives the parallelism: one thread a task, so that two tasks on two cores do not run eight.
    "OMP_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}
NO_PROGRESS_SECONDS = 24 * 3600  # a unit is one step of progress, and a file that cannot be cut is one unit


class SessionError(RuntimeError):
    """Ray could not be started or reached."""


def cache_folder() -> str:
    """The user's folder for what can be made again: `$CORPUSMILL_CACHE`, else below the usual cache folder."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("CORPUSMILL_CACHE") or os.path.join(usual, "corpusmill")


def numba_cache() -> str:
    """Where compiled kernels are kept: per user, so that every worker of every build finds them, and per state of
    the operators' code, because numba does not notice when a kernel changes that another one was compiled with."""
    spec = importlib.util.find_spec("operators")
    seen = hashlib.sha256()
    for root in spec.submodule_search_locations or () if spec else ():
        for file in sorted(Path(root).rglob("*.py")):
            seen.update(file.read_bytes())
    return os.path.join(cache_folder(), "numba", seen.hexdigest()[:16])


def prepare_environment() -> None:
    """Set what Ray, its workers and the kernels read from the environment; the user's own settings win."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("NUMBA_CACHE_DIR", numba_cache())


@contextmanager
def session(address: str | None = None, cpus: int | None = None, dashboard: bool = False) -> Iterator[None]:
    """A Ray session for the block: embedded by default, an existing cluster with an `address`.

    A session that is already open in this process is used and left open.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        _configure_data()
        yield
        return
    try:
        if address is None:
            # On its own temporary folder: socket paths have a length limit that deep project folders break.
            ray.init(
                address="local",
                num_cpus=cpus or os.cpu_count(),
                include_dashboard=dashboard,
                logging_level="ERROR",
                log_to_driver=False,
                object_store_memory=_object_store_bytes(),
                _temp_dir=str(Path(tempfile.gettempdir(), f"ray-{os.getuid()}")),
            )
        else:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise SessionError(f"Ray {'at ' + address if address else 'on this machine'} did not start: {error}") from error
    try:
        _configure_data()
        yield
    finally:
        ray.shutdown()


def cpus() -> int:
    """CPUs that the open session may use now."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _object_store_bytes() -> int:
    """Blocks are only unit numbers and done-records, so a small store is enough; a quarter of shared memory at most."""
    shm = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else os.statvfs(tempfile.gettempdir())
    return max(80 << 20, min(256 << 20, shm.f_bavail * shm.f_frsize // 4))


def _configure_data() -> None:
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    logging.getLogger("ray.data").setLevel(logging.ERROR)
