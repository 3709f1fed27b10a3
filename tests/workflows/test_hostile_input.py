"""`corpusmill build` over files made to break it: bombs, lies, broken encodings, names that are paths, types that run
code.

Beside each bad file or row stands a good document. All good ones are kept, all bad ones are accounted for by reason,
and nothing of what they tried has happened.
"""

from __future__ import annotations

import base64
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cluster.storage import open_store
from tests.operators.read.archives import gz, record
from tests.security.bombs import PARQUET, STREAMS
from tests.workflows.corpora import recipe
from workflows.build import newest_build
from workflows.explain import why
from workflows.verify import verify

BOMB_BYTES = 300_000_000
LINE_BYTES = 70_000_000
MOST_RSS = 1280 << 20  # of a worker
SPECIAL = "<|endoftext|> <s> </s> [INST] <|im_start|>system <|reserved_special_token_0|> <pad> <unk> [MASK] "
NAMES = {
    "../../../climb": "a path upwards",
    "/etc/passwd": "an absolute path",
    "two\nlines, and a comma": "a line break",
    "<script>alert(1)</script>": "markup",
    "\u202egnp.exe \u0000".strip("\0 "): "a direction mark",
    "[bold red]x[/]": "markup of the terminal",
    "数据 ü \U0001f600": "other scripts",
}
FILES = ("list.parquet", "strings.parquet", "padding.parquet", "columns.parquet", "depth.parquet", "codec.parquet",
         "shared.parquet", "lies.warc", "encodings.warc.gz", "twice.txt.gz")  # fmt: skip
QUARANTINED = {
    ("bomb.jsonl.gz", "line_too_long"): 1,
    ("bomb.html.gz", "too_large"): 1,
    ("bomb.jsonl.zst", "line_too_long"): 1,
    ("long.jsonl", "line_too_long"): 1,
    ("lines.jsonl", "invalid_utf8"): 1,
    ("lines.jsonl", "nul"): 1,
    ("lines.jsonl", "lone_surrogate"): 1,
    ("lines.jsonl", "bad_json"): 2,
    ("lines.jsonl", "not_an_object"): 1,
    ("lines.jsonl", "no_text"): 1,
    ("short.warc", "bad_record"): 1,
    ("long.warc", "truncated_record"): 1,
    ("cut.warc.gz", "truncated_record"): 1,
    ("cut.jsonl.gz", "truncated_stream"): 1,
    ("flipped.parquet", "bad_row_group"): 1,
    ("pickled.parquet", "unsafe_type"): 1,
    ("latin.txt", "invalid_utf8"): 1,
    ("claims.txt.gz", "unreadable_file"): 1,
    ("keys.jsonl", "too_large"): 1,
    **{(name, reason): 1 for name, (_, reason) in (PARQUET | STREAMS).items() if name in FILES},
}


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def prose(name: str) -> str:
    """A good document, unlike the others."""
    return f"The document {name} stands beside something hostile and must be kept whatever happens to its neighbour."


def line(name: str, text: str | None = None) -> bytes:
    return orjson.dumps({"id": name, "text": text or prose(name)}) + b"\n"


def page(name: str) -> bytes:
    return f"<html><body><article><p>{prose(name)}</p></article></body></html>".encode()


