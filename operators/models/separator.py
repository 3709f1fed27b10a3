"""What all separators do: take a stream of samples in, and give the speech in it, in step with what came in.

A stream begins and ends where its user says, and nothing is carried from one to the next: what is given for it depends
on it alone, and not on the lengths of the pieces that it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
NONE = np.zeros(0, np.float32)


class Separator(Protocol):
    """A loaded model."""

    def speech(self, samples: Iterable[Samples], rate: int) -> Iterator[Samples]:
        """The speech in mono samples at `rate`, as many of them and in step; in pieces of any length."""


def at_rate(
    samples: Iterable[Samples], rate: int, inner: int, work: Callable[[Iterator[Samples]], Iterator[Samples]]
) -> Iterator[Samples]:
    """What `work` makes of a stream at the rate `inner`, back at `rate`, with as many samples as came in."""
    import soxr  # of the extra `speech`

    up, down = (soxr.ResampleStream(*rates, 1, "float32") for rates in ((rate, inner), (inner, rate)))
    taken = given = 0

    def raised() -> Iterator[Samples]:
        nonlocal taken
        for block in samples:
            taken += len(block)
            yield up.resample_chunk(np.ascontiguousarray(block, np.float32))
        yield up.resample_chunk(NONE, last=True)

    for block in work(raised()):
        found = down.resample_chunk(np.ascontiguousarray(block, np.float32))[: taken - given]
        given += len(found)
        yield found
    found = down.resample_chunk(NONE, last=True)[: taken - given]
    yield np.pad(found, (0, taken - given - len(found)))


class Chunk(NamedTuple):
    """Samples, of which the first `before` and the last `after` belong to the neighbours."""

    samples: Samples
    before: int
    after: int


def chunks(samples: Iterable[Samples], size: int, margin: int) -> Iterator[Chunk]:
    """A stream in chunks of `size`, each with `margin` of its neighbours; the last is filled up with silence."""
    held, before = NONE, 0
    for block in samples:
        held = np.concatenate((held, block))
        while len(held) >= before + size + margin:
            yield Chunk(held[: before + size + margin], before, margin)
            held, before = held[before + size - margin :], margin
    while len(held) > before:
        after = margin if len(held) > before + size else 0
        whole = before + size + after
        yield Chunk(np.pad(held[:whole], (0, max(0, whole - len(held)))), before, after)
        held, before = held[before + size - margin :] if after else NONE, margin
