"""`corpusmill metrics`: Prometheus and Grafana for the cluster that builds run on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workflows.console import out

if TYPE_CHECKING:
    from cluster.monitoring import Monitoring

app = typer.Typer(no_args_is_help=True, help="Prometheus and Grafana for the cluster that builds run on.")
CHECK_SECONDS = 1.0  # between looks whether the servers still run

Folder = Annotated[Path, typer.Option("--folder", help="for the configuration, the figures and the logs")]
Address = Annotated[
    str | None, typer.Option(help="of a Ray dashboard, http://host:8265; default: the newest Ray on this machine")
]
Session = Annotated[
    Path | None, typer.Option(help="`--temp-dir` of a Ray on this machine; default: that of embedded builds")
]
Port = Annotated[int, typer.Option(min=1, max=65535, help="of Prometheus")]
GrafanaPort = Annotated[int, typer.Option(min=1, max=65535, help="of Grafana")]
Share = Annotated[float, typer.Option(min=0, max=1, help="of its rows that an operator may drop without an alert")]
Alertmanager = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="where Prometheus sends alerts")]


@app.command()
def up(
    folder: Folder = Path("metrics"),
    address: Address = None,
    session: Session = None,
    port: Port = 9090,
    grafana_port: GrafanaPort = 3000,
    max_drop_share: Share = 0.9,
    alertmanager: Alertmanager = None,
) -> None:
    """Run Prometheus, and Grafana where it is installed, on loopback until Ctrl-C."""
    monitoring = _monitoring(folder, address, session, (port, grafana_port), max_drop_share, alertmanager)
    monitoring.write()
    try:
        with monitoring.servers() as servers:
            named = {server.name for server in servers}
            out.print(f"Prometheus: {monitoring.prometheus}")
            if "grafana-server" in named:
                out.print(f"Grafana: {monitoring.grafana}/d/corpusmill")
            else:
                out.print(f"Grafana is not installed; it takes {folder}/grafana/grafana.ini")
            _tell_ray(monitoring)
            while True:
                for server in servers:
                    server.check()
                time.sleep(CHECK_SECONDS)
    except KeyboardInterrupt:
        return


@app.command()
def files(
    folder: Folder = Path("metrics"),
    address: Address = None,
    session: Session = None,
    port: Port = 9090,
    grafana_port: GrafanaPort = 3000,
    max_drop_share: Share = 0.9,
    alertmanager: Alertmanager = None,
) -> None:
    """Only write the configuration: scraping, alerts, datasource and dashboards."""
    monitoring = _monitoring(folder, address, session, (port, grafana_port), max_drop_share, alertmanager)
    for path in monitoring.write():
        out.print(str(path), markup=False)
    _tell_ray(monitoring)


def _monitoring(
    folder: Path,
    address: str | None,
    session: Path | None,
    ports: tuple[int, int],
    max_drop_share: float,
    alertmanager: str | None,
) -> Monitoring:
    from cluster.monitoring import Monitoring
    from workflows.recipe import RecipeError

    if address is not None and session is not None:
        raise RecipeError("--address, --session: give one of the two")
    if address is not None and not address.startswith(("http://", "https://")):
        raise RecipeError(f"--address {address}: the address of a Ray dashboard begins with http:// or https://")
    if ports[0] == ports[1]:
        raise RecipeError(f"--port {ports[0]}, --grafana-port {ports[1]}: the two cannot share a port")
    return Monitoring(folder, address, session, *ports, max_drop_share, alertmanager)


def _tell_ray(monitoring: Monitoring) -> None:
    out.print("Ray's own dashboard shows these figures if its head was started with")
    for name, value in monitoring.environment().items():
        out.print(f"  export {name}={value}", markup=False)
