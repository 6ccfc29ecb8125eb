"""Texts for tests of text metrics."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from microg.metrics.text import registry

WORDS = ("the", "a", "crew", "floats", "waves", "red", "blue", "suit", "hatch", "left", ".", ",", "Earth", "astronaut")


def random_items(number: int, seed: int = 0) -> tuple[list[str], list[str], list[list[str]]]:
    """Return ids, predictions (some empty) and one to three references each, with repeated words."""
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))

    said = ["" if rng.random() < 0.05 else text() for _ in range(number)]
    true = [[text() for _ in range(rng.randint(1, 3))] for _ in range(number)]
    return [f"item{place:05d}" for place in range(number)], said, true


def tiny_encoder(folder: Path, seed: int = 0) -> str:
    """Write a random two-layer BERT with a word-piece tokenizer of the letters and `WORDS`; returns its folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = [chr(code) for code in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = list(dict.fromkeys([*pieces, *(word.lower() for word in WORDS)]))
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    BertTokenizer(vocab=numbers, model_max_length=64).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def tiny_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Return settings by which every registered metric with an encoder uses the one of `tiny_encoder`."""
    same = {"model": tiny_encoder(folder), "device": "cpu", "max_tokens": 48}
    return {name: {**same, **({"layer": 2} if name == "bertscore" else {})} for name in registry.names("encoder")}
