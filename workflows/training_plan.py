"""What a trainer should know of a build beside its shards, as JSON: the mixture of sources, and the curriculum of
sequences of many lengths (operators/tokens/curriculum.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from cluster.storage import Store
from operators.tokens.curriculum import curriculum, mixture
from operators.tokens.pack import Pack
from workflows.shard_task import TRAIN


def write_plan(
    store: Store, folder: str, shards: Sequence[Mapping[str, Any]], sources: Mapping[str, Mapping[str, Any]], pack: Pack
) -> list[dict[str, Any]]:
    """Write `plan-….json` beside the shards; the file as manifests have it, none where nothing was tokenized."""
    if not sources:
        return []
    data = orjson.dumps(training_plan(shards, sources, pack), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{folder}/plan-{sha256[:12]}.json"
    store.write(path, data)
    return [{"path": path, "sha256": sha256, "bytes": len(data)}]


def training_plan(
    shards: Sequence[Mapping[str, Any]], sources: Mapping[str, Mapping[str, Any]], pack: Pack
) -> dict[str, Any]:
    """`mixture` by source ("" is documents without one), the weight of a source being that of its documents on average.
    Of decomposed documents also `curriculum`, for the split `train`, and `slices`: where the sequences of each length
    lie in each shard, one contiguous stretch."""
    weighed = {
        name: (own["documents"], own["tokens"], max(0.0, own["weight"]) / own["documents"])
        for name, own in sources.items()
        if own["documents"]
    }
    plan: dict[str, Any] = {"mixture": mixture(weighed)}
    if pack.layout == "windows" and pack.mode == "decompose":
        slices = list(_slices(shards))
        first = next((one["format"] for one in slices), None)
        buckets: dict[int, int] = {}
        for one in (one for one in slices if one["format"] == first):
            buckets[one["length"]] = buckets.get(one["length"], 0) + one["sequences"]
        plan |= {"curriculum": curriculum(buckets, pack.batch_tokens), "slices": slices}
    return plan


def _slices(shards: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        sequence = token = 0
        for length, sequences in shard.get("buckets", {}).items() if shard["split"] == TRAIN else ():
            at = {"length": int(length), "sequences": sequences, "first_sequence": sequence, "first_token": token}
            yield {"format": shard["format"], "path": shard["path"]} | at
            sequence += sequences
            token += int(length) * sequences
