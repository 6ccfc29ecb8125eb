"""What a model with code of its own has to do for the engine: make inputs, generate, and read what came."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from microg.models.vlm.base import Request


class OwnCodeModel(ABC):
    """A loaded model, in the place of both processor and model of `microg.models.vlm.engines.transformers`.

    Attributes:
        adaptations: What its code misses in transformers 5 (see `adaptations`).
        unused: Beginnings of names of published weights that its code has no place for.
    """

    adaptations: ClassVar[tuple[str, ...]]
    unused: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Any, tokenizer: Any) -> None:
        from transformers import GenerationConfig

        self.model, self.tokenizer = model, tokenizer
        self.device, self.dtype = model.device, model.dtype
        ends = [tokenizer.convert_tokens_to_ids(text) for text in self.ends()]
        self.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[0])

    @abstractmethod
    def ends(self) -> Sequence[str]:
        """Return the tokens that end an answer, as the code says."""

    @abstractmethod
    def ask(self, request: Request) -> Mapping[str, Any]:
        """Return what the repository's own processing makes of a request: `input_ids` (1, tokens) and tensors."""

    @abstractmethod
    def answer(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Return the tokens that the repository's own `generate` adds, (1, tokens)."""

    def inputs(self, requests: Sequence[Request], options: Mapping[str, Any]) -> Any:
        """Return the inputs of one request: such code takes one at a time. There are no `options`."""
        import torch
        from transformers import BatchFeature

        (request,) = requests
        made = dict(self.ask(request))
        return BatchFeature({"attention_mask": torch.ones_like(made["input_ids"]), **made})

    def generate(self, *, stop_strings: Sequence[str] = (), tokenizer: Any = None, **inputs_and_options: Any) -> Any:
        """Return prompt and answer, (1, tokens), as models of transformers do."""
        import torch
        from transformers.generation.stopping_criteria import StopStringCriteria

        tensors = {name: value for name, value in inputs_and_options.items() if isinstance(value, torch.Tensor)}
        options = {name: value for name, value in inputs_and_options.items() if name not in tensors}
        if stop_strings:  # a repository's `generate` keeps the tokenizer that transformers needs for them
            options["stopping_criteria"] = [StopStringCriteria(self.tokenizer, list(stop_strings))]
        return torch.cat([tensors["input_ids"], self.answer(tensors, options)], dim=1)

    def get_output_embeddings(self) -> Any:
        """Return the layer that says tokens."""
        return self.model.language_model.get_output_embeddings()

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer's tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()
