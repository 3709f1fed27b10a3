"""Jobs of a cluster, as far as no cluster is needed: addresses, tokens, versions, exit codes, logs, packages.

The servers here stand for Ray's, and answer as it does; tests/soak/test_submit.py submits to a real one.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import packages
from cluster.job_server import server_address
from cluster.jobs import Job, Jobs, Log, check_id
from cluster.packages import Package, code
from cluster.session import SessionError

TOKEN = "0123456789abcdef" * 4
JOB = {
    "submission_id": "one",
    "type": "SUBMISSION",
    "status": "RUNNING",
    "message": "",
    "start_time": 1_700_000_000_000,
}


@contextmanager
def head(ray_version: str, token: str | None = None) -> Iterator[str]:
    """A server that answers as a head does: its version, one job, 401 without a token and 403 with another one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.headers.get("Authorization")
            answers = {"/api/version": {"ray_version": ray_version}, "/api/jobs/one": JOB, "/api/jobs/": [JOB]}
            status = 200 if self.path in answers else 404
            if token and sent != f"Bearer {token}":
                status = 403 if sent else 401
            self.send_response(status)
            self.end_headers()
            self.wfile.write(orjson.dumps(answers.get(self.path)))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_another_ray_is_refused_and_both_are_named() -> None:
    with head("2.9.3") as address, pytest.raises(SessionError, match=r"runs Ray 2\.9\.3, here is Ray 2\.\d+"):
        Jobs(address).check_version()


def test_the_same_ray_is_taken() -> None:
    import importlib.metadata

    with head(importlib.metadata.version("ray")) as address:
        Jobs(address).check_version()


def test_a_missing_token_is_told_by_the_variables_that_take_one() -> None:
    with head("2.60.0", TOKEN) as address, pytest.raises(SessionError, match="asks for a token: set RAY_AUTH_TOKEN"):
        Jobs(address).check_version()


@pytest.mark.parametrize("where", ["environment", "file", "home"])
def test_a_token_is_found_where_ray_looks_for_it(where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / (".ray/auth_token" if where == "home" else "token")
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{TOKEN}\n")
    if where == "environment":
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    elif where == "file":
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    with head("2.60.0", TOKEN) as address:
        assert [job.id for job in Jobs(address).list()] == ["one"]


def test_a_wrong_token_is_refused_and_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "f" * 64
    monkeypatch.setenv("RAY_AUTH_TOKEN", wrong)
    with head("2.60.0", TOKEN) as address, pytest.raises(SessionError, match="RAY_AUTH_TOKEN") as caught:
        Jobs(address).list()
    assert wrong not in str(caught.value)


@pytest.mark.parametrize("content", ["", " \n", "two words", "line\r\nheader: x", "caf\u00e9"])
def test_what_is_no_token_is_not_sent(content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(SessionError, match="the token in"):
        Jobs("http://127.0.0.1:1")


def test_a_token_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(SessionError, match="RAY_AUTH_TOKEN_PATH: .*none is not there"):
        Jobs("http://127.0.0.1:1")


def test_a_head_that_is_not_there_is_told() -> None:
    with pytest.raises(SessionError, match=r"http://127\.0\.0\.1:1: no answer: .*refused"):
        Jobs("http://127.0.0.1:1").upload(Package("nothing", {}))


def test_a_job_id_is_taken_once() -> None:
    with head("2.60.0") as address, pytest.raises(SessionError, match="has a job 'one' already"):
        Jobs(address).submit("one", "true", {}, {"nonce": "another"})


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("http://head:8265", "http://head:8265"),
        ("https://ray.example.org/", "https://ray.example.org"),
        ("http://[::1]:8265/ray", "http://[::1]:8265/ray"),
        ("head:8265", "http://head:8265"),
    ],
)
def test_addresses(named: str, address: str) -> None:
    assert server_address(named) == address


@pytest.mark.parametrize("named", ["head", "ray://head:10001", "auto", "http://", "http://h:x", "http://h/?a=b"])
def test_what_is_no_address_is_named(named: str) -> None:
    with pytest.raises(SessionError, match="--address"):
        server_address(named)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(SessionError, match="RAY_AUTH_TOKEN") as caught:
        server_address("http://me:hunter2@head:8265")
    assert "hunter2" not in str(caught.value)


def test_the_environment_names_the_cluster_and_what_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SessionError, match="which cluster"):
        server_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")  # of Ray itself, not of its job server
    with pytest.raises(SessionError, match="which cluster"):
        server_address(None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://there:1")
    assert server_address(None) == "http://there:1"
    assert server_address("http://here:2") == "http://here:2"


@pytest.mark.parametrize(
    ("status", "driver", "code", "died"),
    [
        ("SUCCEEDED", 0, 0, False),
        ("FAILED", 1, 1, True),
        ("FAILED", 2, 2, False),
        ("FAILED", 3, 3, False),
        ("FAILED", 4, 4, False),
        ("FAILED", -9, 1, True),  # the driver was killed
        ("FAILED", 137, 1, True),
        ("FAILED", 127, 1, True),
        ("FAILED", None, 1, True),  # it never ran, or nobody was left to see it end
        ("FAILED", 130, 130, False),
        ("STOPPED", None, 130, False),
        ("STOPPED", 143, 130, False),
    ],
)
def test_exit_codes(status: str, driver: int | None, code: int, died: bool) -> None:
    job = Job.of(JOB | {"status": status, "driver_exit_code": driver})
    assert (job.over, job.exit_code, job.died) == (True, code, died)


@given(text=st.text(max_size=60), breaks=st.lists(st.lists(st.integers(0, 60), max_size=4), max_size=4))
def test_a_log_that_is_read_again_is_told_once(text: str, breaks: list[list[int]]) -> None:
    """Connections break anywhere, and pieces end anywhere; the last one reads all."""
    told: list[str] = []
    log = Log(told.append)
    for cuts in [*breaks, [len(text)]]:
        log.begin()
        at = 0
        for cut in sorted(min(cut, len(text)) for cut in cuts):
            log.take(text[at:cut])
            at = cut
    assert "".join(told) == text


@pytest.mark.parametrize("id", ["", "../x", "a/b", "-x", "a b", "x" * 129, "naïve"])
def test_ids_are_names_of_files(id: str) -> None:
    with pytest.raises(SessionError, match="--id"):
        check_id(id)


def test_a_package_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    one = Package("it", {"x/a": tmp_path / "a", "b": b"2"})
    same = Package("it", {"b": b"2", "x/a": b"1"})
    assert one.uri == same.uri
    assert one.archive() == same.archive()
    assert one.uri != Package("it", {"b": b"2", "x/c": b"1"}).uri
    assert one.uri != Package("it", {"b": b"2", "x/a": b"3"}).uri
    with zipfile.ZipFile(io.BytesIO(one.archive())) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"b": b"2", "x/a": b"1"}


def test_a_package_that_no_job_server_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_BYTES", 100)
    with pytest.raises(SessionError, match="the corpus: 0 MB when packed"):
        Package("the corpus", {"a": b"x" * 10, "b": b"y" * 10}).archive()


def test_the_code_is_our_packages_without_what_was_compiled() -> None:
    names = code().files
    assert {name.partition("/")[0] for name in names} >= {"cluster", "operators", "workflows"}
    assert "cluster/jobs.py" in names
    assert "workflows/templates/text.yaml" in names
    assert any(name.endswith(".ftz") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".nbi", ".nbc"))]
    assert any(name.startswith("corpusmill-") and name.endswith(".dist-info/METADATA") for name in names)
