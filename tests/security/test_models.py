"""Files that native parsers read are the very bytes that were pinned when the recipe was read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from operators.document import Pinned
from operators.models.fasttext import LID_176, FastText
from operators.text.listed import ListFile
from operators.tokens.backends import BackendFile


@pytest.mark.parametrize("kind", ["hf", "tiktoken", "sentencepiece"])
def test_a_tokenizer_that_was_replaced_is_refused_before_it_is_parsed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tokenizer"
    path.write_bytes(b"what was pinned")
    pinned = Pinned(str(path), hashlib.sha256(b"what was pinned").hexdigest())
    path.write_bytes(b"what came later")
    with pytest.raises(ValueError, match="sha256 is .*, the recipe was validated with"):
        BackendFile(kind, pinned, pattern="x").load()


def test_a_list_that_was_replaced_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "hosts"
    path.write_bytes(b"example.org\n")
    with pytest.raises(ValueError, match="sha256 is"):
        ListFile(Pinned(str(path), "0" * 64), "hosts").load()


def test_the_model_that_is_parsed_is_the_one_that_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the file is replaced between the two."""
    path = tmp_path / "model.ftz"
    path.write_bytes(Path(LID_176.path).read_bytes())
    read = Pinned.read

    def replaced(self: Pinned) -> bytes:
        data = read(self)
        path.write_bytes(b"something else")
        return data

    monkeypatch.setattr(Pinned, "read", replaced)
    labels, _ = FastText(Pinned(str(path), LID_176.sha256)).load().best(["This is a sentence in English."])
    assert labels == ["en"]
    assert path.read_bytes() == b"something else"
