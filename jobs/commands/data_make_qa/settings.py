"""Settings of `microg data make-qa`."""

from __future__ import annotations

from pydantic import Field

from microg.config import Config


class MakeQaConfig(Config):
    """What decides the questions."""

    model: str = Field(description="A model card of 'microg vlm models', or with `base_url` a model's name.")
    base_url: str | None = Field(default=None, description="OpenAI-compatible server that has the model.")
    count: int = Field(default=6, ge=1, description="Pairs to keep of each clip; twice as many are proposed.")
    limit: int | None = Field(default=None, description="Take only the first N captions.")
    max_tokens: int = Field(default=2000, ge=1, description="Most tokens of one reply, thinking included.")
    seed: int = Field(default=0, description="Seed of sampling.")
    prompts: dict[str, str] = Field(
        default_factory=dict, description="Hashes of the prompts by name; filled in by the command."
    )
