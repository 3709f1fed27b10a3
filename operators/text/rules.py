"""Thresholds on numbers, as the rules of the text filters: one number a document beside its bound.

NaN is a number that means nothing for the document: it breaks no rule."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from operators.document import Rule

Share = Annotated[float, Field(ge=0)]
Numbers = NDArray[Any]


def below(reason: str, value: Numbers, least: float, asked: NDArray[np.bool_] | None = None) -> Rule:
    """Broken where value < least, of the documents that are asked."""
    number = value.astype(np.float64)
    broken = number < least
    return Rule(reason, broken if asked is None else broken & asked, number, float(least))


def above(reason: str, value: Numbers, most: float, asked: NDArray[np.bool_] | None = None) -> Rule:
    """Broken where value > most, of the documents that are asked."""
    number = value.astype(np.float64)
    broken = number > most
    return Rule(reason, broken if asked is None else broken & asked, number, float(most))
