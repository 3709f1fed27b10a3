from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from operators.document import Pinned, identity, loaded
from operators.models.fasttext import LID_176, FastText


def test_packaged_model() -> None:
    model = loaded(FastText())
    labels, scores = model.best(["This is a sentence in English.", "Das ist ein deutscher Satz.", ""])
    assert labels[:2] == ["en", "de"]
    assert (scores[:2] > 0.8).all()
    assert (scores <= 1).all()
    assert len(model.labels) == 176
    assert loaded(FastText()) is model


def test_texts_of_any_kind() -> None:
    """Line breaks are spaces, a null is empty, and `max_chars` counts characters."""
    model = loaded(FastText())
    texts = ["Das ist\nein deutscher Satz.", None, "水水水水This is a sentence in English."]
    flat = ["Das ist ein deutscher Satz.", "", "水水水水This is a sentence in English."]
    expected = model.best(flat)
    for dtype in (pa.string(), pa.large_string()):
        array = pa.array(texts, dtype)
        for column in (array, pa.chunked_array([array[:1], array[1:]]), pa.array(["x", *texts], dtype)[1:]):
            labels, scores = model.best(column)
            assert labels == expected[0]
            assert scores.tolist() == expected[1].tolist()
    assert model.best([]) == ([], pytest.approx(np.zeros(0)))
    assert model.best(pa.chunked_array([], pa.string()))[0] == []
    assert model.best(flat, max_chars=4)[0][2] == model.best(["水水水水"])[0][0]
    assert model.best(flat, max_chars=4)[0][2] != labels[2]


def test_probability_of_a_label() -> None:
    model = loaded(FastText())
    texts = ["This is a sentence in English.", "Das ist ein deutscher Satz.", ""]
    labels, scores = model.best(texts)
    english = model.probability(pa.array(texts), "en")
    assert labels[:2] == ["en", "de"]
    assert english.dtype == np.float64
    assert english[0] == pytest.approx(scores[0])
    assert english[1] < 0.1
    assert model.probability(["This is" + texts[1]], "en", max_chars=7)[0] == model.probability(["This is"], "en")[0]
    with pytest.raises(ValueError, match="the model has no label 'eng'; it has af, als, "):
        model.probability(texts, "eng")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"not the model")
    with pytest.raises(ValueError, match="not a fastText model: its first four"):
        FastText(Pinned(str(path), hashlib.sha256(b"not the model").hexdigest())).load()


def test_identity_is_the_content() -> None:
    assert identity(FastText())["file"] == {"sha256": LID_176.sha256}


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ftz"
    path.write_bytes(b"not the model")
    with pytest.raises(ValueError, match="sha256"):
        FastText(Pinned(str(path), LID_176.sha256)).load()
