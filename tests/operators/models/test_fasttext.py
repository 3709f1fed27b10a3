from __future__ import annotations

from pathlib import Path

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


def test_identity_is_the_content() -> None:
    assert identity(FastText())["file"] == {"sha256": LID_176.sha256}


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ftz"
    path.write_bytes(b"not the model")
    with pytest.raises(ValueError, match="sha256"):
        FastText(Pinned(str(path), LID_176.sha256)).load()
