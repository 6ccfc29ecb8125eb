"""What code written for transformers 4.4x misses in transformers 5: each thing by name, and put back for one model.

Nothing of transformers is changed for other models: names that were dropped are added under their old name, and a
language model gets a class of its own between itself and the repository's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Name -> why. A run records the names that its model needs.
ADAPTATIONS = {
    "generation-mixin": "models no longer inherit `generate`: the repository's language model gets it",
    "position-ids": "`generate` makes positions for the whole text and hands them over; the code makes its own",
    "tuple-cache": "`generate` makes a cache object; the code keeps keys and values in tuples of its own",
    "cache-methods": "caches lost `seen_tokens` and `get_usable_length`, and say -1 for no largest length",
    "token-ids": "configurations no longer have the fields pad_token_id, bos_token_id and eos_token_id by default",
    "siglip-name": "SiglipVisionTransformer is called SiglipVisionModel, with the same weights",
    "plain-loading": "loading makes modules without memory and leaves buffers that no file holds (rotary angles) empty",
}


def add_names(needed: Iterable[str]) -> None:
    """Add names that modules of a repository import and that transformers has under another name."""
    if "siglip-name" in needed:
        from transformers.models.siglip import modeling_siglip

        if not hasattr(modeling_siglip, "SiglipVisionTransformer"):
            modeling_siglip.SiglipVisionTransformer = modeling_siglip.SiglipVisionModel  # pyright: ignore[reportAttributeAccessIssue]


def fill_config(config: Any, needed: Iterable[str]) -> None:
    """Give a configuration the fields that all had."""
    if "token-ids" in needed:
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if not hasattr(config, name):
                setattr(config, name, None)


def adapt_language_model(model: Any, needed: Iterable[str]) -> None:
    """Make a repository's language model one that transformers' `generate` can drive; it stays greedy by default."""
    from transformers import DynamicCache, GenerationConfig, GenerationMixin

    needed, own = set(needed), type(model)

    class OldCache(DynamicCache):
        @property
        def seen_tokens(self) -> int:
            return self.get_seq_length()

        def get_usable_length(self, new_length: int, layer_idx: int = 0) -> int:
            return self.get_seq_length(layer_idx)

        def get_max_length(self, layer_idx: int | None = None) -> Any:
            return None

    class Adapted:
        def prepare_inputs_for_generation(
            self,
            input_ids: Any,
            past_key_values: Any = None,
            attention_mask: Any = None,
            inputs_embeds: Any = None,
            position_ids: Any = None,
            **kwargs: Any,
        ) -> dict[str, Any]:
            if "position-ids" not in needed:
                kwargs["position_ids"] = position_ids
            return own.prepare_inputs_for_generation(
                self, input_ids, past_key_values, attention_mask, inputs_embeds, **kwargs
            )

        def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any) -> None:
            if "cache-methods" in needed:
                model_kwargs["past_key_values"] = OldCache()

    bases = (Adapted, own) if issubclass(own, GenerationMixin) else (Adapted, own, GenerationMixin)
    model.__class__ = type(own.__name__, bases, {"__module__": own.__module__})
    model.generation_config = GenerationConfig()
