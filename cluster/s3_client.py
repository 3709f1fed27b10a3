"""Talking to object storage: one client a process, errors in our words, reads that survive broken connections.

Everything about the server and its credentials comes from the usual AWS settings (environment, profile, instance
role; `AWS_ENDPOINT_URL` for any server that speaks S3): no address and no key is ever in a task, a file or a log.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
from urllib3.exceptions import HTTPError as TransportError

from cluster.storage import AlreadyExists, Forbidden, Missing, StorageError

ATTEMPTS = 10  # of one request, with growing pauses of up to 20 s between them
TAIL_BYTES = 64 << 10  # fetched with the size when an object is opened: the footers of Arrow and Parquet lie there
AHEAD_BYTES = 1 << 20  # a seek forward by less reads on
PIECE_BYTES = 1 << 20

_MISSING = ("404", "NoSuchKey", "NotFound")
_FORBIDDEN = ("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_TAKEN = ("412", "PreconditionFailed")
_BROKEN = (
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ReadTimeoutError,
    botocore.exceptions.ResponseStreamingError,
    TransportError,
    ConnectionError,
    TimeoutError,
)


def client() -> Any:
    """The boto3 client of this process."""
    return _client(os.getpid())


@functools.lru_cache(maxsize=1)
def _client(_pid: int) -> Any:
    given = os.environ.keys() & {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"}
    retries = {} if given else {"retries": {"mode": "standard", "total_max_attempts": ATTEMPTS}}
    common: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 32, **retries}
    session = boto3.session.Session()
    found = session.client("s3", config=botocore.config.Config(**common))
    if "amazonaws.com" not in found.meta.endpoint_url:  # other servers seldom have a host name for each bucket
        style = {"s3": {"addressing_style": "path"}}
        found = session.client("s3", config=botocore.config.Config(**common, **style))
    return found


def split_url(url: str) -> tuple[str, str]:
    """(bucket, key) of `s3://bucket/key`. Raises StorageError, which does not repeat what may be a secret."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if "@" in bucket or ":" in bucket:
        raise StorageError("s3://…: a bucket's address holds no keys; they come from the AWS settings of the machine")
    if not bucket or "//" in key or ".." in key.split("/") or "\0" in key:
        raise StorageError(f"{url}: not s3://bucket/path")
    return bucket, key


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of the client as StorageError that name `what`."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _translated(what, error) from error
    except botocore.exceptions.NoCredentialsError as error:
        raise Forbidden(f"{what}: no AWS credentials are configured on this machine") from error
    except botocore.exceptions.HTTPClientError as error:
        raise StorageError(f"{what}: {type(error).__name__}: the store cannot be reached") from error
    except botocore.exceptions.BotoCoreError as error:
        raise StorageError(f"{what}: {error}") from error


def _translated(what: str, error: botocore.exceptions.ClientError) -> StorageError:
    told = error.response.get("Error", {})
    code, message = str(told.get("Code", "")), told.get("Message", "")
    kinds = ((_MISSING, Missing), (_FORBIDDEN, Forbidden), (_TAKEN, AlreadyExists))
    kind = next((kind for codes, kind in kinds if code in codes), StorageError)
    return kind(f"{what}: {code}: {message}" if message and message != code else f"{what}: {code}")


def pause(failures: int) -> None:
    """Wait before the next try, longer after each failure."""
    time.sleep(random.uniform(0, min(20, 0.1 * 2**failures)))  # noqa: S311


