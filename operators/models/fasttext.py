"""fastText classifiers (Joulin et al. 2016, arXiv:1607.01759): the packaged language model or a file of the user's.

The packaged lid.176.ftz tells 176 languages apart; NOTICE.md beside it says whose it is and under which licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.document import Pinned, utf8
from operators.models import fasttext_file, fasttext_kernel

LID_176 = Pinned(
    str(Path(__file__).with_name("lid.176.ftz")), "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
)
PREFIX = "__label__"
ANY = -1
Texts: TypeAlias = Sequence[str] | Any  # Arrow's own strings among them, for which pyarrow has no types


class Classifier:
    """A loaded fastText model. A text is one line to it: line breaks count as spaces; a null counts as empty.

    Labels and probabilities are those of fastText's `predict`, to 1e-5 (it adds up in float32, this in doubles), and
    depend on the text alone. Of labels that are equally probable the later one in the model is given, as fastText does.
    """

    def __init__(self, data: bytes) -> None:
        """Raises ValueError, saying what is wrong, unless `data` is a supervised model of fastText."""
        file = fasttext_file.parse(data)
        self._labels = [label.removeprefix(PREFIX) for label in file.labels]
        self._model = fasttext_kernel.model(file)
        self.labels = frozenset(self._labels)

    def best(self, texts: Texts, max_chars: int | None = None) -> tuple[list[str | None], NDArray[np.float64]]:
        """The most probable label of each text (its first `max_chars` characters) and its probability; None and 0
        where the model says nothing, as nothing in the text is known to it."""
        found, probability = self._predict(texts, max_chars, ANY)
        names = [*self._labels, None]  # -1 is the last
        return [names[k] for k in found.tolist()], probability

    def probability(self, texts: Texts, label: str, max_chars: int | None = None) -> NDArray[np.float64]:
        """The probability of `label` (without its prefix) for each text; 0 where the model says nothing. Raises
        ValueError for a label that the model does not have."""
        if label not in self.labels:
            raise ValueError(f"the model has no label {label!r}; it has {', '.join(sorted(self.labels)[:20])}")
        return self._predict(texts, max_chars, self._labels.index(label))[1]

    def _predict(
        self, texts: Texts, max_chars: int | None, label: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        column = texts if isinstance(texts, (pa.Array, pa.ChunkedArray)) else pa.array(texts, pa.large_string())
        data, offsets = utf8(column)
        limit = np.iinfo(np.int64).max if max_chars is None else max_chars
        return fasttext_kernel.predict(data, offsets, limit, label, self._model)


@dataclass(frozen=True)
class FastText:
    """A supervised fastText model in a file, checked against its hash when it is loaded."""

    file: Pinned = LID_176

    def load(self) -> Classifier:
        """Raises ValueError for other bytes than the pinned ones, which are not looked at, and for bytes that are no
        such model. A model is read by our own Python and cannot run anything (`fasttext_file`)."""
        return Classifier(self.file.read())
