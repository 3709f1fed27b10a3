"""Pages made to be slow or large to parse cost themselves, a bounded time and a bounded memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from operators.document import SCHEMA, loaded
from operators.text.extract import Extract

TIMEOUT, MEMORY_MB = 0.5, 512
IDLE_MB = 256  # more than an idle reader of pages has
GOOD = b"<html><body><p>A good page.</p></body></html>"
PAGES = {
    "a million nested elements": b"<div>" * 1_000_000,
    "an attribute of 15 MB": b"<p a='" + b"x" * 15_000_000 + b"'>text</p>",
    "half a million attributes": b"<p " + b" ".join(b"a%d=1" % n for n in range(500_000)) + b">text</p>",
    "nested tables": b"<table>" * 200_000,
    "formatting that is never closed": b"<p><b><i>text" * 100_000,
    "a comment that does not end": b"<!--" + b"-" * 10_000_000,
    "two million entities": b"&#x41;" * 2_000_000,
    "a script of opening brackets": b"<script>" + b"<" * 10_000_000,
    "a title of 10 MB": b"<title>" + b"t" * 10_000_000,
}


@pytest.mark.parametrize("name", PAGES)
def test_a_hostile_page_costs_itself_and_bounded_memory(name: str) -> None:
    pages = [GOOD, PAGES[name], GOOD]
    given = {"payload": pages, "content_type": ["text/html"] * 3, "id": ["a", "b", "c"]}
    docs = pa.table({f.name: pa.array(given.get(f.name, [None] * 3), f.type) for f in SCHEMA}, schema=SCHEMA)
    extract = Extract(timeout=TIMEOUT, memory_mb=MEMORY_MB)
    done = extract(docs)
    assert done["text"].to_pylist()[::2] == ["A good page."] * 2
    reason = done["drop_reason"].to_pylist()
    assert reason[::2] == [None, None]
    assert reason[1] in (None, "timeout", "crashed", "no_text")
    process = loaded(extract._sandbox).process
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) >> 10
    assert peak < MEMORY_MB + IDLE_MB
