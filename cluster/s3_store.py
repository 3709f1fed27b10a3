"""A prefix of a bucket as a store: AWS S3, or any server that speaks its protocol (`AWS_ENDPOINT_URL`)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import pyarrow as pa

from cluster.s3_client import ATTEMPTS, S3File, client, pause, pieces, split_url, translated
from cluster.storage import Missing, StorageError, Stored

PART_BYTES = 64 << 20  # larger files are sent in parts of this size; servers allow 10,000
DELETE_KEYS = 1000  # in one request, as many as servers allow


@dataclass(frozen=True)
class S3Store:
    """Objects below a prefix. Holds names only: each process finds server and credentials in its own AWS settings."""

    bucket: str
    prefix: str

    @classmethod
    def at(cls, url: str) -> S3Store:
        bucket, prefix = split_url(url)
        return cls(bucket, prefix.strip("/"))

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def _at(self, key: str) -> dict[str, str]:
        if not key or key.startswith("/") or key.endswith("/") or "//" in key or ".." in key.split("/") or "\0" in key:
            raise StorageError(f"not a key of a store: {key!r}")
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}" if self.prefix else key}

    def _told(self, key: str) -> Any:
        return translated(f"{self.url}/{key}")

    def read(self, key: str) -> bytes:
        at = self._at(key)
        return b"".join(pieces(at["Bucket"], at["Key"]))

    def open(self, key: str) -> pa.NativeFile:
        at = self._at(key)
        return pa.PythonFile(S3File(at["Bucket"], at["Key"]), mode="r")

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        for failures in itertools.count(1):
            try:
                with self._told(key):
                    client().put_object(**self._at(key), Body=data, ChecksumSHA256=checksum, **condition)
                return
            except StorageError as error:
                if not _conflict(error) or failures >= ATTEMPTS:
                    raise
                pause(failures)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="corpusmill-") as folder:
            yield Path(folder)

    def publish(self, path: Path, key: str) -> None:
        if path.stat().st_size <= PART_BYTES:
            self.write(key, path.read_bytes())
        else:
            self._publish_in_parts(path, key)
        path.unlink()

    def _publish_in_parts(self, path: Path, key: str) -> None:
        """The object appears when all parts are there; a failure takes them back, a killed process leaves them to
        `sweep`."""
        at = self._at(key)
        with self._told(key):
            upload = client().create_multipart_upload(**at, ChecksumAlgorithm="SHA256")["UploadId"]
            try:
                parts = []
                with path.open("rb") as file:
                    for number, data in enumerate(iter(lambda: file.read(PART_BYTES), b""), 1):
                        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
                        part: dict[str, Any] = {"UploadId": upload, "PartNumber": number}
                        sent = client().upload_part(**at, **part, Body=data, ChecksumSHA256=checksum)
                        parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum})
                self._complete(key, upload, parts, path.stat().st_size)
            except BaseException as error:
                try:
                    client().abort_multipart_upload(**at, UploadId=upload)
                except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as second:
                    error.add_note(f"parts of {key} are left for `gc`: {second}")
                raise

    def _complete(self, key: str, upload: str, parts: list[dict[str, Any]], size: int) -> None:
        at = self._at(key)
        try:
            client().complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts})
        except client().exceptions.NoSuchUpload:
            # The answer to a first try was lost, and the second one finds the upload ended.
            if client().head_object(**at)["ContentLength"] != size:
                raise

    @contextlib.contextmanager
    def local(self, *keys: str) -> Iterator[Path]:
        with self.scratch() as folder:
            for key in keys:
                target = folder / key
                target.parent.mkdir(parents=True, exist_ok=True)
                at = self._at(key)
                with target.open("wb") as file:
                    file.writelines(pieces(at["Bucket"], at["Key"]))
            yield folder

    def exists(self, key: str) -> bool:
        try:
            with self._told(key):
                client().head_object(**self._at(key))
        except Missing:
            return False
        return True

    def list(self, prefix: str) -> Iterator[Stored]:
        root = f"{self.prefix}/" if self.prefix else ""
        below = f"{root}{prefix.rstrip('/')}/" if prefix else root
        with self._told(prefix):
            for page in client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below):
                for item in page.get("Contents", []):
                    yield Stored(item["Key"].removeprefix(root), int(item["Size"]), item["LastModified"].timestamp())

    def delete(self, keys: Iterable[str]) -> None:
        left = iter(keys)
        while batch := list(itertools.islice(left, DELETE_KEYS)):
            objects = [{"Key": self._at(key)["Key"]} for key in batch]
            with self._told(batch[0]):
                answer = client().delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})
            if errors := answer.get("Errors"):
                raise StorageError(f"{self.url}: {errors[0].get('Key')} cannot be deleted: {errors[0].get('Message')}")

    def sweep(self, before: float) -> int:
        """Abort uploads in parts that were begun before that time and never ended."""
        swept = 0
        root = f"{self.prefix}/" if self.prefix else ""
        with self._told(""):
            for page in client().get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=root):
                for upload in page.get("Uploads", []):
                    if upload["Initiated"].timestamp() < before:
                        client().abort_multipart_upload(
                            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        swept += 1
        return swept


def _conflict(error: StorageError) -> bool:
    """Two conditional writes met (409): the server asks to try again."""
    cause = error.__cause__
    if not isinstance(cause, botocore.exceptions.ClientError):
        return False
    return cause.response.get("Error", {}).get("Code") in ("409", "ConditionalRequestConflict", "OperationAborted")
