"""Units that use a GPU share processes, which may die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

GPU_UNITS = """
import json, os, signal, sys
from pathlib import Path
from cluster.placement import Ask, pool_size
from cluster.session import session
from cluster.storage import open_store
from cluster.units import UnitFailed, run_units

class Unit:
    marks = Path(sys.argv[1])

    def __call__(self, number, work):
        mark = self.marks / f"killed-{number}"
        if work == "always" or (work == "once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
        return {"pid": os.getpid(), "gpus": gpus, "process": Path("/proc/self/cmdline").read_text()}

with session(cpus=3):
    store, told = open_store(sys.argv[1]), {}
    ask = Ask(gpus=1, memory=1 << 20, labels={"corpusmill/pool": "in(gpu, other)", "other": "!x"})
    asks = [(ask, 6), (ask, 1), (Ask(gpus=0.5), 6), (Ask(gpus=1, most=1), 6)]
    told["sizes"] = [pool_size(one, units) for one, units in asks]
    told["units"] = run_units(store, "x", [None, "once", None, None, None, None], Unit(), "embed[model]", ask=ask)
    try:
        run_units(store, "y", ["always"], Unit(), "embed[model]", ask=ask)
    except UnitFailed as error:
        told["failed"] = str(error)
print(json.dumps(told))
"""


def test_gpu_units_share_processes_that_may_die(tmp_path: Path) -> None:
    """With GPUs that only Ray believes in: in a Ray of its own, which the other tests have none for."""
    believed = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 2}', "RAY_OVERRIDE_LABELS": '{"corpusmill/pool": "gpu"}'}
    command = [sys.executable, "-c", GPU_UNITS, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=os.environ | believed)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["sizes"] == [2, 1, 3, 1]  # the CPUs limit the third
    units = told["units"]
    assert [record["gpu_seconds"] >= 0 and record["gpus"] in ("0", "1") for record in units] == [True] * 6
    assert len({record["pid"] for record in units}) <= 3  # two, and the one that took the place of the one that died
    assert all("MapBatches(embed[model])" in record["process"] for record in units)
    assert told["failed"] == "embed[model]: unit 0: UnitFailed: it ended its worker 3 times"
