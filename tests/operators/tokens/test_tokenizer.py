"""Tokenizers of all three kinds: nothing lost, nothing forged, one end a document."""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pydantic
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.document import DROP, identity
from operators.tokens.tokenizer import Fitted, Tokenizer, _source

CORPUS = [
    "The mill turns when the river rises, and the miller sleeps when it falls.",
    "Die Mühle dreht sich, wenn der Fluss steigt. 水车转动。 Ровно в полдень.",
    "def mill(grain):\n    return [crush(g) for g in grain if g]\n\n\n",
    "Prices rose by 12.5% in 2021, by 3.1% in 2022 and fell thereafter; see table 4.",
] * 5
SPELLINGS = [
    "<|endoftext|>",
    "a<|endoftext|>b",
    "<|endoftext|><|endoftext|>",
    " <|endoftext|> \n<|endoftext|>",
    "<s>text</s>",
    "</s>",
    "<|startoftext|>x<|im_end|><pad>[PAD]<unk>",
    "<0x00>\u2581</s>\u2581",
]
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def table(texts: list[str | None]) -> pa.Table:
    ids = pa.array([str(i) for i in range(len(texts))], pa.string())
    return pa.table({"id": ids, "text": pa.array(texts, pa.large_string())})


@cache
def trained_bytes(vocab: int = 500) -> bytes:
    return Tokenizer(name="train:bpe", vocab=vocab).fit(table(list(CORPUS))["text"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokenizers")
    paths = {kind: folder / kind for kind in ("hf", "tiktoken", "sentencepiece")}
    paths["hf"].write_bytes(trained_bytes())
    pieces = [bytes([b]) for b in range(256)] + [b"th", b"the", b" the", b"<|", b"|>", b"end"]
    paths["tiktoken"].write_bytes(b"".join(base64.b64encode(p) + b" %d\n" % i for i, p in enumerate(pieces)))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    paths["sentencepiece"].write_bytes(model.getvalue())
    return paths


@pytest.fixture(scope="module")
def trained(files: dict[str, Path]) -> Tokenizer:
    digest = hashlib.sha256(trained_bytes()).hexdigest()
    return Tokenizer(name="train:bpe", vocab=500).with_artefact(str(files["hf"]), digest)


@pytest.fixture(params=["train", "hf", "tiktoken", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, files: dict[str, Path], trained: Tokenizer) -> Tokenizer:
    kind = request.param
    if kind == "train":
        return trained
    pattern = {"pattern": GPT2_PATTERN} if kind == "tiktoken" else {}
    return Tokenizer(name=f"{kind}:{files[kind]}", **pattern)


def test_spelling_a_special_token_never_makes_one(tokenizer: Tokenizer) -> None:
    eos = tokenizer.describe()["eos_id"]
    done = tokenizer(table(SPELLINGS))
    assert done["drop_reason"].null_count == len(SPELLINGS)
    for ids, count in zip(done["input_ids"].to_pylist(), done["tokens"].to_pylist(), strict=True):
        assert len(ids) == count
        assert ids[-1] == eos
        assert ids.count(eos) == 1


def test_ids_fit_the_vocabulary_and_decode_to_the_text(tokenizer: Tokenizer) -> None:
    about = tokenizer.describe()
    done = tokenizer(table(CORPUS[:4]))
    assert done["input_ids"].type == pa.large_list(pa.uint16())
    assert about["dtype"] == "uint16"
    assert max(map(max, done["input_ids"].to_pylist())) < about["vocab_size"]
    if tokenizer.source.kind != "sentencepiece":  # which normalises blanks
        assert [tokenizer.backend().decode(ids[:-1]) for ids in done["input_ids"].to_pylist()] == CORPUS[:4]


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), (None, "empty"), ("x", None), (" ", None), ("\0", None), ("\ufeff", None)]
)
def test_reasons(text: str | None, reason: str | None, trained: Tokenizer) -> None:
    done = trained(table(["before", text, "after"]))
    assert done["drop_reason"].to_pylist() == [None, reason, None]
    assert done["drop_value"].to_pylist()[1] == (0 if reason else None)
    assert done["drop_threshold"].to_pylist()[1] == (1 if reason else None)
    if reason:
        assert done["input_ids"][1].as_py() == []
        assert done["tokens"][1].as_py() == 0


