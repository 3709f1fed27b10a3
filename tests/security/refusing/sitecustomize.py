"""On the path of a process and of all Python processes it starts: connections to other machines raise."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
    elif event == "socket.getaddrinfo":
        host = str(arguments[0] or "localhost")
    else:
        return
    try:
        outside = not ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        outside = event != "socket.getaddrinfo" and host != "localhost"  # names are only looked up
    if outside and host not in ("0.0.0.0", "::"):  # noqa: S104  (compared, not listened at)
        raise PermissionError(f"a connection to another machine: {event} {host}")


sys.addaudithook(refuse)
