"""Tokenizers of all three kinds: nothing lost, nothing forged, one end a document."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
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
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from operators.document import DROP, identity
from operators.tokens.backends import HuggingFace
from operators.tokens.fast import CHECKED_SHARE, GPT2_SPLIT, LLAMA3_SPLIT, O200K_SPLIT, Fast
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
        ({"name": "tiktoken:{tiktoken}", "pattern": r"(?:(?:a+)+b)(?!\S)|."}, "no pattern of linear time"),
        ({"name": "tiktoken:{tiktoken}", "pattern": "a*"}, "matches nothing at all"),
        ({"name": "tiktoken:{hf}", "pattern": "."}, "line 1 is not `base64 rank`"),
        ({"name": "sentencepiece:{hf}"}, "not a sentencepiece tokenizer"),
        ({"name": "hf:{tiktoken}"}, "not a hf tokenizer"),
        ({"name": "hf:{hf}", "eos": "</s>"}, "has no token '</s>'"),
        ({"name": "hf:{hf}", "eos": "e"}, "encodes the text 'e' as the token"),
        ({"name": "hf:{hf}", "bos": True}, "bos: .* has no token"),
        ({"name": "hf:{hf}", "vocab": 999}, "only train:bpe has a choice"),
        ({"name": "hf:{hf}", "engine": "fastokens"}, "'auto' or 'tokenizers'"),
        ({"name": "sentencepiece:{sentencepiece}", "engine": "tokenizers"}, "hf files have a choice"),
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


def split_by(pattern: str) -> Any:
    """The pre-tokenizer of byte-level files whose text is split by `pattern`."""
    if pattern == GPT2_SPLIT:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@cache
def both_engines(pattern: str) -> tuple[HuggingFace, HuggingFace]:
    """(fastokens, tokenizers) with a small vocabulary trained on text that `pattern` split."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=pattern == LLAMA3_SPLIT))
    trained.pre_tokenizer = split_by(pattern)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS, trainer)
    data = trained.to_str().encode()
    fast, plain = HuggingFace(data), HuggingFace(data, "tokenizers")
    assert (fast.engine, plain.engine) == ("fastokens", "tokenizers")
    return fast, plain


def same_ids(fast: HuggingFace, plain: HuggingFace, texts: list[str]) -> bool:
    ours, theirs = fast.encode(texts), plain.encode(texts)
    return np.array_equal(ours.lengths, theirs.lengths) and np.array_equal(ours.ids, theirs.ids)


any_text = st.text(max_size=30) | st.text(alphabet=" \n\r\t'sSlLdtTaé1२水\u0301\u017f\u180e\u200d🙂<|>", max_size=60)
split_patterns = pytest.mark.parametrize(
    "pattern", [GPT2_SPLIT, LLAMA3_SPLIT, O200K_SPLIT], ids=["gpt2", "llama3", "o200k"]
)


@split_patterns
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(any_text | st.sampled_from(SPELLINGS + CORPUS), max_size=8))
def test_both_engines_give_the_same_ids(pattern: str, texts: list[str]) -> None:
    assert same_ids(*both_engines(pattern), texts)


@split_patterns
def test_both_engines_split_at_every_kind_of_character(pattern: str) -> None:
    """With a vocabulary in which ids say where a text was split: any byte merges with each of its neighbours here."""
    byte = {chr(b): "Ġ" if b == 32 else "Ċ" if b == 10 else chr(b) for b in (32, 10, *b"aeE1.'/")}
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [p for b in list(vocab) for c in byte.values() for p in ((b, c), (c, b))]
    merges = list(dict.fromkeys(merges))
    vocab |= {token: len(vocab) + i for i, token in enumerate(dict.fromkeys("".join(pair) for pair in merges))}
    spec = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    spec.pre_tokenizer = split_by(pattern)
    spec.decoder = tokenizers.decoders.ByteLevel()
    data = spec.to_str().encode()
    fast, plain = HuggingFace(data), HuggingFace(data, "tokenizers")
    assert fast.engine == "fastokens"
    points = [*range(0x2100), *range(0x2100, 0xD800, 211), *range(0xE000, 0x110000, 997)]
    for frame in ("a{}", "{}a", "1{}", " {}", "{} ", "{}.", "'{}", "a'{}e", "\n{}", "{}\n"):
        texts = [frame.format(chr(point)) for point in points]
        assert same_ids(fast, plain, texts), frame


def test_an_engine_that_goes_wrong_is_found_out() -> None:
    """By the bytes of the ids in any document, by the ids themselves in one of CHECKED_SHARE."""
    fast, other = HuggingFace(trained_bytes()), HuggingFace(trained_bytes(400))
    assert fast._fast is not None
    assert other._fast is not None
    fast._fast._fast = other._fast._fast  # fewer merges: other ids, the same bytes
    texts = (f"{CORPUS[1]} {i} {CORPUS[3]}" for i in itertools.count())
    chosen = next(t for t in texts if xxhash.xxh3_64_intdigest(t.encode()) % CHECKED_SHARE == 0)
    rest = next(t for t in texts if xxhash.xxh3_64_intdigest(t.encode()) % CHECKED_SHARE)
    assert fast.encode([rest]).lengths[0] > 0
    with pytest.raises(ValueError, match=r"differ from token \d+ of a document on, .*engine: tokenizers"):
        fast.encode([rest, chosen, rest])
    fast._fast._widths = fast._fast._widths + 1
    with pytest.raises(ValueError, match="engine: tokenizers"):
        fast.encode(["", rest])


@pytest.mark.parametrize("change", ["normalizer", "digits", "prefix", "added", "alphabet", "wordpiece"])
def test_files_that_fastokens_is_not_known_to_read_are_left_to_tokenizers(change: str) -> None:
    spec = tokenizers.Tokenizer.from_str(trained_bytes().decode())
    if change == "normalizer":
        spec.normalizer = normalizers.NFC()
    elif change == "digits":
        spec.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), split_by(GPT2_SPLIT)])
    elif change == "prefix":
        spec.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif change == "added":
        spec.add_tokens([tokenizers.AddedToken("mill", lstrip=True)])
    elif change == "alphabet":
        spec.model = tokenizers.models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])
    else:
        spec.model = tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
    assert Fast.of(spec) is None
    assert HuggingFace(spec.to_str().encode()).engine == "tokenizers"


def test_the_engine_changes_no_output_and_is_named(files: dict[str, Path], trained: Tokenizer) -> None:
    plain = Tokenizer(name=f"hf:{files['hf']}", engine="tokenizers")
    docs = table([*CORPUS[:4], None, *SPELLINGS])
    assert plain(docs).equals(trained(docs))
    assert (plain.describe()["engine"], list(plain.describe()["versions"])) == ("tokenizers", ["tokenizers"])
    about = trained.describe()
    assert (about["engine"], list(about["versions"])) == ("fastokens", ["fastokens", "tokenizers"])
    assert not any("fastokens" in name.read_text() for name in Path("/proc/self/task").glob("*/comm"))  # no threads
