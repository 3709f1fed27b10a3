"""Inputs in object storage: `s3://bucket/path`, a prefix as a folder, or a glob."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from cluster.inputs import InputObject, matches
from cluster.s3_client import S3File, client, split_url, translated
from cluster.storage import Missing

BUFFER_BYTES = 1 << 20


def list_inputs(pattern: str) -> list[InputObject]:
    """Objects that a url, prefix or glob names, sorted by key. Hidden ones, and those that stand for folders, are
    skipped in prefixes and globs. Raises Missing when nothing is there."""
    bucket, key = split_url(pattern)
    parts = tuple(key.rstrip("/").split("/")) if key.rstrip("/") else ()
    wild = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    if wild is None:
        root = "/".join(parts)
        exact = [item for item in _listed(bucket, root) if item["Key"] == key] if key else []
        if exact:
            return [_input(bucket, exact[0], key.rpartition("/")[0])]
    else:
        root = "/".join(parts[:wild])
    wanted = ("**",) if wild is None else parts[wild:]
    prefix = f"{root}/" if root else ""
    found = []
    for item in _listed(bucket, prefix):
        rel = tuple(item["Key"].removeprefix(prefix).split("/"))
        shown = not any(part.startswith(".") or not part for part in rel)
        if shown and matches(rel, wanted):
            found.append(_input(bucket, item, root))
    if not found:
        raise Missing(f"no object matches {pattern}")
    return sorted(found, key=lambda item: item.url)


def _listed(bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    with translated(f"s3://{bucket}/{prefix}"):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from page.get("Contents", [])


def _input(bucket: str, item: dict[str, Any], root: str) -> InputObject:
    key = item["Key"]
    rel = key.removeprefix(f"{root}/") if root else key
    return InputObject(f"s3://{bucket}/{key}", rel, int(item["Size"]), str(item["ETag"]).strip('"'))


def describe_input(url: str) -> InputObject:
    """The object as it is now. Raises Missing."""
    bucket, key = split_url(url)
    with translated(url):
        told = client().head_object(Bucket=bucket, Key=key)
    item = {"Key": key, "Size": told["ContentLength"], "ETag": told["ETag"]}
    return _input(bucket, item, key.rpartition("/")[0])


def open_input(url: str) -> BinaryIO:
    """The object opened for seeking binary reads. It fails when the object changes while it is open."""
    bucket, key = split_url(url)
    return cast(BinaryIO, io.BufferedReader(S3File(bucket, key), BUFFER_BYTES))
