"""Prometheus and Grafana for a Ray cluster: their configuration, and the two as children of this process.

Both listen on loopback alone. Where Ray's nodes are is told by Ray: in a file that its head keeps, or, to other
machines, by the dashboard, which asks for the token.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.child import kill_child, log_tail, start_child, write_private
from cluster.session import SessionError, private_folder, token_file

OURS = Path(__file__).parent / "dashboards"  # alerts.yml, corpusmill.json
DISCOVERY = "prom_metrics_service_discovery.json"  # in the folder of Ray's session, kept by the head
DISCOVERY_API = "/api/prometheus/sd"
DATASOURCE = "Prometheus"  # as Ray's own dashboards call it
DEFAULT_SHARE = 0.9
READY_SECONDS = 60
STOP_SECONDS = 30
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Monitoring:
    """What runs where: `address` of a Ray dashboard, else the folder `session` of a Ray on this machine."""

    folder: Path
    address: str | None = None
    session: Path | None = None
    port: int = 9090
    grafana_port: int = 3000
    max_drop_share: float = DEFAULT_SHARE
    alertmanager: str | None = None

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grafana(self) -> str:
        return f"http://127.0.0.1:{self.grafana_port}"

    @property
    def ray_session(self) -> Path:
        """The folder that the newest Ray session on this machine is in."""
        return (self.session or private_folder() / "ray").absolute() / "session_latest"

    def environment(self) -> dict[str, str]:
        """What the head of Ray needs when it starts, for its dashboard to show these figures."""
        return {
            "RAY_PROMETHEUS_HOST": self.prometheus,
            "RAY_PROMETHEUS_NAME": DATASOURCE,
            "RAY_GRAFANA_HOST": self.grafana,
        }

    def write(self) -> list[Path]:
        """Write the configuration of both; what was written. Raises SessionError where the address is not a Ray
        dashboard that takes the token."""
        root = self.folder.absolute()
        files = {
            "prometheus.yml": self._prometheus_yml(root),
            "alerts.yml": with_share((OURS / "alerts.yml").read_text("utf-8"), self.max_drop_share),
            "grafana/grafana.ini": self._grafana_ini(root),
            "grafana/provisioning/datasources/prometheus.yml": _datasource(self.prometheus),
            "grafana/provisioning/dashboards/corpusmill.yml": self._providers(root),
            "grafana/dashboards/corpusmill.json": (OURS / "corpusmill.json").read_text("utf-8"),
        }
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, "utf-8")
        return [root / name for name in files]

    def _prometheus_yml(self, root: Path) -> str:
        alerting = ""
        if self.alertmanager:
            alerting = (
                f"alerting:\n  alertmanagers:\n  - static_configs: [{{targets: [{_quoted(self.alertmanager)}]}}]\n"
            )
        return (
            "global: {scrape_interval: 10s, evaluation_interval: 10s}\n"
            f"rule_files: [{_quoted(root / 'alerts.yml')}]\n"
            f"{alerting}"
            "scrape_configs:\n"
            "- job_name: ray\n"
            f"{self._discovery(root)}"
        )

    def _discovery(self, root: Path) -> str:
        if self.address is None:
            found = _quoted(self.ray_session / DISCOVERY)
            return f"  file_sd_configs:\n  - files: [{found}]\n    refresh_interval: 10s\n"
        url = self.address.rstrip("/") + DISCOVERY_API
        token = _token(root)
        _check_discovery(url, token)
        own = f"    authorization: {{type: Bearer, credentials_file: {_quoted(token)}}}\n" if token else ""
        return f"  http_sd_configs:\n  - url: {_quoted(url)}\n    refresh_interval: 10s\n{own}"

    def _grafana_ini(self, root: Path) -> str:
        grafana = root / "grafana"
        return (
            f"[server]\nhttp_addr = 127.0.0.1\nhttp_port = {self.grafana_port}\n"
            f"[paths]\ndata = {grafana / 'data'}\nlogs = {grafana / 'logs'}\n"
            f"provisioning = {grafana / 'provisioning'}\n"
            "[security]\nallow_embedding = true\ndisable_initial_admin_creation = true\n"
            "[auth.anonymous]\nenabled = true\norg_role = Viewer\n"
            "[analytics]\nreporting_enabled = false\ncheck_for_updates = false\ncheck_for_plugin_updates = false\n"
        )

    def _providers(self, root: Path) -> str:
        folders = {"Corpusmill": root / "grafana" / "dashboards"}
        if self.address is None:
            folders["Ray"] = self.ray_session / "metrics" / "grafana" / "dashboards"
        lines = [
            f"- {{name: {name}, folder: {name}, type: file, options: {{path: {_quoted(folder)}}}}}\n"
            for name, folder in folders.items()
        ]
        return "apiVersion: 1\nproviders:\n" + "".join(lines)

    @contextmanager
    def servers(self) -> Iterator[list[Server]]:
        """Prometheus, and Grafana where it is installed, on what `write` wrote. Raises SessionError."""
        root = self.folder.absolute()
        with ExitStack() as stack:
            (root / "data").mkdir(parents=True, exist_ok=True)
            command = [
                _program("prometheus"),
                f"--config.file={root / 'prometheus.yml'}",
                f"--storage.tsdb.path={root / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ]
            _check_free(self.port)
            servers = [stack.enter_context(_served(command, root, f"{self.prometheus}/-/ready"))]
            if shutil.which("grafana-server"):
                command = [_program("grafana-server"), f"--config={root / 'grafana' / 'grafana.ini'}"]
                command += [f"--homepath={os.environ.get('GF_PATHS_HOME', '/usr/share/grafana')}"]
                _check_free(self.grafana_port)
                servers.append(stack.enter_context(_served(command, root, f"{self.grafana}/api/health")))
            yield servers


@dataclass
class Server:
    """One of the two, while it runs."""

    name: str
    health: str  # answers 200 when it is ready
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises SessionError where it has ended."""
        if (code := self.process.poll()) is not None:
            raise SessionError(f"{self.name} ended with {code}:\n{log_tail(self.log)}")


