"""A tiny model of Llama's kind with weights by chance, written by llama.cpp's own package, against its formulas."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ctranslate2
import gguf
import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray

from operators.models.gguf_folder import gguf_folder

LAYERS, HEADS, HEADS_KV, HEAD, WIDE = 2, 4, 2, 16, 96
DIMENSIONS = HEADS * HEAD
BASE, EPSILON = 100_000.0, 1e-5
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w")
BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
TOKENS = [*MARKS, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]


def tensors() -> dict[str, NDArray[np.float32]]:
    """Numbers that 8 bits with a scale for each row hold exactly."""
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        values = random.integers(-127, 128, (rows, columns))
        values[:, 0] = 127
        return (values / 512).astype(np.float32)

    found = {"token_embd.weight": matrix(len(TOKENS), DIMENSIONS)}
    found["output_norm.weight"] = random.uniform(0.5, 1.5, DIMENSIONS).astype(np.float32)
    for layer in range(LAYERS):
        shapes = {"attn_q": (DIMENSIONS, DIMENSIONS), "attn_output": (DIMENSIONS, DIMENSIONS)}
        shapes |= {part: (HEADS_KV * HEAD, DIMENSIONS) for part in ("attn_k", "attn_v")}
        shapes |= {part: (WIDE, DIMENSIONS) for part in ("ffn_gate", "ffn_up")} | {"ffn_down": (DIMENSIONS, WIDE)}
        found |= {f"blk.{layer}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{layer}.{name}.weight"] = random.uniform(0.5, 1.5, DIMENSIONS).astype(np.float32)
    return found


def write(path: Path, pre: str = "smollm", **further: NDArray[np.float32]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS_KV)
    writer.add_rope_freq_base(BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in MARKS else 1 for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, values in (tensors() | further).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(ids: list[int]) -> NDArray[Any]:
    """Of the next token, by the formulas: neighbouring dimensions turn together, as GGUF orders them."""
    weights = {name.removesuffix(".weight"): values.astype(np.float64) for name, values in tensors().items()}

    def norm(values: NDArray[Any], gamma: NDArray[Any]) -> NDArray[Any]:
        scaled: NDArray[Any] = values / np.sqrt((values**2).mean(-1, keepdims=True) + EPSILON) * gamma
        return scaled

    def turned(values: NDArray[Any], heads: int) -> NDArray[Any]:
        pairs = values.reshape(len(ids), heads, HEAD // 2, 2)
        angles = np.arange(len(ids))[:, None] * BASE ** (-2 * np.arange(HEAD // 2) / HEAD)
        waves = np.exp(1j * angles)[:, None, :] * (pairs[..., 0] + 1j * pairs[..., 1])
        return np.stack([waves.real, waves.imag], -1).reshape(len(ids), heads, HEAD)

    state = weights["token_embd"][ids]
    for layer in range(LAYERS):
        own = {name.split(".")[2]: values for name, values in weights.items() if name.startswith(f"blk.{layer}.")}
        given = norm(state, own["attn_norm"])
        queries = turned(given @ own["attn_q"].T, HEADS)
        keys = turned(given @ own["attn_k"].T, HEADS_KV).repeat(HEADS // HEADS_KV, axis=1)
        values = (given @ own["attn_v"].T).reshape(len(ids), HEADS_KV, HEAD).repeat(HEADS // HEADS_KV, axis=1)
        scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(HEAD)
        scores[:, np.triu(np.ones((len(ids), len(ids)), bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        state = state + np.einsum("hqk,khd->qhd", shares, values).reshape(len(ids), -1) @ own["attn_output"].T
        given = norm(state, own["ffn_norm"])
        gate = given @ own["ffn_gate"].T
        state = state + (gate / (1 + np.exp(-gate)) * (given @ own["ffn_up"].T)) @ own["ffn_down"].T
    found: NDArray[Any] = norm(state, weights["output_norm"]) @ weights["token_embd"].T
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    gguf_folder(write(made / "model.gguf"), made)
    return made


def test_the_numbers_are_those_of_the_formulas(folder: Path) -> None:
    model = ctranslate2.Generator(str(folder), compute_type="float32", inter_threads=1, intra_threads=1)
    ids = np.random.default_rng(1).integers(0, len(TOKENS), 12).tolist()
    found = np.array(model.forward_batch([ids]))[0]
    wanted = logits(ids)
    assert wanted.std() > 1
    assert np.abs(found - wanted).max() < 1e-3


def test_the_tokens_are_those_of_the_merges(folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = tokenizer.encode("<|im_start|>hello world 42<|im_end|>")
    assert found.tokens == ["<|im_start|>", "hello", "Ġw", *"orld", "Ġ", "4", "2", "<|im_end|>"]
    for text in ("caf\u00e9 \u65e5\u672c \U0001f600\n\ttab 3.14", "  two  spaces ", "\x00"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.decode(found.ids) == "hello world 42"  # marks are left out


def test_it_is_made_again_the_same(folder: Path, tmp_path: Path) -> None:
    gguf_folder(folder / "model.gguf", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("model.bin", "config.json", "vocabulary.json", "tokenizer.json")
    }
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.gguf: not a model of SmolLM's kind"):
        gguf_folder(write(tmp_path / "model.gguf", pre="llama-bpe"), tmp_path)
    untied = {"output.weight": tensors()["token_embd.weight"]}
    with pytest.raises(ValueError, match=r"model.gguf: not a model of SmolLM's kind"):
        gguf_folder(write(tmp_path / "model.gguf", **untied), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_missing_package_names_the_extra(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"needs the extra corpusmill\[captions\], which is not installed"):
        gguf_folder(folder / "model.gguf", tmp_path)
