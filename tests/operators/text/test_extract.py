from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.document import loaded
from operators.text.extract import Extract
from operators.text.page import Settings
from operators.text.sandbox import Reader, Request, Sandbox

GOOD = b"<html><title>T</title><body><p>A good page.</p></body></html>"
ENDLESS = b"<div>" * 300_000 + b"x"  # resiliparse takes quadratic time over the depth, in C
EXTRACT = Extract(timeout=0.4, memory_mb=256)


def table(rows: list[tuple[bytes | None, str | None]]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([str(k) for k in range(len(rows))], pa.string()),
            "text": pa.nulls(len(rows), pa.large_string()),
            "payload": pa.array([payload for payload, _ in rows], pa.large_binary()),
            "content_type": pa.array([kind for _, kind in rows], pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("payload", "kind", "reason", "value", "detail"),
    [
        (GOOD, "text/html", None, None, None),
        (GOOD, None, None, None, None),
        (b"plain", "text/plain", None, None, None),
        (b"{}", "application/json", "not_html", None, "application/json"),
        (b"%PDF-1.7", None, "not_html", None, "application/pdf"),
        (b"", "text/html", "no_text", 0, None),
        (b"<p>  </p>", "text/html", "no_text", 0, None),
        (None, None, "no_text", 0, None),
        (b"x" * 2_000_000, "text/plain", "too_large", 2_000_000, None),
        (ENDLESS, "text/html", "timeout", 0.4, None),
    ],
)
def test_reasons(payload: bytes | None, kind: str | None, reason: str, value: float | None, detail: str | None) -> None:
    operator = Extract(timeout=0.4, memory_mb=256, max_bytes=1_600_000)
    row = operator(table([(payload, kind)])).to_pylist()[0]
    assert (row["drop_reason"], row["drop_value"], row["drop_detail"]) == (reason, value, detail)
    assert row["payload"] is None
    if reason is None:
        assert row["text"]


def test_columns() -> None:
    row = EXTRACT(table([(b"<title>A  b</title><p>x \xff y", "text/html; charset=utf-8")])).to_pylist()[0]
    assert (row["title"], row["text"], row["decode_errors"]) == ("A b", "x \ufffd y", 1)


def test_rows_with_text_stay() -> None:
    docs = table([(None, None), (GOOD, "text/html")])
    docs = docs.set_column(1, "text", pa.array(["kept", None], pa.large_string()))
    done = EXTRACT(docs.append_column("title", pa.array(["Old", None])))
    assert done["text"].to_pylist() == ["kept", "A good page."]
    assert done["title"].to_pylist() == ["Old", "T"]
    assert done["decode_errors"].to_pylist() == [None, 0]
    assert done["drop_reason"].null_count == 2


def test_only_the_culprit_is_lost() -> None:
    pages = [(GOOD, "text/html"), (ENDLESS, "text/html"), (GOOD, "text/html"), (ENDLESS, "text/html"), (GOOD, None)]
    done = EXTRACT(table(pages))
    assert done["drop_reason"].to_pylist() == [None, "timeout", None, "timeout", None]
    assert done["text"].to_pylist() == ["A good page.", None, "A good page.", None, "A good page."]


def test_memory_is_bounded() -> None:
    heavy = b"<p><b>a</b>" * 400_000
    done = Extract(memory_mb=64, main_content=False)(table([(GOOD, "text/html"), (heavy, "text/html"), (GOOD, None)]))
    assert done["drop_reason"].to_pylist() == [None, "crashed", None]
    assert done["drop_detail"].to_pylist()[1] == "memory"


def _killed(reader: Reader, times: int) -> list[str]:
    """The problems of three pages, the second endless, whose reader is killed from outside `times` times."""

    def kill() -> None:
        last = 0
        for _ in range(times):
            while (process := reader.process) is None or process.pid == last:
                time.sleep(0.01)
            time.sleep(0.1)
            os.kill(process.pid, signal.SIGSEGV)
            last = process.pid

    killer = threading.Thread(target=kill)
    killer.start()
    pages = reader.read([Request("text/html", page) for page in (GOOD, ENDLESS, GOOD)])
    killer.join()
    return [page.problem for page in pages]


@pytest.mark.parametrize(("times", "problem"), [(1, "timeout"), (2, "crashed")])
def test_a_crash_is_tried_once_more(times: int, problem: str) -> None:
    reader = Sandbox(Settings("resiliparse", True, False), timeout=0.6, memory_mb=256).load()
    reader.read([Request("text/html", GOOD)])
    assert _killed(reader, times) == ["", problem, ""]


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("ending", ["pass", "import os; os.kill(os.getpid(), 9)"])
def test_the_child_does_not_outlive_its_parent(ending: str) -> None:
    program = (
        "from operators.text.sandbox import *\n"
        "r = Sandbox(Settings('resiliparse', False, False), 1.0, 256).load()\n"
        "r.read([Request('text/html', b'<p>x')])\n"
        f"print(r.process.pid, flush=True)\n{ending}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    until = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _alive(pid)


def test_one_child_for_all_batches() -> None:
    EXTRACT(table([(GOOD, None)]))
    reader: Reader = loaded(EXTRACT._sandbox)
    assert reader.process is not None
    pid = reader.process.pid
    Extract(timeout=0.4, memory_mb=256, min_chars=5)(table([(GOOD, None)]))
    assert reader.process.pid == pid


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "lynx"}, r"(?s)method.*'lynx'"),
        ({"timeout": 0}, "timeout"),
        ({"method": "trafilatura", "main_content": False}, "main_content"),
        ({"favor_precision": True}, "favor_precision"),
    ],
)
def test_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Extract(**fields)


def test_trafilatura_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(pydantic.ValidationError, match=r"corpusmill\[quality\]"):
        Extract(method="trafilatura")


def test_no_rows() -> None:
    assert {"title", "decode_errors", "drop_reason"} <= set(EXTRACT(table([])).column_names)


PAGES = st.tuples(
    st.none() | st.just(GOOD) | st.binary(max_size=30) | st.text(max_size=30).map(lambda s: b"<p>" + s.encode()),
    st.none() | st.sampled_from(["text/html", "text/html; charset=gbk", "text/plain", "image/gif", "é"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(PAGES, max_size=8), st.integers(0, 8))
def test_slices_give_the_same(rows: list[tuple[bytes | None, str | None]], cut: int) -> None:
    docs = table(rows)
    assert EXTRACT(docs).equals(pa.concat_tables([EXTRACT(docs.slice(0, cut)), EXTRACT(docs.slice(cut))]))
