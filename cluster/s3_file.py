"""Reading objects: whole ones in pieces, and files for reading and seeking; both survive broken connections."""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import Any

import botocore.exceptions
from urllib3.exceptions import HTTPError as TransportError

from cluster.s3_client import attempts, call, code_of, pause
from cluster.storage import StorageError

PIECE_BYTES = 1 << 20
TAIL_BYTES = 64 << 10  # fetched with the size when an object is opened: the footers of Arrow and Parquet lie there
FIRST_WINDOW, LAST_WINDOW = 64 << 10, 32 << 20  # bytes that one request asks for: at first, and at most
EMPTY = ("416", "InvalidRange")  # what servers say where there is no such byte
NO_RANGES = "{}: this server does not serve parts of objects"
SKIPPED_BYTES = 1 << 20  # a seek forward by less reads on

_BROKEN = (
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ReadTimeoutError,
    botocore.exceptions.ResponseStreamingError,
    TransportError,
    ConnectionError,
    TimeoutError,
)


def pieces(
    bucket: str, key: str, start: int = 0, end: int | None = None, etag: str | None = None
) -> Generator[bytes, None, None]:
    """Bytes `start` to `end` (to the last without) of an object in pieces. A connection that breaks, or an answer that
    ends early, is taken up by Range where it ended; an object that changed meanwhile is a StorageError."""
    at, failures = start, 0
    what = f"s3://{bucket}/{key}"
    while end is None or at < end:
        answer = _get(bucket, key, at, end, etag)
        etag = str(answer["ETag"])
        end = at + int(answer["ContentLength"]) if end is None else end
        begun = at
        try:
            for piece in answer["Body"].iter_chunks(PIECE_BYTES):
                at += len(piece)
                yield piece
            broken = f"{end - at} bytes missing"
        except botocore.exceptions.FlexibleChecksumError as error:
            raise StorageError(f"{what}: what came is not what was stored: {error}") from error
        except _BROKEN as error:
            broken = type(error).__name__
        finally:
            answer["Body"].close()
        if at < end:
            failures = 1 if at > begun else failures + 1
            if failures >= attempts():
                raise StorageError(f"{what}: {failures} answers without a byte, the last one: {broken}")
            pause(failures)


def _get(bucket: str, key: str, at: int, end: int | None, etag: str | None) -> Any:
    """The answer that has the bytes from `at` on, of that version of the object."""
    what = f"s3://{bucket}/{key}"
    request: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if at or end is not None:
        request["Range"] = f"bytes={at}-{'' if end is None else end - 1}"
    if etag is not None:
        request["IfMatch"] = etag
    try:
        answer = call(what, "get_object", **request)
    except StorageError as error:
        if etag is not None and code_of(error) in ("412", "PreconditionFailed", *EMPTY):
            raise StorageError(f"{what}: the object changed while it was read") from error
        raise
    if etag is not None and answer["ETag"] != etag:
        raise StorageError(f"{what}: the object changed while it was read")
    if "Range" in request and not str(answer.get("ContentRange", "")).startswith(f"bytes {at}-"):
        answer["Body"].close()
        raise StorageError(NO_RANGES.format(what))
    return answer


class S3File(io.RawIOBase):
    """An object for reading and seeking, as it was when it was opened. Each request asks for a window that doubles
    while reading goes on where the last one ended, so scattered reads fetch little more than is asked for, and long
    ones need few requests."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__()
        self._bucket, self._key = bucket, key
        self._tail, self.size, self._etag = _opened(bucket, key)
        self._at = 0  # next byte for the reader
        self._held, self._held_at = memoryview(b""), 0  # bytes at hand, and where they lie
        self._rest: Generator[bytes, None, None] | None = None  # of the window
        self._window, self._window_end = 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer; less only at the end of the object."""
        target = memoryview(buffer).cast("B")
        target = target[: max(0, self.size - self._at)]
        done = 0
        while done < len(target):
            source = self._bytes_here(len(target) - done)
            n = min(len(source), len(target) - done)
            target[done : done + n] = source[:n]
            done += n
            self._at += n
        return done

    def _bytes_here(self, wanted: int) -> memoryview:
        """Bytes at the reader's place, one at least."""
        tail_at = self.size - len(self._tail)
        if self._at >= tail_at:
            return self._tail[self._at - tail_at :]
        while not self._held_at <= self._at < self._held_at + len(self._held):
            behind = self._held_at + len(self._held)
            if self._rest is None or not behind <= self._at < min(behind + SKIPPED_BYTES, self._window_end):
                self._open_window(wanted, tail_at)
                behind = self._at
            assert self._rest is not None
            self._held, self._held_at = memoryview(next(self._rest)), behind
        return self._held[self._at - self._held_at :]

    def _open_window(self, wanted: int, tail_at: int) -> None:
        self._drop_window()
        follows = 0 <= self._at - self._window_end < SKIPPED_BYTES
        grown = min(2 * self._window, LAST_WINDOW) if follows else FIRST_WINDOW
        self._window = max(wanted, grown, FIRST_WINDOW)
        self._window_end = min(self._at + self._window, tail_at)
        self._rest = pieces(self._bucket, self._key, self._at, self._window_end, self._etag)

    def _drop_window(self) -> None:
        if self._rest is not None:
            self._rest.close()
        self._rest, self._held = None, memoryview(b"")

    def close(self) -> None:
        self._drop_window()
        super().close()


def _opened(bucket: str, key: str) -> tuple[memoryview, int, str]:
    """(the last bytes, size, etag), with one request for all."""
    what = f"s3://{bucket}/{key}"
    try:
        answer = call(what, "get_object", Bucket=bucket, Key=key, Range=f"bytes=-{TAIL_BYTES}")
    except StorageError as error:
        if code_of(error) not in EMPTY:
            raise
        told = call(what, "head_object", Bucket=bucket, Key=key)  # empty
        return memoryview(b""), int(told["ContentLength"]), str(told["ETag"])
    length, etag = int(answer["ContentLength"]), str(answer["ETag"])
    if "ContentRange" not in answer and length > TAIL_BYTES:
        answer["Body"].close()
        raise StorageError(NO_RANGES.format(what))
    size = int(str(answer["ContentRange"]).rpartition("/")[2]) if "ContentRange" in answer else length
    try:
        data = answer["Body"].read()
    except _BROKEN:
        data = b""
    finally:
        answer["Body"].close()
    if len(data) != length:
        data = b"".join(pieces(bucket, key, size - length, size, etag))
    return memoryview(data), size, etag
