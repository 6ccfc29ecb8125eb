"""Settings of `microg data make-qa`."""

from __future__ import annotations

from pydantic import Field

from microg.config import Config


class MakeQaConfig(Config):
    """What decides the questions."""

    model: str
    base_url: str | None = None
    count: int = Field(default=6, ge=1)
    limit: int | None = None
    max_tokens: int = Field(default=2000, ge=1)
    seed: int = 0
    prompts: dict[str, str] = Field(default_factory=dict)
