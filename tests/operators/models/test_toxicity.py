"""The packaged model gives the probabilities of the package that it was taken from (tests/peers/export_toxicity.py)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.models.toxicity import FILE, windows
from tests.noise import SAMPLE

GOLDEN = Path(__file__).parents[2] / "data" / "peers" / "toxicity.npz"
WHOLE = 1 << 40  # words of a window: the text as one comment


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def column(texts: list[str | None]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def test_lines(golden: dict[str, NDArray[Any]]) -> None:
    lines = golden["lines"].tobytes().decode().split("\n")
    assert len(lines) == len(golden["of_lines"]) > 10
    assert windows(column(lines), WHOLE).probability == pytest.approx(golden["of_lines"], abs=1e-6)
    assert golden["of_lines"].max() > 0.99
    assert golden["of_lines"].min() < 0.01


def test_documents_of_the_sample(golden: dict[str, NDArray[Any]]) -> None:
    expected = golden["of_sample"]
    texts = pq.read_table(SAMPLE)["text"].slice(0, len(expected))
    assert windows(texts, WHOLE).probability == pytest.approx(expected, abs=1e-6)


def test_the_model_is_numbers_and_words() -> None:
    with np.load(FILE, allow_pickle=False) as file:
        kinds = {name: file[name].dtype.str for name in file.files}
    assert kinds == {
        "words": "|u1",
        "idf": "<f4",
        "coefficients": "<f4",
        "intercept": "<f8",
        "slope": "<f8",
        "offset": "<f8",
    }


def test_a_window_is_judged_as_a_text_of_its_words() -> None:
    words = [f"word{k}" for k in range(16)] + ["thanks", "for", "the", "idiot", "review", "editor", "you"] * 4
    found = windows(column([" ".join(words)]), 10)
    count = len(found.probability)
    assert count == round(len(words) / 10)
    cuts = [len(words) * k // count for k in range(count + 1)]
    alone = [" ".join(words[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    assert windows(column(alone), WHOLE).probability.tolist() == found.probability.tolist()
    assert found.known.sum() == windows(column(alone), WHOLE).known.sum() > 0


TEXTS = st.lists(st.none() | st.text(max_size=60) | st.sampled_from(["an idiot ", "\u0130diot", "a b c d"]), max_size=8)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 5))
def test_texts_are_cut_at_words_and_judged_by_themselves(texts: list[str | None], size: int) -> None:
    found = windows(column(texts), size)
    counts = [len(re.findall(r"(?u)\b\w\w+\b", (text or "").lower())) for text in texts]
    assert np.diff(found.bounds).tolist() == [max(1, (2 * n + size) // (2 * size)) for n in counts]
    assert ((found.probability > 0) & (found.probability < 1.0 + 1e-12)).all()
    alone = [windows(column([text]), size).probability.tolist() for text in texts]
    assert [p for part in alone for p in part] == found.probability.tolist()


def test_the_notice_names_the_file() -> None:
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert digest in FILE.with_name("NOTICE.md").read_text("utf-8")
