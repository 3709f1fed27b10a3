"""A small encoder with weights by chance, saved by the libraries that save real ones."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
import transformers

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "cat",
    "dog",
    "##s",
    "sat",
    "ran",
    "query",
    ":",
    "[",
    "]",
)


def save(folder: Path, **settings: object) -> Path:
    """A BERT of two layers and 32 dimensions; `settings` are those of its configuration."""
    torch.manual_seed(0)
    settings = {"max_position_embeddings": 64, "initializer_range": 0.5} | settings
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        **settings,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tokenizer() -> tokenizers.Tokenizer:
    numbers = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_padding()  # that a file brings along, and that must not count
    made.enable_truncation(8)
    return made
