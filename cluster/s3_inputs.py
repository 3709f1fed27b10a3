"""Inputs in object storage: `s3://bucket/path`, a prefix as a folder, or a glob."""

from __future__ import annotations

import contextlib
import io
from typing import Any, BinaryIO, cast

from cluster.inputs import BUFFER_BYTES, InputObject, first_wild, matches, place, shown
from cluster.s3_client import call, listed, split_url
from cluster.s3_file import S3File
from cluster.storage import Missing
from cluster.traffic import count_read


def list_inputs(pattern: str) -> list[InputObject]:
    """Objects that a url, prefix or glob names, in the order of files in folders. Hidden ones, and those that stand for
    folders, are skipped in prefixes and globs. Raises Missing when nothing is there."""
    bucket, key = split_url(pattern)
    if key and not key.endswith("/"):
        with contextlib.suppress(Missing):
            return [describe_input(pattern)]
    key = key.rstrip("/")
    parts: tuple[str, ...] = tuple(key.split("/")) if key else ()
    wild = first_wild(parts)
    if wild is None or next(listed(bucket, f"{key}/"), None) is not None:
        root, parts = key, ("**",)
    else:
        root, parts = "/".join(parts[:wild]), parts[wild:]
    prefix = f"{root}/" if root else ""
    found = []
    for item in listed(bucket, prefix):
        rel = item["Key"].removeprefix(prefix)
        if not item["Key"].endswith("/") and shown(rel) and matches(tuple(rel.split("/")), parts):
            found.append(_input(bucket, item["Key"], rel, item["Size"], item["ETag"]))
    if not found:
        raise Missing(f"no object matches {pattern}")
    return sorted(found, key=place)


def describe_input(url: str) -> InputObject:
    """The object as it is now. Raises Missing."""
    bucket, key = split_url(url)
    told = call(url, "head_object", Bucket=bucket, Key=key)
    return _input(bucket, key, key.rpartition("/")[2], told["ContentLength"], told["ETag"])


def _input(bucket: str, key: str, rel: str, size: int, etag: str) -> InputObject:
    return InputObject(f"s3://{bucket}/{key}", rel, int(size), etag.strip('"'))


def open_input(url: str) -> BinaryIO:
    """The object opened for seeking binary reads. It fails when the object changes while it is open."""
    return cast(BinaryIO, io.BufferedReader(_Counted(*split_url(url)), BUFFER_BYTES))


class _Counted(S3File):
    """An object that counts what is read of it."""

    def readinto(self, buffer: Any) -> int:
        n = super().readinto(buffer)
        count_read(n)
        return n
