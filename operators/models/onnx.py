"""Sessions of ONNX Runtime as all models here run: in one thread, for a worker is given one core, and the same each
time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CPU = "CPUExecutionProvider"


def session(data: bytes, providers: Sequence[str] = (CPU,), arena: bool = True) -> Any:
    """The network in an ONNX file. With an `arena`, what the largest run took is held from run to run, which is faster.
    Raises what ONNX Runtime raises for bytes that are no network."""
    import onnxruntime  # of extras

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=list(providers))