def with_share(rules: str, share: float) -> str:
    """The alert rules with another bound on what an operator may drop."""
    return rules.replace(f"vector({DEFAULT_SHARE:g})", f"vector({share:g})")


@contextmanager
def _served(command: Sequence[str], root: Path, health: str) -> Iterator[Server]:
    name = Path(command[0]).name
    environment = {"HOME": str(root), "PATH": os.environ["PATH"]}
    process = start_child(command, root, environment, root / f"{name}.log")
    server = Server(name, health, process, root / f"{name}.log")
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(health):
            server.check()
            if time.monotonic() > deadline:
                raise SessionError(f"{name} is not ready after {READY_SECONDS} s:\n{log_tail(server.log)}")
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill_child(process)


def _answers(url: str) -> bool:
    try:
        with OPENER.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _check_free(port: int) -> None:
    """Raises SessionError where somebody else would answer for the server."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", port))
        except OSError as error:
            raise SessionError(f"port {port} of 127.0.0.1 is taken: {error.strerror}") from error


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        told = "`apt-get install prometheus`, or put the program from https://prometheus.io/download on the PATH"
        raise SessionError(f"{name} is not installed: {told}")
    return found


def _token(root: Path) -> Path | None:
    """A file with Ray's token; None where there is none."""
    file = token_file()
    if file is None:
        write_private(root / "token", os.environ["RAY_AUTH_TOKEN"].encode())
        return root / "token"
    return file.absolute() if file.is_file() else None


def _check_discovery(url: str, token: Path | None) -> None:
    headers = {"Authorization": f"Bearer {token.read_text('utf-8').strip()}"} if token else {}
    try:
        with OPENER.open(urllib.request.Request(url, headers=headers), timeout=10) as response:
            found = json.load(response)
    except urllib.error.HTTPError as error:
        told = "it does not take the token" if error.code in (401, 403) else f"status {error.code}"
        raise SessionError(f"{url}: {told}") from error
    except (OSError, ValueError) as error:
        raise SessionError(f"{url}: no Ray dashboard answers there: {error}") from error
    if not isinstance(found, list):
        raise SessionError(f"{url}: this is no Ray dashboard")


def _datasource(url: str) -> str:
    return (
        "apiVersion: 1\n"
        "datasources:\n"
        f"- {{name: {DATASOURCE}, type: prometheus, url: {_quoted(url)}, access: proxy, isDefault: true}}\n"
    )


def _quoted(value: object) -> str:
    """As YAML takes any text."""
    return json.dumps(str(value))
