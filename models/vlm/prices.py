"""What tokens cost: a dated table of prices, and how many tokens a picture is."""

from __future__ import annotations

import datetime
import math
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from microg.config import Config
from microg.errors import ConfigError

VARIABLE = "MICROG_PRICES"
_MILLION = 1_000_000
_CROP_SMALLEST, _CROP_LARGEST, _CROP_FREE = 256, 768, 384


class Picture(Config):
    """How many tokens a picture is (see prices.yaml)."""

    rule: Literal["fixed", "tiles", "crops"] = Field(description="How tokens depend on the size of the picture.")
    tokens: int = Field(default=0, description="Tokens of a picture (fixed) or of a crop (crops).")
    base: int = Field(default=0, description="Tokens of any picture (tiles).")
    tile: int = Field(default=0, description="Tokens of each tile (tiles).")

    def count(self, width: int, height: int) -> int:
        """Return the tokens of a picture of this size in pixels.

        >>> Picture(rule="tiles", base=85, tile=170).count(854, 480), Picture(rule="crops", tokens=258).count(854, 480)
        (1105, 1548)
        """
        if self.rule == "fixed":
            return self.tokens
        if self.rule == "crops":
            if max(width, height) <= _CROP_FREE:
                return self.tokens
            unit = min(max(int(min(width, height) / 1.5), _CROP_SMALLEST), _CROP_LARGEST)
            return self.tokens * math.ceil(width / unit) * math.ceil(height / unit)
        scale = min(1.0, 2048 / max(width, height))
        scale *= 768 / (min(width, height) * scale)
        return self.base + self.tile * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


class LongPrice(Config):
    """Prices of a request whose prompt has more than `over` tokens."""

    over: int = Field(description="Tokens of the prompt above which these prices hold.")
    input: float = Field(description="US dollars per million tokens of the prompt.")
    output: float = Field(description="US dollars per million tokens of the answer.")


class Price(Config):
    """US dollars per million tokens of one or several model ids (see prices.yaml)."""

    models: tuple[str, ...] = Field(min_length=1, description="Model ids of the provider.")
    input: float = Field(ge=0, description="US dollars per million tokens of the prompt.")
    output: float = Field(ge=0, description="US dollars per million tokens of the answer.")
    cached_input: float | None = Field(
        default=None, ge=0, description="US dollars per million tokens of the prompt that the provider had cached."
    )
    batch: float | None = Field(default=None, gt=0, le=1, description="Factor of all prices in batch mode.")
    long: LongPrice | None = Field(default=None, description="Prices of requests with long prompts.")
    picture: Picture
    source: str = Field(description="Where the prices were read.")
    read: datetime.date = Field(description="Day on which they were read.")

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0, batch: bool = False) -> float:
        """Return dollars; `cached_tokens` are those of the prompt that the provider had in its cache.

        >>> price_of("gpt-4o").cost(1_000_000, 100_000)
        3.5
        """
        charged, output = self.input, self.output
        if self.long is not None and prompt_tokens > self.long.over:
            charged, output = self.long.input, self.long.output
        reused = cached_tokens if self.cached_input is not None else 0
        dollars = (prompt_tokens - reused) * charged + reused * (self.cached_input or 0) + completion_tokens * output
        return dollars / _MILLION * ((self.batch or 1) if batch else 1)


def price_of(model: str) -> Price | None:
    """Return the price of a provider's model id, or None where the table has none. Raises `ConfigError`."""
    own = os.environ.get(VARIABLE)
    tables = [*([_own(own)] if own else []), _built_in()]
    return next((price for table in tables for price in table if model in price.models), None)


@cache
def _built_in() -> list[Price]:
    return _parsed("prices.yaml", resources.files("microg.models.vlm").joinpath("prices.yaml").read_text("utf-8"))


@cache
def _own(path: str) -> list[Price]:
    if not Path(path).is_file():
        raise ConfigError(f"the price table {path} is not there", f"correct the environment variable {VARIABLE}")
    return _parsed(path, Path(path).read_text("utf-8"))


def _parsed(name: str, text: str) -> list[Price]:
    try:
        rows: Any = yaml.safe_load(text)
        return [Price.model_validate(row) for row in rows]
    except (yaml.YAMLError, ValidationError, TypeError) as error:
        raise ConfigError(f"the price table {name} is not valid: {error}") from None
