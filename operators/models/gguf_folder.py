"""A language model's GGUF file (llama.cpp's format) as a folder that CTranslate2 reads.

For models of Llama's kind, such as SmolLM2, with a byte-level BPE. GGUF has the rows of queries and keys in the order
that rotates neighbouring dimensions together, which CTranslate2 calls interleaved: no row has to be moved. The numbers
are made by numpy alone, in 8 bits with a scale for each row: any processor gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

CONTROL = 3  # gguf.TokenType: marks such as <|im_start|>
PRE_TOKENIZER = "smollm"  # digits apart, then GPT-2's words


def gguf_folder(file: Path, folder: Path) -> None:
    """Write model.bin, config.json, vocabulary.json and tokenizer.json. Raises ValueError where the packages that read
    and write them are missing, or where the model is of another kind."""
    try:
        import ctranslate2.specs
        import gguf
    except ModuleNotFoundError as error:
        raise ValueError(f"needs the extra corpusmill[captions], which is not installed ({error})") from None

    reader = gguf.GGUFReader(file)
    said = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    kind = said["general.architecture"], said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]
    if kind != ("llama", "gpt2", PRE_TOKENIZER) or "output.weight" in tensors:
        raise ValueError(f"{file}: not a model of SmolLM's kind")

    def values(name: str) -> NDArray[np.float32]:
        tensor = tensors[name]
        found: NDArray[np.float32] = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        return found

    spec = ctranslate2.specs.TransformerDecoderModelSpec.from_config(
        said["llama.block_count"],
        said["llama.attention.head_count"],
        activation=ctranslate2.specs.Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,  # all of them
        rotary_interleave=True,
        rotary_base=said["llama.rope.freq_base"],
        num_heads_kv=said["llama.attention.head_count_kv"],
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = values("token_embd.weight")
    decoder.projection.weight = decoder.embeddings.weight
    decoder.layer_norm.gamma = values("output_norm.weight")
    for number, layer in enumerate(decoder.layer):
        block = f"blk.{number}."
        attention, ffn = layer.self_attention, layer.ffn
        attention.layer_norm.gamma = values(f"{block}attn_norm.weight")
        attention.linear[0].weight = np.concatenate([values(f"{block}attn_{part}.weight") for part in "qkv"])
        attention.linear[1].weight = values(f"{block}attn_output.weight")
        ffn.layer_norm.gamma = values(f"{block}ffn_norm.weight")
        ffn.linear_0.weight = values(f"{block}ffn_gate.weight")
        ffn.linear_0_noact.weight = values(f"{block}ffn_up.weight")
        ffn.linear_1.weight = values(f"{block}ffn_down.weight")

    tokens = said["tokenizer.ggml.tokens"]
    spec.register_vocabulary(tokens)
    for mark in ("bos", "eos", "unk"):
        name = {"unk": "unknown"}.get(mark, mark)
        setattr(spec.config, f"{mark}_token", tokens[said[f"tokenizer.ggml.{name}_token_id"]])
    spec.config.layer_norm_epsilon = round(said["llama.attention.layer_norm_rms_epsilon"], 10)  # of a float32
    spec.validate()
    spec.optimize("int8_float32")
    spec.save(str(folder))
    _tokenizer(said).save(str(folder / "tokenizer.json"), pretty=False)


def _tokenizer(said: dict[str, Any]) -> tokenizers.Tokenizer:
    """The byte-level BPE that GGUF's metadata lists."""
    tokens = said["tokenizer.ggml.tokens"]
    numbers = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in said["tokenizer.ggml.merges"]]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, merges))
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, byte_level])
    made.decoder = tokenizers.decoders.ByteLevel()
    kinds = zip(tokens, said["tokenizer.ggml.token_type"], strict=True)
    made.add_special_tokens([token for token, kind in kinds if kind == CONTROL])
    return made