def test_text_that_exhausts_the_pattern_is_dropped_and_others_stay(files: dict[str, Path]) -> None:
    blanks = " " * 1_000_000
    done = Tokenizer(name=f"tiktoken:{files['tiktoken']}", pattern=GPT2_PATTERN)(table(["a", blanks, "b"]))
    assert done["drop_reason"].to_pylist() == [None, "unencodable", None]
    assert done["drop_value"].to_pylist()[1] == len(blanks)
    assert done["tokens"].to_pylist() == [2, 0, 2]


def test_a_text_that_yields_the_end_after_all_is_dropped(tmp_path: Path) -> None:
    """A normaliser can make the end of other words, which no probe at loading time can know."""
    spec = orjson.loads(trained_bytes())
    spec["model"]["vocab"] |= {"QQ": len(spec["model"]["vocab"])}
    spec["model"]["merges"] += [["Q", "Q"]]
    path = tmp_path / "tokenizer.json"
    path.write_bytes(orjson.dumps(spec))
    with pytest.raises(pydantic.ValidationError, match="encodes the text 'QQ' as the token"):
        Tokenizer(name=f"hf:{path}", eos="QQ")
    replace = [{"type": "Replace", "pattern": {"String": a}, "content": b} for a, b in (("Q", ""), ("END", "QQ"))]
    spec["normalizer"] = {"type": "Sequence", "normalizers": replace}
    path.write_bytes(orjson.dumps(spec))
    done = Tokenizer(name=f"hf:{path}", eos="QQ")(table(["fine", "the END END", "QQ", "fine"]))
    assert done["drop_reason"].to_pylist() == [None, "forged_eos", "empty", None]
    assert done["drop_value"].to_pylist()[1] == 2
    assert done["tokens"].to_pylist()[1:3] == [0, 0]
    assert done["input_ids"][0] == done["input_ids"][3]


def test_a_file_s_own_truncation_padding_and_template_are_off(tmp_path: Path, trained: Tokenizer) -> None:
    spec = tokenizers.Tokenizer.from_str(trained_bytes().decode())
    spec.enable_truncation(4)
    spec.enable_padding(length=50)
    spec.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    path = tmp_path / "tokenizer.json"
    spec.save(str(path))
    texts = table(CORPUS[:4])
    assert Tokenizer(name=f"hf:{path}")(texts).equals(trained(texts))


def test_training_gives_the_same_bytes_in_any_order() -> None:
    again = Tokenizer(name="train:bpe", vocab=500).fit(table(CORPUS[::-1])["text"])
    assert again == trained_bytes()


def test_fitting_protocol(files: dict[str, Path], trained: Tokenizer) -> None:
    unfitted = Tokenizer()
    assert isinstance(unfitted, Fitted)
    assert not unfitted.fitted
    with pytest.raises(ValueError, match="has not been trained"):
        unfitted(table(["x"]))
    assert trained.fitted
    about = trained.describe()
    assert about["name"] == "train:bpe"
    assert about["pad_id"] != about["eos_id"]
    with pytest.raises(ValueError, match="sha256"):
        Tokenizer().with_artefact(str(files["hf"]), "0" * 64)


