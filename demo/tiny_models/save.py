"""Writing a tiny model's folder: weights from a seed, and an output layer that only says readable text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microg.demo.tiny_models.own_code import OwnCode
from microg.demo.tiny_models.readable import is_readable
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import END, PAD


@dataclass(frozen=True)
class Parts:
    """What an architecture's module makes. rename: patterns in the names of stored weights -> what hubs call them."""

    model_class: Any
    config: Any
    processor: Any
    rename: dict[str, str] = field(default_factory=dict)


def language_model(kind: str, tokenizer: Any, size: Size) -> dict[str, Any]:
    """Return the configuration of a language model of transformers' type `kind`, such as llama or qwen2."""
    end, pad = tokenizer.convert_tokens_to_ids([END, PAD])
    return {
        "model_type": kind,
        "vocab_size": len(tokenizer),
        **language_model_sizes(size),
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "tie_word_embeddings": False,
    }


def language_model_sizes(size: Size) -> dict[str, Any]:
    """Return the part of a language model's configuration that says how large it is, but for its vocabulary."""
    return {
        "hidden_size": size.hidden,
        "intermediate_size": 2 * size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": size.context,
    }


def clip_encoder(size: Size, patch: int) -> dict[str, Any]:
    """Return the configuration of CLIP's picture encoder for patches of `patch` pixels."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": size.vision_hidden,
        "intermediate_size": 2 * size.vision_hidden,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
        "image_size": size.side,
        "patch_size": patch,
        "projection_dim": size.vision_hidden,
    }


def siglip_encoder(size: Size, patch: int) -> dict[str, Any]:
    """Return the configuration of SigLIP's picture encoder for patches of `patch` pixels, without its head."""
    sizes = {name: value for name, value in clip_encoder(size, patch).items() if name != "projection_dim"}
    return {**sizes, "model_type": "siglip_vision_model", "vision_use_head": False}


def write(
    make: Callable[[Sequence[str], Size, Sequence[str]], Parts | OwnCode],
    folder: Path,
    seed: int,
    texts: Sequence[str],
    size: Size,
    phrases: Sequence[str] = (),
) -> Path:
    """Write config, weights, tokenizer and processor to `folder` (see `microg.demo.tiny_models.build`)."""
    import torch
    from transformers import GenerationConfig

    parts = make(texts, size, phrases)
    if isinstance(parts, OwnCode):
        return parts.write(folder, seed, size)
    tokenizer = parts.processor.tokenizer
    if size.spread is not None:
        for config in (parts.config, parts.config.get_text_config(), parts.config.vision_config):
            config.initializer_range = size.spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = parts.model_class(parts.config)
    silent = [token for token in range(parts.config.get_text_config().vocab_size) if not is_readable(tokenizer, token)]
    with torch.no_grad():
        model.get_output_embeddings().weight[silent] = 0.0
    ends = tokenizer.convert_tokens_to_ids([END, PAD])
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[1], do_sample=False)
    save(model, parts.processor, folder)
    if parts.rename:
        _rename(folder / "model.safetensors", parts.rename)
    return folder


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a model and its processor to `folder` in the Hugging Face layout, without a progress bar."""
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars away from standard error, where they would stand for milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _rename(file: Path, patterns: dict[str, str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    for pattern, replacement in patterns.items():
        weights = {re.sub(pattern, replacement, name): value for name, value in weights.items()}
    save_file(weights, file, metadata={"format": "pt"})