def pieces(bucket: str, key: str, start: int = 0, end: int | None = None, etag: str | None = None) -> Iterator[bytes]:
    """Bytes `start` to `end` (to the last without) of an object in pieces. A connection that breaks, or an answer that
    ends early, is taken up by Range where it ended; an object that changed meanwhile is a StorageError."""
    at, failures = start, 0
    while end is None or at < end:
        request: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if at or end is not None:
            request["Range"] = f"bytes={at}-{'' if end is None else end - 1}"
        if etag is not None:
            request["IfMatch"] = etag
        with translated(f"s3://{bucket}/{key}"):
            answer = client().get_object(**request)
            etag = answer["ETag"]
            end = at + answer["ContentLength"] if end is None else end
            try:
                for piece in answer["Body"].iter_chunks(PIECE_BYTES):
                    at += len(piece)
                    yield piece
                if at >= end:
                    return
                broken = f"{end - at} bytes missing"
            except _BROKEN as error:
                broken = f"{type(error).__name__}: {error}"
            finally:
                answer["Body"].close()
        failures += 1
        if failures >= ATTEMPTS:
            raise StorageError(f"s3://{bucket}/{key}: broken off {failures} times, the last time with {broken}")
        pause(failures)


class S3File(io.RawIOBase):
    """An object for reading and seeking. The first read after a seek fetches what is asked for; reading on from there
    keeps one connection streaming."""

    def __init__(self, bucket: str, key: str, tail: int = TAIL_BYTES) -> None:
        super().__init__()
        self._bucket, self._key = bucket, key
        self._tail, self.size, self._etag = _opened(bucket, key, tail)
        self._at = self._streamed = 0  # next byte for the reader, next byte of the stream
        self._last = -1  # where the last read ended
        self._stream: Iterator[bytes] | None = None
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), self.size - self._at)
        if wanted <= 0:
            return 0
        tail_start = self.size - len(self._tail)
        if self._at >= tail_start:
            n = self._copy(self._tail[self._at - tail_start :], target[:wanted])
        elif self._at == self._last or 0 <= self._at - self._streamed < AHEAD_BYTES and self._stream is not None:
            n = self._read_on(target[:wanted])
        else:
            n = self._fetch(target[:wanted])
        self._at += n
        self._last = self._at
        return n

    def _copy(self, source: Any, target: memoryview) -> int:
        n = min(len(source), len(target))
        target[:n] = source[:n]
        return n

    def _fetch(self, target: memoryview) -> int:
        n = 0
        for piece in pieces(self._bucket, self._key, self._at, self._at + len(target), self._etag):
            target[n : n + len(piece)] = piece
            n += len(piece)
        return n

    def _read_on(self, target: memoryview) -> int:
        if self._stream is None or not 0 <= self._at - self._streamed < AHEAD_BYTES:
            self._drop_stream()
            self._streamed = self._at
            self._stream = pieces(self._bucket, self._key, self._at, self.size, self._etag)
        while True:
            if len(self._held) == 0:
                self._held = memoryview(next(self._stream))
            skipped = min(self._at - self._streamed, len(self._held))
            self._held, self._streamed = self._held[skipped:], self._streamed + skipped
            if len(self._held):
                n = self._copy(self._held, target)
                self._held, self._streamed = self._held[n:], self._streamed + n
                return n

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]  # a generator
        self._stream, self._held = None, memoryview(b"")

    def close(self) -> None:
        self._drop_stream()
        super().close()


def _opened(bucket: str, key: str, tail: int) -> tuple[bytes, int, str]:
    """(the last bytes, size, etag), with one request for all."""
    with translated(f"s3://{bucket}/{key}"):
        try:
            answer = client().get_object(Bucket=bucket, Key=key, Range=f"bytes=-{tail}")
        except botocore.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") not in ("416", "InvalidRange"):
                raise
            told = client().head_object(Bucket=bucket, Key=key)  # empty
            return b"", int(told["ContentLength"]), str(told["ETag"])
        size = int(str(answer["ContentRange"]).rpartition("/")[2]) if "ContentRange" in answer else None
        length, etag = int(answer["ContentLength"]), str(answer["ETag"])
        size = length if size is None else size
        try:
            data = answer["Body"].read()
        except _BROKEN:
            data = b""
        finally:
            answer["Body"].close()
    if len(data) != length:
        data = b"".join(pieces(bucket, key, size - length, size, etag))
    return data, size, etag
