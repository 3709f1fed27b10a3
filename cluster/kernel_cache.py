"""Where numba keeps a compiled kernel: below its cache folder by the place of the file in our code, not on the machine.

Numba goes by the file's path. Code that is sent to a cluster lies in another folder of every session, and would be
compiled again by all of its workers, 14 CPU seconds each. Whether what is found fits is told by the file's content.
"""

from __future__ import annotations

from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator

from cluster.session import PACKAGES


class ByPlaceInOurCode(UserProvidedCacheLocator):  # type: ignore[misc]
    """Named in NUMBA_CACHE_LOCATOR_CLASSES; files that are not ours are left to the next locator."""

    @classmethod
    def from_function(cls, py_func: object, py_file: str) -> ByPlaceInOurCode | None:
        """As numba asks: None where it does not apply."""
        return super().from_function(py_func, py_file) if _place(py_file) else None

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """The folder for a file's kernels, such as `operators_dedup`."""
        return "_".join(_place(py_file))


def _place(py_file: str) -> tuple[str, ...]:
    """The folders of a file from our package down; none for other files."""
    parts = Path(py_file).resolve().parent.parts
    first = next((n for n in reversed(range(len(parts))) if parts[n] in PACKAGES), len(parts))
    return parts[first:]
