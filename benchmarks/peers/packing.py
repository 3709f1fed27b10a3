"""What TRL's packing does with documents, in an environment of its own; benchmarks/packing.py starts it.

    PYTHON packing.py LENGTHS.npy SEQ_LEN

Prints JSON: CPU seconds, the least of three, and how many sequences hold how many tokens. TRL's file of packing imports
datasets and transformers for the types of other functions; empty modules stand in for them, so that it needs no torch.
"""

import importlib.metadata
import importlib.util
import json
import sys
import time
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa


class Anything(types.ModuleType):
    def __getattr__(self, name):
        return type(name, (), {})


def data_utils():
    for name in ("datasets", "transformers"):
        sys.modules[name] = Anything(name)
    found = importlib.util.find_spec("trl")
    path = Path(found.submodule_search_locations[0], "data_utils.py")
    spec = importlib.util.spec_from_file_location("trl_data_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    lengths, seq_len = np.load(sys.argv[1]), int(sys.argv[2])
    offsets = np.append(0, np.cumsum(lengths))
    tokens = pa.array(np.zeros(offsets[-1], np.int32))
    table = pa.table({"input_ids": pa.LargeListArray.from_arrays(pa.array(offsets), tokens)})
    pack = data_utils()._pack_bfd
    taken = []
    for _ in range(3):
        start = time.process_time()
        packed = pack(table, seq_len, "split")
        taken.append(time.process_time() - start)
    fills = Counter(np.diff(packed["input_ids"].chunk(0).offsets.to_numpy()).tolist())
    told = {"seconds": min(taken), "fills": sorted(fills.items()), "version": importlib.metadata.version("trl")}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