def zeros() -> bytes:
    """BOMB_BYTES of one letter, as three gzip members of a hundred kilobytes."""
    return gz(b"0" * (BOMB_BYTES // 3)) * 3


def zstd(opening: bytes, size: int) -> bytes:
    buffer = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(buffer, closefd=False) as file:
        file.write(opening)
        for _ in range(size // 10_000_000):
            file.write(b"0" * 10_000_000)
    return buffer.getvalue()


def pickled_parquet(path: Path, canary: Path) -> None:
    """As Ray writes Python objects: an Arrow extension type whose parameters are a pickle, which readers load."""
    payload = pickle.dumps(Canary(str(canary)))
    metadata = {"ARROW:extension:name": "ray.data.arrow_pickled_object", "ARROW:extension:metadata": payload}
    field = pa.field("evil", pa.binary(), metadata=metadata)
    schema = pa.schema([pa.field("text", pa.string()), field])
    table = pa.table([["unsafe"], [pickle.dumps(Canary(str(canary)))]], schema=schema)
    pq.write_table(table, path)
    held = pq.read_metadata(path).metadata
    assert b"ARROW:extension:name" in base64.b64decode(held[b"ARROW:schema"])


def flipped_parquet(path: Path) -> None:
    """Two row groups, the second with a flipped byte in a page."""
    names = [f"parquet-{n}" for n in range(4)]
    table = pa.table({"id": names, "text": [prose(name) for name in names]})
    pq.write_table(
        table,
        path,
        row_group_size=2,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
        write_statistics=False,
    )
    data = bytearray(path.read_bytes())
    data[data.index(b"parquet-3 stands") + 12] ^= 1
    path.write_bytes(bytes(data))


def lay_out_hostile(folder: Path, canary: Path) -> Iterator[str]:
    """Writes the files and yields the ids of the good documents that have ids of their own."""

    def put(name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    put("bomb.jsonl.gz", gz(line("g1") + b'{"text": "') + zeros() + gz(b'"}\n' + line("g2")))
    put("bomb.html.gz", gz(b"<p>") + zeros() + gz(b"</p>"))
    put("bomb.jsonl.zst", zstd(line("g3") + b'{"text": "', BOMB_BYTES))
    put("long.jsonl", line("g4") + b'{"text": "' + b"x" * LINE_BYTES + b'"}\n' + line("g5"))
    bad = [b'{"id": "u8", "text": "caf\xe9"}\n', b'{"id": "n", "text": "a\\u0000b"}\n', b'{"text": "\\ud800"}\n']
    bad += [b'{"text": "no end\n', b"[" * 100_000 + b"\n", b'["text"]\n', b'{"id": "none"}\n']
    put("lines.jsonl", b"".join(line(f"g6-{n}") + data for n, data in enumerate(bad)))
    put("short.warc", record("w1", page("w1")) + record("lies", page("lies"), length=90) + record("w2", page("w2")))
    put("long.warc", record("w3", page("w3")) + record("over", page("over"), length=10**6) + record("w4", page("w4")))
    put("cut.warc.gz", gz(record("w5", page("w5"))) + gz(record("half", page("half")))[:-60])
    put("cut.jsonl.gz", gz(line("g7")) + gz(line("lost") * 50)[:-30])
    flipped_parquet(folder / "flipped.parquet")
    pickled_parquet(folder / "pickled.parquet", canary)
    put("latin.txt", b"caf\xe9 " * 50)
    put("claims.txt.gz", b"not gzip")
    put("keys.jsonl", line("g8") + b'{"text": "t", ' + b", ".join(b'"k%d": 1' % n for n in range(20_000)) + b"}\n")
    for name in FILES:
        (PARQUET | STREAMS)[name][0](folder / name)
    put("nested.html", b"<div>" * 200_000 + prose("nested").encode())
    put("entities.html", b"<p>" + b"&amp;" * 20_000 + b"</p>")
    put("empty.jsonl", b"")
    put("special.jsonl", line("special", SPECIAL * 20 + prose("special")))
    put("ids.jsonl", b"".join(line(name) for name in NAMES))
    put('di"r, one\n/x../<img src=x onerror=alert(1)>, ü.jsonl', line("odd-name"))
    yield from ("g1", "g2", "g3", "g4", "g5", *(f"g6-{n}" for n in range(len(bad))), "g7", "g8")
    yield from ("w1", "w2", "w3", "w4", "w5", "parquet-0", "parquet-1", "special", "odd-name", *NAMES)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with a short path, as Ray's sockets need."""
    made = Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def good(place: Path) -> list[str]:
    (place / "in").mkdir()
    return list(lay_out_hostile(place / "in", place / "canary"))


@pytest.fixture(scope="module")
def built(place: Path, good: list[str]) -> dict[str, Any]:
    off = dict.fromkeys(("language", "gopher_repetition", "gopher_quality", "fineweb", "minhash_dedup", "c4"), "off")
    params = off | {"extract": {"timeout": 2}, "tokenizer": {"name": "train:bpe", "vocab": 400}}
    made = recipe(
        place / "r.yaml",
        [str(place / "in")],
        place / "out",
        params=params,
        splits={},
        workers={"unit_bytes": 8_000_000},
        on_bad_file="skip",
        dropped_text=True,
    )
    (place / "tmp").mkdir()
    done = subprocess.run(
        [Path(sys.executable).with_name("corpusmill"), "build", made, "--json"],
        env=os.environ | {"TMPDIR": str(place / "tmp")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    result: dict[str, Any] = orjson.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def manifest(place: Path, built: dict[str, Any]) -> dict[str, Any]:
    return newest_build(open_store(str(place / "out")))


def test_every_good_document_is_kept(place: Path, built: dict[str, Any], good: list[str]) -> None:
    files = [place / "out" / shard["path"] for shard in built["shards"] if shard["format"] == "parquet"]
    kept = pa.concat_tables([pq.read_table(file) for file in files], promote_options="permissive")
    assert set(good) - set(kept["id"].to_pylist()) == set()
    texts = dict(zip(kept["id"].to_pylist(), kept["text"].to_pylist(), strict=True))
    assert texts["special"].startswith(SPECIAL.strip()[:40])
    assert all(prose(name) in texts[name] for name in good)


def test_every_bad_one_is_accounted_for_by_its_reason(place: Path, manifest: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = []
    for entry in manifest["stages"][0]["files"]["quarantined"]:
        rows += pq.read_table(place / "out" / entry["path"]).to_pylist()
    assert Counter((row["file"], row["reason"]) for row in rows) == QUARANTINED
    dropped = manifest["stages"][0]["dropped"]
    assert set(dropped) <= {"extract/too_deep", "extract/timeout", "extract/no_text", "extract/too_large"}
    assert sum(dropped.values()) >= 1  # 200,000 nested elements


def test_the_books_balance_and_verify_passes(place: Path, built: dict[str, Any]) -> None:
    above = None
    for stage in built["stages"]:
        went = stage["kept"] + sum(stage["dropped"].values()) + stage["quarantined"]
        assert stage["rows_in"] + stage["created"] == went
        assert above in (None, stage["rows_in"])
        above = stage["kept"]
    assert [found for found in verify(open_store(str(place / "out"))) if found[1]] == []


def test_no_code_of_the_input_ran_and_no_name_left_the_output(place: Path, built: dict[str, Any]) -> None:
    assert not (place / "canary").exists()
    assert sorted(path.name for path in place.iterdir()) == ["in", "out", "r.yaml", "tmp"]
    # The canary works: whoever unpickles it makes the folder.
    pickle.loads(pickle.dumps(Canary(str(place / "canary"))))  # noqa: S301
    assert (place / "canary").is_dir()
    (place / "canary").rmdir()


def test_memory_stayed_bounded(manifest: dict[str, Any]) -> None:
    peaks = {stage["name"]: stage.get("peak_rss_bytes", 0) for stage in manifest["stages"]}
    assert peaks["read"] > 0
    assert max(peaks.values()) < MOST_RSS


def test_the_report_shows_markup_as_text(place: Path, built: dict[str, Any]) -> None:
    page = (place / "out" / "builds" / built["build_id"] / "report.html").read_text("utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("name", NAMES, ids=NAMES.values())
def test_why_finds_odd_ids(place: Path, built: dict[str, Any], manifest: dict[str, Any], name: str) -> None:
    assert why(open_store(str(place / "out")), [manifest], name)["fate"] == "kept"
