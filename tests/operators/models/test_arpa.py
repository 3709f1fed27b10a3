from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from operators.document import Pinned, loaded
from operators.models.arpa import Arpa, Evaluator
from operators.text.language_model import LanguageModel
from operators.text.language_model_estimate import train

kenlm = pytest.importorskip("kenlm")
ARPA = b"""# {"corpusmill":"perplexity","form":1,"tokens":"words"}

\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.3
-5e-1\t</s>
-.7\ta\t-0.2
-0.75\tb\t0.125

\\2-grams:
-0.2\t<s> a\t-0.1
-0.3\ta </s>
-0.4\ta b\t-0.25
-0.5\tb a

\\3-grams:
-0.05\t<s> a b
-0.06\ta b a

\\end\\
"""


def column(*texts: str | None) -> pa.Array:
    return pa.array(texts, pa.large_string())


@pytest.mark.parametrize(
    ("text", "log_p", "tokens"),
    [
        ("a", -0.2 - 0.1 - 0.3, 2),
        ("a b a", -0.2 - 0.05 - 0.06 - 0.3, 4),
        ("b a b", -0.3 - 0.75 - 0.5 - 0.4 - 0.25 + 0.125 - 0.5, 4),
        ("zz", -0.3 - 1.5 - 0.5, 2),
        ("a\n\nA!", -0.6 - 0.2 - 0.1 - 0.2 - 1.5 - 0.5, 5),
        ("", 0.0, 0),
        (None, 0.0, 0),
        (" \n\t", 0.0, 0),
    ],
)
def test_log_probs(text: str | None, log_p: float, tokens: int, tmp_path: Path) -> None:
    logs, counts = Evaluator(ARPA).log_probs(column(text))
    assert logs[0] == pytest.approx(log_p, abs=1e-6)
    assert counts[0] == tokens
    path = tmp_path / "model.arpa"
    path.write_bytes(ARPA.replace(b"-.7", b"-0.7"))
    lines = [line.lower().replace("!", " !") for line in (text or "").split("\n") if line.strip()]
    assert logs[0] == pytest.approx(sum(map(kenlm.Model(str(path)).score, lines)), abs=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"-0.06\ta b a\n\n\\end\\\n", b"", "is cut off: it does not end"),
        (b"\\end\\", b"\\end\\ or not", "is cut off: it does not end"),
        (b"-0.06\ta b a\n\n", b"", "3-gram 2 of 2 is cut off"),
        (b"b a\n\n\\end\\\n", b"\\end\\", "3-gram 2 of 2 is cut off"),
        (b"b a\n\n\\end\\\n", "b \u6c34\\end\\".encode(), "3-gram 2 of 2 is cut off"),
        (b"ngram 3=2", b"ngram 3=1", "where .end. should be"),
        (b"ngram 3=2", b"ngram 3=3", "3-gram 3 of 3 has no number"),
        (b"ngram 3=2", b"ngram 3=99999999999", "cannot hold"),
        (b"ngram 3=2", b"ngram 4=2", "where the number of 3-grams"),
        (b"ngram 3=2", b"ngram 3=x", "where the number of 3-grams"),
        (b"\\3-grams:", b"\\4-grams:", "3-grams: should be"),
        (b"-0.75\tb", b"nan\tb", "1-gram 5 of 5 has no number"),
        (b"-0.75\tb", b"-inf\tb", "1-gram 5 of 5 has no number"),
        (b"-0.75\tb", b"0.75\tb", "1-gram 5 of 5 has a probability above 1"),
        (b"-0.75\tb", b"-0.75 b", "1-gram 5 of 5 has no number"),
        (b"0.125", b"0.1x", "1-gram 5 of 5 has no number where its backoff"),
        (b"-0.75\tb", b"-0.75\ta", "1-gram 5 of 5 is there twice"),
        (b"a b\t-0.25", b"a c\t-0.25", "2-gram 3 of 4 has a word that is no 1-gram"),
        (b"b a\n\n\\3", b"a b\n\n\\3", "2-gram 4 of 4 is there twice"),
        (b"a b a", b"a b", "3-gram 2 of 2 has more or fewer words"),
        (b"a b a", b"a b a b", "3-gram 2 of 2 has more or fewer words"),
        (b"a b a", b"a </s> a", "3-gram 2 of 2 has a suffix that is no n-gram"),
        (b"a b a", b"b b a", "3-gram 2 of 2 has a context that is no n-gram"),
        (b"-1.5\t<unk>", b"-1.5\t<UNK>", "has no <unk>"),
        (b'"form":1', b'"form":0', "form 0 of text"),
        (b"# {", b"# ", "does not say on its first line"),
        (b'"words"', b'"sentencepiece"', "does not say on its first line"),
        (b"\\data\\", b"", "is no ARPA file"),
        (ARPA, b"", "is no ARPA file"),
        (ARPA, b"mmap lm http://kheafield.com/code format version 5\n\0", "binary file of KenLM"),
        (ARPA, b"\x1f\x8b\x08 not gzip", "cannot be decompressed"),
        (ARPA, gzip.compress(ARPA)[:-9], "cannot be decompressed"),
        (ARPA, gzip.compress(bytes(1 << 20)), "times its compressed size"),
    ],
)
def test_damage_is_named(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    assert old in ARPA
    path = tmp_path / "model.arpa"
    path.write_bytes(ARPA.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        loaded(Arpa(pinned(path)))
    assert str(path) in str(caught.value)


def pinned(path: Path) -> Pinned:
    return Pinned(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def test_every_cut_and_every_flipped_byte_is_a_model_or_an_error() -> None:
    damaged = [ARPA[:n] for n in range(len(ARPA))]
    for bits in (0x01, 0x10, 0x80):
        damaged += [ARPA[:n] + bytes([ARPA[n] ^ bits]) + ARPA[n + 1 :] for n in range(len(ARPA))]
    read = 0
    for data in damaged:
        try:
            logs, _ = Evaluator(data).log_probs(column("a b a zz"))
        except ValueError:
            continue
        read += 1
        assert np.isfinite(logs[0])
    assert 0 < read < len(damaged) / 2


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_bytes(ARPA)
    before = pinned(path)
    assert Arpa(before).load().order == 3
    path.write_bytes(ARPA.replace(b"-0.06", b"-0.07"))
    with pytest.raises(ValueError, match="sha256"):
        Arpa(before).load()


def test_perplexity_has_four_digits_and_is_null_without_tokens() -> None:
    found = Evaluator(ARPA).perplexity(column("a", "", None, "b a b"))
    assert found.type == pa.float32()
    assert [value and round(value, 6) for value in found.to_pylist()] == [1.995, None, None, 4.403]
    never = ARPA.replace(b"-1.5\t<unk>", b"-1e9\t<unk>")
    assert np.isfinite(Evaluator(never).perplexity(column("zz zz zz zz"))[0].as_py())


def test_characters(tmp_path: Path) -> None:
    texts = column("the cat sat on the mat", "a dog\tsat\non 12 mats")
    path = train(texts, tmp_path / "characters.arpa", LanguageModel(order=4, tokens="characters"))
    model = Evaluator(path.read_bytes())
    assert model.tokens == "characters"
    logs, counts = model.log_probs(column("The  cat 9"))
    assert counts[0] == len("the cat 0") + 1
    spelled = " ".join("the▁cat▁0")
    assert logs[0] == pytest.approx(kenlm.Model(str(path)).score(spelled), abs=1e-5)
