"""A prefix of a bucket as a store: AWS S3, or any server that speaks its protocol (`AWS_ENDPOINT_URL`)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.s3_client import LISTED_KEYS, attempts, call, code_of, listed, pause, split_url
from cluster.s3_file import EMPTY, S3File, pieces
from cluster.storage import Forbidden, Missing, StorageError, Stored, check_key
from cluster.traffic import count_read, count_written

PART_BYTES = 64 << 20  # larger files are sent in parts of this size; servers allow 10,000
DELETE_KEYS = 1000  # in one request, as many as servers allow
UPLOAD = "corpusmill-upload"  # metadata of an object sent in parts: which upload made it


@dataclass(frozen=True)
class S3Store:
    """Objects below a prefix. Holds names only: each process finds server and credentials in its own AWS settings."""

    bucket: str
    prefix: str

    @classmethod
    def at(cls, url: str) -> S3Store:
        bucket, prefix = split_url(url)
        if prefix.strip("/"):
            check_key(prefix.strip("/"))
        return cls(bucket, prefix.strip("/"))

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self._root}".rstrip("/")

    @property
    def _root(self) -> str:
        """What the keys of this store start with in the bucket."""
        return f"{self.prefix}/" if self.prefix else ""

    def _at(self, key: str) -> tuple[str, str]:
        """Bucket and key there."""
        check_key(key)
        return self.bucket, self._root + key

    def _call(self, operation: str, key: str, **request: Any) -> Any:
        bucket, at = self._at(key)
        return call(f"s3://{bucket}/{at}", operation, Bucket=bucket, Key=at, **request)

    def read(self, key: str) -> bytes:
        data = b"".join(pieces(*self._at(key)))
        count_read(len(data))
        return data

    def open(self, key: str) -> pa.NativeFile:
        return pa.PythonFile(S3File(*self._at(key)), mode="r")

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        self._call("put_object", key, Body=data, ChecksumSHA256=_sha256(data), **condition)
        count_written(len(data))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="corpusmill-") as folder:
            yield Path(folder)

    def publish(self, path: Path, key: str) -> None:
        if path.stat().st_size <= PART_BYTES:
            self.write(key, path.read_bytes())
        else:
            self._publish_in_parts(path, key)
            count_written(path.stat().st_size)
        path.unlink()

    def _publish_in_parts(self, path: Path, key: str) -> None:
        """The object appears when all parts are there; a failure takes them back, a killed process leaves them to
        `sweep`."""
        mark = {UPLOAD: secrets.token_hex(8)}
        begun = self._call("create_multipart_upload", key, ChecksumAlgorithm="SHA256", Metadata=mark)
        upload = str(begun["UploadId"])
        try:
            parts = []
            with path.open("rb") as file:
                for number, data in enumerate(iter(lambda: file.read(PART_BYTES), b""), 1):
                    checksum = _sha256(data)
                    part: dict[str, Any] = {"PartNumber": number, "ChecksumSHA256": checksum}
                    sent = self._call("upload_part", key, UploadId=upload, Body=data, **part)
                    parts.append(part | {"ETag": sent["ETag"]})
            self._complete(key, upload, parts, mark)
        except BaseException as error:
            try:
                self._abort(key, upload)
            except StorageError as second:
                error.add_note(f"parts of {key} are left for `gc`: {second}")
            raise

    def _complete(self, key: str, upload: str, parts: list[dict[str, Any]], mark: dict[str, str]) -> None:
        try:
            self._call("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts})
        except StorageError as error:
            # The answer to a first try was lost, and the second one finds the upload ended.
            if code_of(error) != "NoSuchUpload" or self._call("head_object", key).get("Metadata") != mark:
                raise

    def _abort(self, key: str, upload: str) -> bool:
        """Take the parts back; False where that upload has ended."""
        try:
            self._call("abort_multipart_upload", key, UploadId=upload)
        except StorageError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            return False
        return True

    @contextlib.contextmanager
    def local(self, *keys: str) -> Iterator[Path]:
        with self.scratch() as folder:
            for key in keys:
                at = self._at(key)
                target = folder / key
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    file.writelines(pieces(*at))
                count_read(target.stat().st_size)
            yield folder

    def exists(self, key: str) -> bool:
        try:
            # The first byte and not HEAD, whose answer does not tell a missing object from a missing bucket.
            for _ in pieces(*self._at(key), 0, 1):
                pass
        except Missing:
            return False
        except StorageError as error:
            if code_of(error) not in EMPTY:
                raise
        return True

    def list(self, prefix: str) -> Iterator[Stored]:
        folder = prefix.rstrip("/")
        below = f"{self._at(folder)[1]}/" if folder else self._root
        for item in listed(self.bucket, below):
            yield Stored(item["Key"].removeprefix(self._root), int(item["Size"]), item["LastModified"].timestamp())

    def delete(self, keys: Iterable[str]) -> None:
        left = iter(keys)
        while batch := list(itertools.islice(left, DELETE_KEYS)):
            names = [self._at(key)[1] for key in batch]
            for failures in itertools.count(1):
                errors = _delete(self.bucket, names)
                if not errors:
                    break
                told = f"s3://{self.bucket}/{errors[0].get('Key')}: {errors[0].get('Code')}: {errors[0].get('Message')}"
                if failures >= attempts() or any(error.get("Code") == "AccessDenied" for error in errors):
                    raise (Forbidden if errors[0].get("Code") == "AccessDenied" else StorageError)(told)
                names = [str(error["Key"]) for error in errors]
                pause(failures)

    def sweep(self, before: float) -> int:
        """Abort uploads in parts that were begun before that time and never ended."""
        swept = 0
        for upload in _uploads(self.url, self.bucket):
            if upload["Key"].startswith(self._root) and upload["Initiated"].timestamp() < before:
                swept += self._abort(upload["Key"].removeprefix(self._root), upload["UploadId"])
        return swept


def _delete(bucket: str, names: list[str]) -> list[dict[str, Any]]:
    """What the server says of those that it could not delete."""
    asked = {"Objects": [{"Key": name} for name in names], "Quiet": True}
    answer = call(f"s3://{bucket}/{names[0]}", "delete_objects", Bucket=bucket, Delete=asked)
    errors: list[dict[str, Any]] = answer.get("Errors", [])
    return errors


def _uploads(what: str, bucket: str) -> Iterator[dict[str, Any]]:
    """Uploads in parts that have not ended. Of the whole bucket: asked for a prefix, MinIO answers for the object of
    that very name only."""
    after: dict[str, str] = {}
    while True:
        page = call(what, "list_multipart_uploads", Bucket=bucket, MaxUploads=LISTED_KEYS, **after)
        yield from page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return
        marks = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
        after = {name: mark for name, mark in marks.items() if mark}  # SeaweedFS gives no key, and needs none


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
