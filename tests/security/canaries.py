"""Secrets that tests plant in the environment of a command, and a search for them in all that it left."""

from __future__ import annotations

import base64
import gzip
import json
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
VALUES = {
    "AWS_SECRET_ACCESS_KEY": "c4nary/secret+key/of+the/store/0123456789",
    "AWS_SESSION_TOKEN": "c4nary-session-token-8f3a//77+==",
    "CORPUSMILL_TEST_TOKEN": "c4nary-token-of-nothing-known-51d2",
    "PROXY_PASSWORD": "c4nary-proxy-p4ssword-90ab",
}


def environment(**changes: str) -> dict[str, str]:
    """That of this process with the secrets, a proxy nobody listens at with one in its address, and `changes`."""
    planted = {name: value for name, value in VALUES.items() if name != "PROXY_PASSWORD"}
    proxy = f"http://someone:{VALUES['PROXY_PASSWORD']}@127.0.0.1:9"
    planted |= {name: proxy for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    planted |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "AWS_ACCESS_KEY_ID": "anyone"}
    return os.environ | planted | changes


def spellings(secret: str) -> Iterator[bytes]:
    """The secret as it is, in JSON, in a URL, in hexadecimal, and in base64 at each of three alignments."""
    raw = secret.encode()
    yield from (raw, json.dumps(secret)[1:-1].encode(), urllib.parse.quote(secret, safe="").encode())
    yield raw.hex().encode()
    for shift in range(3):
        yield base64.b64encode(b"\0" * shift + raw)[(shift * 8 + 5) // 6 : -4]


def seen_in(data: bytes, secrets: dict[str, str]) -> list[str]:
    """Names of the secrets that are in it."""
    return [name for name, secret in secrets.items() if any(form in data for form in spellings(secret))]


def leaks(folder: Path, secrets: dict[str, str]) -> list[tuple[str, list[str]]]:
    """(file, names of the secrets) of every file below that holds one, or is named after one; compressed ones too."""
    found = []
    for path in sorted(folder.rglob("*")):
        data = os.fsencode(path)
        if path.is_file() and not path.is_symlink():
            raw = path.read_bytes()
            data += raw
            if path.suffix == ".gz":
                data += gzip.decompress(raw)
            elif path.suffix == ".parquet":
                data += repr(pq.read_table(path).to_pylist()).encode()
        if names := seen_in(data, secrets):
            found.append((str(path), names))
    return found
