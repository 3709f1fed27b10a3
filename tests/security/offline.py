"""Runs a command that reaches no other machine: in a network namespace of its own where the kernel allows one,
else with a hook in every Python process that refuses connections.

`python -m tests.security.offline COMMAND ...`; which of the two it was goes to standard error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
OUTSIDE = ("192.0.2.1", 80)  # of a range that is nobody's


def cut_off() -> bool:
    """Leave the network for a namespace in which there is only loopback; False where the kernel forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if user == 0 and libc.unshare(CLONE_NEWNET) == 0:
        pass
    elif libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    else:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))
    return True


def check_cut_off() -> None:
    """There is no way out; otherwise the command must not run."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as out:
        out.settimeout(2)
        if out.connect_ex(OUTSIDE) != errno.ENETUNREACH:
            raise SystemExit("there is a way out of the namespace")


def refusing() -> dict[str, str]:
    """The environment in which Python processes refuse connections."""
    folder = str(Path(__file__).with_name("refusing"))
    path = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def main(command: list[str]) -> None:
    alone = cut_off()
    if alone:
        check_cut_off()
    sys.stderr.write(f"offline: {'namespace' if alone else 'hook'}\n")
    sys.stderr.flush()
    os.execvpe(command[0], command, os.environ if alone else refusing())


if __name__ == "__main__":
    main(sys.argv[1:])
