"""The one place that knows how Ray is started and set up.

Embedded, Ray runs on this machine for this process only, listens on loopback alone and asks for a token; with an
address it connects to a cluster, whose workers get this very code and these settings, whatever is installed there of
ours. The settings below are measured: without the worker limits a two-core machine restarts workers between stages
(seconds each).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

AUTH_MODE = "RAY_AUTH_MODE"
ENVIRONMENT = {
    AUTH_MODE: "token",
    "RAY_num_workers_soft_limit": "12",
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a process that was given no GPU sees none
    "RAY_DEDUP_LOGS": "1",
    "RAY_TQDM": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Ray gives the parallelism: one thread a task, so that two tasks on two cores do not run eight.
    "OMP_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}
PACKAGES = ("cluster", "operators", "workflows")
NOT_SHIPPED = ["**/__pycache__/**", "**/*.nbi", "**/*.nbc"]
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the driver of a submitted job
LOCATORS = "cluster.kernel_cache.ByPlaceInOurCode,UserProvidedCacheLocator"
ACTOR_DEATHS = 10  # of processes that hold a GPU while they start, as with a spot machine; Ray allows none
START_ATTEMPTS = 3
ANSWER_SECONDS = 10  # for a cluster's head to take a connection
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
    os.environ.setdefault("NUMBA_CACHE_LOCATOR_CLASSES", LOCATORS)


def shipped_code() -> dict[str, Any]:
    """The part of a Ray runtime environment that sends this code to a cluster: sources and data, nothing compiled."""
    specs = [importlib.util.find_spec(package) for package in PACKAGES]
    folders = [next(iter(spec.submodule_search_locations or ())) for spec in specs if spec]
    return {"py_modules": folders, "excludes": NOT_SHIPPED}


def _workers_environment() -> dict[str, Any]:
    """What workers of a cluster, which were not started by us, need to be like those of an embedded Ray. Where kernels
    are cached depends on the machine: each worker looks for itself."""
    own = ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",)
    settings = {key: os.environ[key] for key in ENVIRONMENT if key in own or not key.startswith("RAY_")}
    environment = {"env_vars": settings, "worker_process_setup_hook": "cluster.session.prepare_environment"}
    return environment if os.environ.get(IN_JOB) else environment | shipped_code()


def token_file() -> Path | None:
    """Where Ray finds its token; None where the environment holds the token itself."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


@contextmanager
def session(address: str | None = None, cpus: int | None = None, dashboard: bool = False) -> Iterator[None]:
    """A Ray session for the block: embedded by default, an existing cluster with an `address`.

    A session that is already open in this process is used and left open. Raises SessionError.
    """
    prepare_environment()
    import ray
    from ray.exceptions import AuthenticationError

    if address is not None:
        _check_address(address)
    if ray.is_initialized():
        _configure_data()
        yield
        return
    try:
        _apply_auth_mode()
        if address is None:
            _start_patiently(cpus, dashboard)
        else:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, runtime_env=_workers_environment())
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "on this machine" if address is None else "at the address given"  # which may hold a password
        told = str(error).replace(address, "it") if address else str(error)
        raise SessionError(f"Ray {where} did not start: {told}") from error
    try:
        _configure_data()
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raises SessionError where drivers cannot go, or where nobody listens, which Ray would try for minutes."""
    if address.startswith(("http://", "https://")):
        raise SessionError("an address of http is a cluster's job server: `corpusmill submit` sends a build there")
    if "://" in address:
        raise SessionError("ray:// is for Ray's client: use `corpusmill submit`, or host:port on a node of the cluster")
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
        except OSError as error:
            raise SessionError(f"no Ray answers at the address given: {error}") from error


def started_here() -> bool:
    """Whether the open session's Ray was started by this process, and is no cluster."""
    from ray._private import worker

    return worker._global_node is not None and worker._global_node.is_head()


def cpus() -> int:
    """CPUs that the open session may use now."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _apply_auth_mode() -> None:
    """Make Ray see `RAY_AUTH_MODE`: it read the environment when it was imported, perhaps before ours was prepared."""
    import ray

    mode = os.environ[AUTH_MODE]
    if mode.lower() not in ("token", "disabled"):  # which Ray takes for "disabled", silently
        raise ValueError(f"{AUTH_MODE}={mode!r} is neither 'token' nor 'disabled'")
    ray._raylet.Config.initialize("")


def _start_patiently(cpus: int | None, dashboard: bool) -> None:
    """Start Ray on this machine; again where a loaded machine took longer than Ray's fixed limits."""
    import ray

    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            _start(cpus, dashboard)
            return
        except Exception as error:  # Ray raises nothing narrower
            ray.shutdown()
            if "timed out" not in str(error).lower():
                raise
            if attempt == START_ATTEMPTS:
                raise SessionError(f"Ray did not start in {attempt} tries: {error}") from error


def _start(cpus: int | None, dashboard: bool) -> None:
    """Start Ray on this machine."""
    import ray

    if os.environ[AUTH_MODE].lower() == "token":
        keep_token_private()
    with _never_in_a_cluster():
        ray.init(
            address="local",
            num_cpus=cpus or os.cpu_count(),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=object_store_bytes(),
            _temp_dir=str(private_folder() / "ray"),
        )


@contextmanager
def _never_in_a_cluster() -> Iterator[None]:
    """Ray started in the block takes this machine's address for 127.0.0.1, and so all its processes bind to loopback.

    `_node_ip_address` cannot say that: Ray replaces a loopback address there by one of a network interface, unless it
    is told that this machine is in no cluster, as it is by default on other systems. What tells it is a constant, which
    was made from the environment when Ray was imported, and in the processes it starts the environment. Afterwards all
    is as before: a later session may be one of a cluster.
    """
    from ray._private import ray_constants

    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    constant, setting = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(variable)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[variable] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if setting is None:
            del os.environ[variable]
        else:
            os.environ[variable] = setting


def keep_token_private() -> None:
    """Make the token below the home folder, which Ray would make readable by all, or take that right from one that Ray
    made. A token that the environment names is the user's business."""
    file = token_file()
    if file is None or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Linked when written: of two sessions that start at once, both use the token of the first.
        with tempfile.NamedTemporaryFile("w", dir=file.parent) as written, suppress(FileExistsError):
            written.write(secrets.token_hex(32))
            written.flush()
            os.link(written.name, file)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        file.chmod(0o600)


def private_folder() -> Path:
    """The user's own temporary folder for Ray, which makes all it makes below writable by everybody.

    Short and not in the project: the paths of sockets have a length limit that deep folders break.
    """
    folder = Path(tempfile.gettempdir(), f"ray-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not a folder of this user")
    folder.chmod(0o700)
    return folder


def object_store_bytes() -> int:
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
    context.max_consecutive_actor_init_deaths = ACTOR_DEATHS
    logging.getLogger("ray.data").setLevel(logging.ERROR)
