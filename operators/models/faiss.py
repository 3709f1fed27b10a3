"""FAISS (Johnson et al. 2017, arXiv 1702.08734), from whichever of its distributions is installed.

All of them provide the module `faiss` and overwrite each other's files without a word, so there must be exactly one.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from typing import Any

PROVIDERS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12", "faiss-cuda")
EXTRAS = "corpusmill[cpu] (no GPU) or corpusmill[gpu]"


def check() -> None:
    """Raises ValueError, naming what was found and what to install, unless FAISS is there exactly once."""
    found = [name for name in PROVIDERS if _installed(name)]
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(found)} are both installed and overwrite each other's files: "
            f"`pip uninstall {' '.join(found)}`, then install {EXTRAS}"
        )
    spec = importlib.util.find_spec("faiss")
    if spec is None or spec.origin is None:  # no origin: a folder that an uninstall left behind
        raise ValueError(f"FAISS is not installed: install {EXTRAS}")


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def library() -> Any:
    """The module, limited to one thread: a worker is given one core. Raises as `check` does."""
    check()
    import faiss  # here, because most builds do without it

    faiss.omp_set_num_threads(1)
    return faiss


@functools.cache
def gpus() -> int:
    """How many GPUs this process can search on; 0 where FAISS was built without. Everything on GPUs must ask first:
    most of these calls abort the process where there is none."""
    found = library()
    return int(found.get_num_gpus()) if hasattr(found, "StandardGpuResources") else 0


@functools.cache
def gpu_knn() -> Any:
    """`knn(queries, others, k, metric)` -> (scores, rows), both [queries, k], on the first GPU, in full float32."""
    if not gpus():
        raise ValueError("there is no GPU that FAISS can search on")
    found = library()
    return functools.partial(found.knn_gpu, found.StandardGpuResources())
