"""The loading and pooling of real libraries, on a model with weights by chance: needs the extra `encoder`."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pydantic
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `encoder`: make test-encoders")
transformers = pytest.importorskip("transformers", reason="needs the extra `encoder`: make test-encoders")

from operators.document import identity, loaded  # noqa: E402
from operators.models.encoder import Encoder  # noqa: E402
from operators.text.embed import Embed  # noqa: E402
from tests.encoders import tiny  # noqa: E402

TEXTS = ["the cat sat", "", "dogs ran", "a cat " * 100, None, "the dog sat the cat ran a dog sat", "?", "\x00"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def embed(texts: list[str | None], folder: Path, **settings: object) -> pa.Table:
    model = {"path": str(folder), "max_tokens": 64} | settings
    return Embed(model=model)(table(texts))  # type: ignore[arg-type]


def rows(found: pa.Table) -> list[list[float] | None]:
    listed: list[list[float] | None] = found["embedding"].to_pylist()
    return listed


def literally(folder: Path, text: str, max_tokens: int, pooling: str = "mean") -> np.ndarray:
    """As a model's card says, by the library's own tokenizer."""
    model = transformers.BertModel.from_pretrained(folder)
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    given = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_tokens, padding=False)
    with torch.no_grad():
        states = model(**{name: given[name] for name in ("input_ids", "attention_mask")}).last_hidden_state[0]
    found = (states[0] if pooling == "cls" else states.mean(dim=0)).numpy().astype(np.float64)
    return found / np.linalg.norm(found)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("max_tokens", [6, 64])
def test_it_is_what_the_model_s_card_says(folder: Path, pooling: str, max_tokens: int) -> None:
    found = embed(TEXTS, folder, pooling=pooling, max_tokens=max_tokens)
    assert found["embedding"].type == pa.list_(pa.float16(), 32)
    for text, row in zip(TEXTS, rows(found), strict=True):
        if not text or text == "\x00":
            assert row is None
        else:
            assert np.abs(np.array(row) - literally(folder, text, max_tokens, pooling)).max() < 6e-4


def test_a_row_depends_on_its_text_alone(folder: Path) -> None:
    texts = [text for text in TEXTS if text] * 3
    together = rows(embed(texts, folder))
    assert together[5] is None
    assert together == [rows(embed([text], folder))[0] for text in texts]
    assert together[::-1] == rows(embed(texts[::-1], folder))


def test_with_the_batches_of_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded and filled up, as there, on this processor: the same to float32's error, and whatever comes beside it."""
    texts = [text for text in TEXTS if text and text != "\x00"]
    plain = np.array(rows(embed(texts, folder)))
    monkeypatch.setattr("operators.models.encoder.GPU_STEP", 16)
    monkeypatch.setattr("operators.models.encoder.GPU_TOKENS", 128)
    model = Encoder(path=str(folder), max_tokens=64).load()  # type: ignore[arg-type]
    model._batched = True
    padded = model.embed(texts)
    assert np.abs(padded - plain).max() < 6e-4
    many = texts * 7
    assert (model.embed(many) == np.tile(padded, (7, 1))).all()


def test_no_text_spells_a_special_token(folder: Path) -> None:
    said, meant = rows(embed(["cat [SEP] dog", "cat dog"], folder))
    tokens = loaded(Encoder(path=str(folder), max_tokens=64))._ids(["cat [SEP] dog"])[0]  # type: ignore[arg-type]
    assert tokens.tolist() == [2, 7, 14, 1, 15, 8, 3]
    assert said != meant


def test_a_prefix_is_read_before_each_text(folder: Path) -> None:
    assert rows(embed(["cat"], folder, prefix="query: ")) == rows(embed(["query: cat"], folder))


def test_the_head_of_a_huge_text_is_enough(folder: Path) -> None:
    assert rows(embed(["the cat " * 1_000_000], folder)) == rows(embed(["the cat " * 100], folder))


def test_the_model_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("not read")
    one = Encoder(path=str(folder), max_tokens=64)  # type: ignore[arg-type]
    other = Encoder(path=str(tmp_path / "copy"), max_tokens=64)  # type: ignore[arg-type]
    assert one != other
    assert identity(one) == identity(other)
    assert str(folder) not in str(identity(one))


def test_weights_that_changed_since_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    encoder = Encoder(path=str(tmp_path / "copy"), max_tokens=64)  # type: ignore[arg-type]
    weights = tmp_path / "copy" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="sha256 is .*, the recipe was validated with"):
        encoder.load()


def test_weights_that_are_missing_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    for name in ("pooler.dense.weight", "pooler.dense.bias"):
        del weights[name]
    save_file(weights, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    assert rows(embed(["cat"], tmp_path / "copy")) == rows(embed(["cat"], folder))
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"the weights lack encoder.layer.1.output.dense.weight"):
        Encoder(path=str(tmp_path / "copy"), max_tokens=64).load()  # type: ignore[arg-type]


def test_numbers_that_overflow_are_no_embedding(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.save(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.weight"] *= torch.inf
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert rows(embed(["cat"], folder)) == [None]


def test_nothing_is_asked_of_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise AssertionError(f"a connection: {args}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert Encoder(path=str(folder), max_tokens=64).load().dimensions == 32  # type: ignore[arg-type]


def test_the_command_that_makes_a_folder_of_a_pickled_model(folder: Path, tmp_path: Path) -> None:
    """The one in docs/operators.md, on a folder as Contriever's is."""
    model = transformers.BertModel.from_pretrained(folder)
    source = tmp_path / "pickled"
    shutil.copytree(folder, source)
    (source / "model.safetensors").unlink()
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    with pytest.raises(pydantic.ValidationError, match="pickled ones are not read"):
        Encoder(path=str(source), max_tokens=64)  # type: ignore[arg-type]
    own = transformers.AutoModel.from_pretrained(source, use_safetensors=False)
    own.save_pretrained(tmp_path / "made")
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "made")
    assert rows(embed(["the cat"], tmp_path / "made")) == rows(embed(["the cat"], folder))
