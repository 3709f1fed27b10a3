"""In which order to train on buckets of sequences (Dataset Decomposition: Pouransari et al. 2024, arXiv 2405.13226,
section 3.2), and what a corpus is a mixture of. Plans are made here and carried out by trainers.

A step is a batch of one bucket, with as many of its sequences as make the tokens of a batch. In each of several cycles
every bucket gives its share of steps, the short ones sooner: what is drawn of a bucket at any time is by its odds among
those that the cycle has not used up. (One cycle from short to long would also go from domain to domain, whose documents
differ in length.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

CYCLES = 8


class Step(NamedTuple):
    cycle: int
    length: int
    first: int  # sequence, in the bucket
    sequences: int


def curriculum(
    buckets: Mapping[int, int], batch_tokens: int, cycles: int = CYCLES, odds: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """The plan for `buckets[length]` sequences of each length, JSON-able: `buckets`, by length, and `phases`, whose
    `steps` are numbers of steps by bucket. In a phase the odds hold to within one step; it ends when a bucket has
    nothing left for its cycle. Each sequence is used once; the last step of a bucket may be smaller.

    `odds`: weights of the buckets in whole numbers; unset: ..., 4, 2, 1 from the shortest to the longest.
    Raises ValueError where batches of `batch_tokens` cannot be made of sequences of these lengths."""
    lengths = sorted(length for length, sequences in buckets.items() if sequences)
    if cycles < 1:
        raise ValueError(f"cycles: {cycles} is less than 1")
    if odd := [length for length in lengths if batch_tokens % length or batch_tokens < 1]:
        raise ValueError(f"batch_tokens: {batch_tokens} is no multiple of {odd[0]}, the length of sequences")
    chances = [odds.get(length, 0) if odds else 1 << (len(lengths) - 1 - i) for i, length in enumerate(lengths)]
    if any(chance < 1 for chance in chances):
        raise ValueError(f"odds: {odds} must be at least 1 for each of {lengths}")
    steps = [-(-buckets[length] * length // batch_tokens) for length in lengths]
    told = [
        {"length": length, "sequences": buckets[length], "sequences_a_step": batch_tokens // length}
        | {"odds": chance, "steps": number}
        for length, chance, number in zip(lengths, chances, steps, strict=True)
    ]
    phases = []
    for cycle in range(cycles):
        left = [-(-n * (cycle + 1) // cycles) + -n * cycle // cycles for n in steps]  # what is left over comes early
        while any(left):
            first = min((i for i, n in enumerate(left) if n), key=lambda i: left[i] / chances[i])
            taken = [min(n, left[first] * chances[i] // chances[first]) for i, n in enumerate(left)]
            left = [n - m for n, m in zip(left, taken, strict=True)]
            phases.append({"cycle": cycle, "steps": taken})
    return {"batch_tokens": batch_tokens, "cycles": cycles, "buckets": told, "phases": phases}


def steps(plan: Mapping[str, Any]) -> Iterator[Step]:
    """The steps of a plan in order. After each of a phase, what was taken of every bucket is within one step of its
    share: of N steps, n of a bucket, its k-th is due from step k N / n to (k + 1) N / n, and the most urgent goes
    first."""
    buckets = plan["buckets"]
    used = [0] * len(buckets)
    for phase in plan["phases"]:
        total = sum(phase["steps"])
        taken = [0] * len(buckets)
        for now in range(total):
            due = [
                (-(-(k + 1) * total // n), i)
                for i, (k, n) in enumerate(zip(taken, phase["steps"], strict=True))
                if k < n and k * total // n <= now
            ]
            _, i = min(due)
            sequences = min(buckets[i]["sequences_a_step"], buckets[i]["sequences"] - used[i])
            yield Step(phase["cycle"], buckets[i]["length"], used[i], sequences)
            used[i] += sequences
            taken[i] += 1


def mixture(sources: Mapping[str, tuple[int, int, float]]) -> dict[str, dict[str, float]]:
    """Of each source's (documents, tokens, weight): its `documents` and `tokens`, the `share` of all tokens, the
    `probability` that a token read is of it where a token counts `weight` times, and the `epochs` it is then read while
    as many tokens are read as there are."""
    for name, (_, _, weight) in sources.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight: {weight} of source {name!r} is no number of at least 0")
    total = sum(tokens for _, tokens, _ in sources.values())
    weighted = sum(tokens * weight for _, tokens, weight in sources.values())
    return {
        name: {
            "documents": documents,
            "tokens": tokens,
            "share": tokens / total if total else 0.0,
            "probability": tokens * weight / weighted if weighted else 0.0,
            "epochs": weight * total / weighted if weighted else 0.0,
        }
        for name, (documents, tokens, weight) in sources.items()
    }
