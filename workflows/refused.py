"""What no recipe may hold and no environment may ask for: secrets, and leave to run code that comes with data.

A recipe is written into manifests and reports as it is, so it cannot hold what must not be read. Messages say what is
wrong and never repeat the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

UNSAFE = (
    "RAY_DATA_AUTOLOAD_",
    "RAY_DATA_WEBDATASET_ALLOW_UNSAFE_",
)  # beginnings of names: Ray unpickles where they say so
ELSEWHERE = "credentials come from the environment, a profile or the machine's role"
_KEY = re.compile(
    r"(^|[_.-])(secret|password|passwd|passphrase|credentials?|authorization|private_?key|access_?key|api_?key|apikey)"
    r"|(^|[_.-])(auth|access|session|security|bearer|api|refresh|id|hf)[_-]?token|^token$"
)
_USER = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:/{2,}([^/?#]*@|[^/?#:]*:(?!\d+(/|$))\S*@)")  # keys may hold slashes
_SIGNED = re.compile(
    r"[a-z][a-z0-9+.-]*://\S*[?&;]((x-(amz|goog)-[a-z-]+|awsaccesskeyid|googleaccessid|signature|sig|key-pair-id|policy|token"
    r"|access_token|api_?key|password|secret)=)",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHAPES = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bhf_[A-Za-z0-9]{30,}\b|\bsk-[A-Za-z0-9_-]{20,}"
)


def secret_key(name: str) -> str | None:
    """What is wrong with a key of a recipe that is named like a secret."""
    words = _CAPITAL.sub("_", name).lower()
    return f"{name!r}: a recipe holds no secrets; {ELSEWHERE}" if _KEY.search(words) else None


def secret_value(text: str) -> str | None:
    """What is wrong with a value of a recipe that holds a secret."""
    if _USER.search(text):
        return f"an address with a user name or password in it; {ELSEWHERE}"
    if found := _SIGNED.search(text):
        return f"an address that is signed, or has a secret in its query ({found[1].lower()}…); {ELSEWHERE}"
    return f"it looks like a key; {ELSEWHERE}" if _SHAPES.search(text) else None


def unsafe_setting(environment: Mapping[str, str]) -> str | None:
    """What is wrong with an environment in which Ray would unpickle what files hold."""
    for name in sorted(environment):
        if name.startswith(UNSAFE) and environment[name].strip().lower() not in ("", "0", "false"):
            return f"the environment sets {name}, which lets input files run code; unset it"
    return None
