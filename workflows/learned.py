"""Steps whose operators learn before they run."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.artefacts import on_disk
from cluster.storage import Store
from operators.apply import Step


class Learned(NamedTuple):
    """A step whose operator needs what it learned, an artefact of the store: each machine fetches it for itself."""

    name: str
    operator: Any
    sha256: str | None

    def step(self, store: Store) -> Step:
        if self.sha256 is None:
            return Step(self.name, self.operator)
        return Step(self.name, self.operator.with_artefact(str(on_disk(store, self.sha256)), self.sha256))
