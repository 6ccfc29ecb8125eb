"""BERTScore: greedy matching of contextual token embeddings; precision, recall and F1, mean of items.

Source: Zhang et al. 2020 as `bert-score` 0.3 computes it: roberta-large, layer 17, no idf, texts cut at 512 tokens;
RoBERTa's tokenizer sees a space before the text. Rescaled F1 puts the score of random sentences at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from microg.errors import ConfigError, WeightsError
from microg.metrics.text.encoder import (
    Encoder,
    EncoderConfig,
    EncoderInfo,
    EncoderState,
    PairScorer,
    config_of,
    loaded,
    pick_device,
)
from microg.metrics.text.hub import load_quietly, short_name, signature
from microg.reading import refuse_pointers_in

_PUBLISHED_LAYER, _PUBLISHED_TOKENS = 17, 512
_RANDOM_F1 = 0.83122575  # of random sentences, roberta-large layer 17
_SCORES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
_RESCALED = "bertscore_f1_rescaled"
_WITH_SPACE = {"roberta", "gpt2", "bart", "longformer", "xlm-roberta"}
# F1 of roberta-large at layer 17 as bert-score publishes it; another encoder or layer gives others.
_KNOWN_PAIRS = (
    (
        "28-year-old chef found dead in San Francisco mall",
        "28-Year-Old Chef Found Dead at San Francisco Mall",
        0.983356,
    ),
    (
        "A 28-year-old chef who recently moved to San Francisco was found dead in the staircase of a local shopping "
        "center.",
        "A 28-year-old chef who had recently moved to San Francisco was found dead in the stairwell of a local mall "
        "this week.",
        0.978230,
    ),
)
_KNOWN_WITHIN = 1e-4


class BertScoreConfig(EncoderConfig):
    """The token encoder of BERTScore."""

    model: str = Field(
        default="roberta-large", description="Token encoder: a folder, also at a URI, or a name on the model hub."
    )
    layer: int = Field(default=_PUBLISHED_LAYER, ge=1, description="Layer whose output is compared; the first is 1.")
    max_tokens: int = Field(default=_PUBLISHED_TOKENS, ge=3, description="Tokens of a text that are read.")
    random_f1: float | None = Field(
        default=None,
        gt=-1,
        lt=1,
        description="F1 of random sentences, which rescaling puts at 0; it is known for the paper's encoder, and "
        "without it scores are not rescaled.",
    )


class BertScoreState(EncoderState):
    """Precision, recall, F1 and rescaled F1 of each item; 0 for an empty answer. Settings as in `BertScoreConfig`."""

    columns = (*_SCORES, _RESCALED, "over_length")

    @classmethod
    def scorer(cls, **settings: Any) -> PairScorer:
        """Return this process's token encoder for the settings."""
        return loaded(load_bertscore, config_of(BertScoreConfig, settings))


def load_bertscore(config: BertScoreConfig) -> PairScorer:
    """Load a token encoder. Raises `WeightsError`, and `ConfigError` for a layer that it has not."""
    refuse_pointers_in(config.model, WeightsError)
    model, tokenizer = load_quietly(
        lambda local: _model(config, local), config.model, local_files_only=config.local_files_only
    )
    ends = {tokenizer.cls_token_id, tokenizer.sep_token_id}

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return tokenizer([text.strip() for text in texts], truncation=False, verbose=False)["input_ids"]

    def forward(ids: Any, mask: Any) -> Any:
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    def pick(row: np.ndarray, ids: list[int]) -> np.ndarray:
        tokens = row[: len(ids)]
        tokens = tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
        weight = np.array([[token not in ends] for token in ids], np.float32)
        return np.concatenate([tokens, weight], axis=1)

    encoder = Encoder(config, tokenize, forward, pad_id=tokenizer.pad_token_id or 0, pick=pick)
    made_by = (
        f"{signature('BERTScore', config.model, Path(config.model))} layer={config.layer} idf=no "
        f"max_tokens={config.max_tokens} transformers={version('transformers')}"
    )
    info = EncoderInfo(f"{short_name(config.model)}-L{config.layer}", made_by, False, _SCORES)
    scorer = PairScorer(encoder, lambda said, true: _compare(said, true, config.random_f1), len(_SCORES) + 1, info)
    random_f1 = config.random_f1
    published = (config.layer, config.max_tokens) == (_PUBLISHED_LAYER, _PUBLISHED_TOKENS)
    if published and scorer.knows(_KNOWN_PAIRS, 2, _KNOWN_WITHIN):
        info, random_f1 = replace(info, published=True), random_f1 if random_f1 is not None else _RANDOM_F1
    scores = _SCORES if random_f1 is None else (*_SCORES, _RESCALED)
    rescaled = f" random_f1={random_f1}" if random_f1 is not None else ""
    info = replace(info, scores=scores, signature=info.signature + rescaled)
    return PairScorer(encoder, lambda said, true: _compare(said, true, random_f1), len(_SCORES) + 1, info)


def _compare(said: np.ndarray, true: np.ndarray, random_f1: float | None) -> list[float]:
    """Return precision, recall, F1 and rescaled F1 (0 without `random_f1`) of arrays (t, d + 1): tokens and weight."""
    similarity = said[:, :-1] @ true[:, :-1].T
    precision = _mean(np.maximum(similarity.max(axis=1), 0), said[:, -1])
    recall = _mean(np.maximum(similarity.max(axis=0), 0), true[:, -1])
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    return [precision, recall, f1, 0.0 if random_f1 is None else (f1 - random_f1) / (1 - random_f1)]


def _mean(best: np.ndarray, weight: np.ndarray) -> float:
    total = float(weight.sum())
    return float(np.dot(best.astype(np.float64), weight.astype(np.float64))) / total if total else 0.0


def _model(config: BertScoreConfig, local_files_only: bool) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    options = {"local_files_only": local_files_only, "trust_remote_code": False}
    found = AutoConfig.from_pretrained(config.model, **options)
    layers = getattr(found, "num_hidden_layers", 0)
    if config.layer > layers:
        raise ConfigError(f"encoder {config.model} has {layers} layers, not {config.layer}", "lower the layer")
    space = {"add_prefix_space": True} if found.model_type in _WITH_SPACE else {}
    tokenizer = AutoTokenizer.from_pretrained(config.model, **options, **space)
    # layers above the one that is compared are not even loaded
    model = AutoModel.from_pretrained(config.model, num_hidden_layers=config.layer, dtype=torch.float32, **options)
    return model.eval().to(pick_device(config.device)), tokenizer