def test_identity_is_the_content_not_the_path(files: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.json"
    moved.write_bytes(files["hf"].read_bytes())
    assert identity(Tokenizer(name=f"hf:{files['hf']}")) == identity(Tokenizer(name=f"hf:{moved}"))
    assert str(moved) not in str(identity(Tokenizer(name=f"hf:{moved}")))


def test_beginning_of_document(files: dict[str, Path]) -> None:
    tokenizer = Tokenizer(name=f"sentencepiece:{files['sentencepiece']}", bos=True)
    about = tokenizer.describe()
    for ids in tokenizer(table(["one <s> two", "three"]))["input_ids"].to_pylist():
        assert (ids[0], ids[-1]) == (about["bos_id"], about["eos_id"])
        assert ids.count(about["bos_id"]) == 1


def test_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ranks"
    path.write_bytes(b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)))
    tokenizer = Tokenizer(name=f"tiktoken:{path}", pattern=GPT2_PATTERN, special={"<|endoftext|>": 65_499})
    assert tokenizer.describe()["dtype"] == "int32"
    assert tokenizer(table(["x"]))["input_ids"].to_pylist() == [[ord("x"), 65_499]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "hf:/no/such/file"}, "no such file"),
        ({"name": "gpt2"}, "'gpt2' is none of"),
        ({"name": "train:unigram"}, "'train:unigram' is none of"),
        ({"name": "hf:"}, "'hf:' is none of"),
        ({"name": "train:bpe", "pattern": "x"}, "only tiktoken files take them"),
        ({"name": "train:bpe", "vocab": 10}, "greater than or equal to 300"),
        ({"name": "tiktoken:{tiktoken}"}, "needs the pattern"),
        ({"name": "tiktoken:{tiktoken}", "pattern": "("}, "not a tiktoken tokenizer"),
        ({"name": "tiktoken:{hf}", "pattern": "."}, "line 1 is not `base64 rank`"),
        ({"name": "sentencepiece:{hf}"}, "not a sentencepiece tokenizer"),
        ({"name": "hf:{tiktoken}"}, "not a hf tokenizer"),
        ({"name": "hf:{hf}", "eos": "</s>"}, "has no token '</s>'"),
        ({"name": "hf:{hf}", "eos": "e"}, "encodes the text 'e' as the token"),
        ({"name": "hf:{hf}", "bos": True}, "bos: .* has no token"),
        ({"name": "hf:{hf}", "vocab": 999}, "only train:bpe has a choice"),
    ],
)
def test_bad_parameters_are_named(fields: dict[str, Any], message: str, files: dict[str, Path]) -> None:
    name = fields["name"].format(**{kind: str(path) for kind, path in files.items()})
    with pytest.raises(pydantic.ValidationError, match=message):
        Tokenizer(**{**fields, "name": name})


def test_recipe_gives_the_source_by_name() -> None:
    adapter = pydantic.TypeAdapter(Tokenizer)
    given_by_recipe = adapter.validate_json(b'{"name": "train:bpe", "vocab": 400}', strict=True)
    assert given_by_recipe.source == _source("train:bpe")
    assert Tokenizer.name == "tokenizer"
    schema = adapter.json_schema()["properties"]["name"]
    assert (schema["type"], schema["default"]) == ("string", "train:bpe")


texts = st.lists(
    st.one_of(
        st.none(),
        st.text(max_size=40),
        st.sampled_from(SPELLINGS),
        st.tuples(st.sampled_from(SPELLINGS), st.text(max_size=5)).map("".join),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(texts=texts, cut=st.integers(0, 12))
def test_slices_agree_and_bytes_return(trained: Tokenizer, texts: list[str | None], cut: int) -> None:
    tokenizer = trained
    docs = table(texts)
    whole = tokenizer(docs)
    halves = pa.concat_tables([tokenizer(docs.slice(0, cut)), tokenizer(docs.slice(cut))])
    assert whole.combine_chunks().equals(halves.combine_chunks())
    assert tokenizer(pa.concat_tables([docs.slice(0, cut), docs.slice(cut)])).combine_chunks().equals(whole)
    assert whole.select(["id", "text"]).equals(docs)
    for text, ids in zip(texts, whole["input_ids"].to_pylist(), strict=True):
        if text:
            assert ids[-1] == 0
            assert 0 not in ids[:-1]
            assert tokenizer.backend().decode(ids[:-1]) == text
        else:
            assert ids == []


def test_empty_table(trained: Tokenizer) -> None:
    done = trained(table([]))
    assert done.num_rows == 0
    assert set(done.column_names) == {"id", "text", "input_ids", "tokens", *DROP.names} - {"duplicate_of"}
    assert done["tokens"].type == pa.int64()
    assert np.array_equal(done["tokens"].to_numpy(), [])
