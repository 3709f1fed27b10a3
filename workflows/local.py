"""`corpusmill cluster …`: a Ray cluster of several nodes on this machine, to try a build, lose nodes and add some."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

if TYPE_CHECKING:
    from cluster.local_cluster import LocalCluster

app = typer.Typer(no_args_is_help=True, help=__doc__)
LOOK_SECONDS = 2.0  # between looks at whether a node has ended by itself
ANSWER_SECONDS = 400  # a node that a loaded machine is slow for is started three times
REQUEST_BYTES = 1 << 16

Folder = Annotated[
    Path | None, typer.Option(help="of the cluster: its token, logs and control socket; default: a private one")
]
Cpus = Annotated[int, typer.Option(min=0, help="of each worker")]
Gpus = Annotated[int, typer.Option(min=0, help="of each worker; they need not exist")]
Label = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="of each worker; may be repeated")]


@app.command()
def local(
    nodes: Annotated[int, typer.Option(min=1, max=250, help="in all, with the head, which runs no work")] = 3,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    label: Label = None,
    prometheus: Annotated[str | None, typer.Option(help="its URL, for the charts of the dashboard")] = None,
    folder: Folder = None,
    environment_file: Annotated[
        Path | None, typer.Option(help="where the lines go that another shell sources; default: in the folder")
    ] = None,
) -> None:
    """Start a cluster and keep it until Ctrl-C. Its nodes have the environment of this shell: keys of S3, for one."""
    from cluster.local_cluster import LocalCluster

    place = _folder(folder)
    labels = _labels(label)
    with contextlib.suppress(KeyboardInterrupt), _ends_on_sigterm(), _control(place) as control:
        typer.echo(f"starting {nodes} nodes …", err=True)
        with LocalCluster(place, nodes, cpus, gpus=gpus, labels=labels, prometheus=prometheus) as cluster:
            lines = cluster.environment_file
            if environment_file:
                environment_file.unlink(missing_ok=True)
                lines = Path(shutil.copy2(lines, environment_file)).absolute()  # with its mode
            typer.echo(f"address    {cluster.address}\ndashboard  {cluster.dashboard}")
            typer.echo(f"token      in {shlex.quote(str(place / 'token'))}")
            typer.echo(f"In another shell:\n  . {shlex.quote(str(lines))}")
            typer.echo(f"  corpusmill build recipe.yaml --address {cluster.address}")
            typer.echo("Ctrl-C ends it.")
            sys.stdout.flush()
            _serve(control, cluster)


@app.command()
def nodes(folder: Folder = None) -> None:
    """List the nodes of the cluster that runs."""
    for node in _ask(folder, do="nodes"):
        labels = " ".join(f"{key}={value}" for key, value in node["labels"].items())
        given = f"{node['cpus']:g} CPUs  {node['gpus']:g} GPUs"
        typer.echo(f"{node['number']:>3}  {node['address']:<15}  {node['state']:<5}  {given}  {labels}")


@app.command()
def add(cpus: Cpus = 1, gpus: Gpus = 0, label: Label = None, folder: Folder = None) -> None:
    """Add a worker to the cluster that runs."""
    typer.echo(f"node {_ask(folder, do='add', cpus=cpus, gpus=gpus, labels=_labels(label))}")


@app.command()
def kill(
    number: Annotated[int, typer.Argument(metavar="NODE", help="as `nodes` lists it; 0 is the head")],
    folder: Folder = None,
) -> None:
    """Kill a node as a crash of its machine would. The head notices after 13 s."""
    _ask(folder, do="kill", number=number)


def _folder(given: Path | None) -> Path:
    from cluster.session import private_folder

    return (given or private_folder() / "cluster").absolute()


def _labels(given: list[str] | None) -> dict[str, str]:
    """KEY=VALUE as Ray takes it. Raises typer.BadParameter."""
    from ray._private.label_utils import parse_node_labels_string

    try:
        labels: dict[str, str] = parse_node_labels_string(",".join(given or ()))
    except ValueError as error:
        raise typer.BadParameter(f"--label: {error}") from error
    return labels


@contextlib.contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: with no node left."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _control(folder: Path) -> Iterator[socket.socket]:
    """The socket where the cluster of a folder is told what to do, by the user only. Raises SessionError where one
    runs there."""
    from cluster.session import SessionError

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "control"
    with socket.socket(socket.AF_UNIX) as control:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as other:
            other.connect(os.fspath(path))
            raise SessionError(f"a cluster runs already with the folder {folder}")
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            control.bind(os.fspath(path))
        except OSError as error:
            raise SessionError(f"no socket can be made at {path}: {error}") from error
        finally:
            os.umask(before)
        control.listen()
        try:
            yield control
        finally:
            path.unlink(missing_ok=True)


def _serve(control: socket.socket, cluster: LocalCluster) -> None:
    """Do what other processes ask for, one after the other, and say where a node has ended by itself. In the thread
    that started the nodes: they end with it."""
    ended: set[int] = set()
    control.settimeout(LOOK_SECONDS)
    while True:
        for number, node in cluster.nodes.items():
            if not node.runs and number not in ended:
                typer.echo(f"node {number} has ended; its log is {node.log}", err=True)
                ended.add(number)
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection, _ = control.accept()
            with connection, connection.makefile("rwb") as stream:
                connection.settimeout(LOOK_SECONDS)
                if not (line := stream.readline(REQUEST_BYTES)):
                    continue  # somebody looked whether a cluster runs here
                request = orjson.loads(line)
                connection.settimeout(None)
                typer.echo(" ".join(f"{key}={value}" for key, value in request.items()), err=True)
                stream.write(orjson.dumps(_done(cluster, **request)) + b"\n")


def _done(cluster: LocalCluster, do: str, **given: Any) -> dict[str, Any]:
    """The answer to a request: its result, or what was wrong."""
    from cluster.session import SessionError

    try:
        if do == "add":
            return {"result": cluster.add(**given)}
        if do == "kill":
            cluster.kill(given["number"])
            return {"result": None}
        return {"result": _listed(cluster)}
    except (SessionError, ValueError) as error:
        return {"error": str(error)}


def _listed(cluster: LocalCluster) -> list[dict[str, Any]]:
    """The nodes that were not killed: as we number them, with what the head knows of each."""
    known = {told["node_ip"]: told for told in cluster.known()}
    listed = []
    for node in cluster.nodes.values():
        told = known.get(node.address, {})
        resources = told.get("resources_total") or {}
        labels = {key: value for key, value in (told.get("labels") or {}).items() if not key.startswith("ray.io/")}
        listed.append(
            {
                "number": node.number,
                "address": node.address,
                "state": told.get("state", "?"),
                "cpus": resources.get("CPU", 0),
                "gpus": resources.get("GPU", 0),
                "labels": labels,
            }
        )
    return listed


def _ask(folder: Path | None, **request: Any) -> Any:
    """What the cluster of the folder answers. Raises SessionError."""
    from cluster.session import SessionError

    path = _folder(folder) / "control"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(os.fspath(path))
            with connection.makefile("rwb") as stream:
                stream.write(orjson.dumps(request) + b"\n")
                stream.flush()
                answer = orjson.loads(stream.readline() or b'{"error": "the cluster ended"}')
        except OSError as error:
            raise SessionError(f"no cluster answers at {path}: start one with `corpusmill cluster local`") from error
    if "error" in answer:
        raise SessionError(answer["error"])
    return answer["result"]
