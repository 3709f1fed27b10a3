"""Talking to object storage: one client a process, requests sent again while that may help, errors in our words.

Everything about the server and its credentials comes from the usual AWS settings (environment, profile, instance
role; `AWS_ENDPOINT_URL` for any server that speaks S3): no address and no key is ever in a task, a file or a log.
"""

from __future__ import annotations

import functools
import os
import random
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

import boto3
import botocore.config
import botocore.exceptions
import botocore.parsers
import botocore.session

from cluster.storage import AlreadyExists, Forbidden, Missing, StorageError, is_unicode

ATTEMPTS = 10  # of one request, half a minute in all; `AWS_MAX_ATTEMPTS` or `max_attempts` of the profile changes it
LONGEST_PAUSE = 20  # seconds
READ_TIMEOUT = 60  # seconds without a byte
LISTED_KEYS = 1000  # in one request, as many as servers allow
CONNECTIONS = 32  # kept open, for as many threads

_MISSING = ("404", "NoSuchKey", "NotFound")
_TAKEN = ("412", "PreconditionFailed")
_PASSING = ("SlowDown", "RequestTimeout", "BadDigest", "InternalError")
_PASSING_STATUS = (409, 429, 500, 502, 503, 504)  # 409: two conditional writes met
_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.TokenRetrievalError,
    botocore.exceptions.NoAuthTokenError,
    botocore.exceptions.SSOError,
)
_UNREACHED = (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError)
_GARBLED = (
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ChecksumError,
    botocore.exceptions.FlexibleChecksumError,
    botocore.parsers.ResponseParserError,
)


class _Connection(NamedTuple):
    client: Any
    attempts: int  # of one request


_creating = threading.Lock()


def _connection() -> _Connection:
    with _creating:
        return _connected(os.getpid())


def forget() -> None:
    """Have the AWS settings looked up again at the next request."""
    _connected.cache_clear()


def _after_fork() -> None:
    global _creating
    _creating = threading.Lock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)


@functools.lru_cache(maxsize=1)
def _connected(_pid: int) -> _Connection:
    settings: dict[str, Any] = {
        "connect_timeout": 10,
        "read_timeout": READ_TIMEOUT,
        "max_pool_connections": CONNECTIONS,
        "retries": {"total_max_attempts": 1},  # `call` sends again: botocore gives up early where threads fail together
    }
    try:
        core = botocore.session.get_session()
        attempts = int(core.get_config_variable("max_attempts") or ATTEMPTS)
        session = boto3.session.Session(botocore_session=core)
        client = session.client("s3", config=botocore.config.Config(**settings))
        if "amazonaws.com" not in client.meta.endpoint_url and "addressing_style" not in (client.meta.config.s3 or {}):
            # Other servers seldom have a host name for each bucket.
            path_style = botocore.config.Config(**settings, s3={"addressing_style": "path"})
            client = session.client("s3", config=path_style)
    except botocore.exceptions.BotoCoreError as error:
        kind = Forbidden if isinstance(error, _NO_CREDENTIALS) else StorageError
        raise kind(f"AWS settings: {error}") from error
    except ValueError:  # it repeats what may be an address with a password in it
        raise StorageError("AWS settings: max_attempts is no number, or the endpoint url no address") from None
    return _Connection(client, attempts)


def call(what: str, operation: str, **request: Any) -> Any:
    """The server's answer to a request of boto3, sent again while it fails in ways that pass.

    Raises StorageError, naming `what`. A write may have been done though it failed, and more than once.
    """
    client, limit = _connection()
    failures = 0
    while True:
        try:
            return getattr(client, operation)(**request)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            failures += 1
            if failures >= limit or not _passes(error):
                raise _translated(what, error, client, failures) from error
        pause(failures)


def attempts() -> int:
    """How often a request is sent before it has failed."""
    return _connection().attempts


def pause(failures: int) -> None:
    """Wait before the next try, longer after each failure."""
    time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**failures)))  # noqa: S311


def code_of(error: BaseException | None) -> str:
    """The server's word for an error, or for what caused it; empty where the server said nothing."""
    if isinstance(error, botocore.exceptions.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return code_of(error.__cause__) if isinstance(error, StorageError) else ""


def _passes(error: Exception) -> bool:
    if isinstance(error, botocore.exceptions.ClientError):
        return code_of(error) in _PASSING or _status(error) in _PASSING_STATUS
    if isinstance(error, botocore.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    return isinstance(error, (*_UNREACHED, *_GARBLED))


def _status(error: botocore.exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _translated(what: str, error: Exception, client: Any, sent: int) -> StorageError:
    often = f" ({sent} attempts)" if sent > 1 else ""
    if isinstance(error, botocore.exceptions.ClientError):
        code, message = code_of(error), error.response.get("Error", {}).get("Message", "")
        kind: type[StorageError] = StorageError
        if code in _MISSING:
            kind = Missing
        elif code in _TAKEN:
            kind = AlreadyExists
        elif _status(error) in (401, 403) or code.startswith("ExpiredToken"):
            kind = Forbidden
        return kind(f"{what}: {code}: {message}{often}" if message and message != code else f"{what}: {code}{often}")
    if isinstance(error, _NO_CREDENTIALS):
        return Forbidden(f"{what}: no AWS credentials on this machine: {error}")
    if isinstance(error, _UNREACHED):  # without its text, which repeats an address that may hold a password
        address = urllib.parse.urlsplit(client.meta.endpoint_url)
        port = f":{address.port}" if address.port else ""
        return StorageError(f"{what}: no answer from {address.hostname}{port}: {type(error).__name__}{often}")
    return StorageError(f"{what}: {error}{often}")


def split_url(url: str) -> tuple[str, str]:
    """(bucket, key) of `s3://bucket/key`. Raises StorageError, which does not repeat what may be a secret."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if "@" in bucket or ":" in bucket:
        raise StorageError("s3://…: a bucket's address holds no keys; they come from the AWS settings of the machine")
    if "X-Amz-" in key:
        raise StorageError("s3://…: a signed address; credentials come from the AWS settings of the machine")
    if not bucket:
        raise StorageError(f"{url!r}: not s3://bucket/path")
    if not is_unicode(key):
        raise StorageError(f"{url!r}: not Unicode")
    return bucket, key


def listed(bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """What the server says of the objects whose keys start so."""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": LISTED_KEYS}
    while True:
        page = call(f"s3://{bucket}/{prefix}", "list_objects_v2", **request)
        yield from page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
