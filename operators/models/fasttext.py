"""fastText classifiers (Joulin et al. 2016, arXiv:1607.01759): the packaged language model or a file of the user's.

The packaged lid.176.ftz tells 176 languages apart; NOTICE.md beside it says whose it is and under which licence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fasttext
import numpy as np
from numpy.typing import NDArray

from operators.document import Pinned

LID_176 = Pinned(
    str(Path(__file__).with_name("lid.176.ftz")), "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
)
PREFIX = "__label__"


class Classifier:
    """A loaded fastText model that gives the best label of a line."""

    def __init__(self, path: str) -> None:
        self._model = fasttext.load_model(path)
        self.labels = frozenset(label.removeprefix(PREFIX) for label in self._model.get_labels())

    def best(self, lines: Sequence[str]) -> tuple[list[str | None], NDArray[np.float64]]:
        """The most probable label of each line and its probability; None and 0 where the model says nothing.

        Calls the binding below `FastText.predict`, which returns arrays that numpy must build for every line. fastText
        ends a line at a newline, so none may be inside one.
        """
        predict = self._model.f.predict
        labels: list[str | None] = []
        scores = np.zeros(len(lines))
        for k, line in enumerate(lines):
            found = predict(line + "\n", 1, 0.0, "strict")
            labels.append(found[0][1].removeprefix(PREFIX) if found else None)
            scores[k] = min(found[0][0], 1.0) if found else 0.0  # float32 softmax can end just above 1
        return labels, scores

    def probability(self, lines: Sequence[str], label: str) -> NDArray[np.float64]:
        """The probability of `label` (without its prefix) for each line; 0 where the model says nothing. Raises
        ValueError for a label that the model does not have."""
        if label not in self.labels:
            raise ValueError(f"the model has no label {label!r}; it has {', '.join(sorted(self.labels)[:20])}")
        predict, wanted = self._model.f.predict, PREFIX + label
        scores = np.zeros(len(lines))
        for k, line in enumerate(lines):
            found = predict(line + "\n", -1, 0.0, "strict")
            scores[k] = min(next((p for p, name in found if name == wanted), 0.0), 1.0)
        return scores


@dataclass(frozen=True)
class FastText:
    """A supervised fastText model in a file, checked against its hash when it is loaded."""

    file: Pinned = LID_176

    def load(self) -> Classifier:
        """Raises ValueError for other bytes than the pinned ones, which the C++ parser never sees."""
        with open(os.memfd_create("model"), "wb") as checked:  # what was hashed, whatever happens to the file now
            checked.write(self.file.read())
            checked.flush()
            return Classifier(f"/proc/self/fd/{checked.fileno()}")
