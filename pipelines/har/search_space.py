"""Search spaces of sweeps, as a user writes them: `lr=loguniform(1e-4,1e-1)`, `model.dropout=choice(0,0.5)`.

A domain is plain data; `microg.pipelines.har.sweep` turns it into what Ray Tune samples from. Nothing is evaluated:
values are read as YAML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from microg.errors import ConfigError

# kind -> (least, greatest number of values; 0: any number), and what each means.
KINDS: dict[str, tuple[int, int]] = {
    "uniform": (2, 2),  # a real number between the two
    "loguniform": (2, 2),  # the same, evenly in the logarithm
    "randint": (2, 2),  # a whole number, from the first up to but without the second
    "choice": (1, 0),  # one of the values, drawn
    "grid": (1, 0),  # each of the values, every one in turn
}
_FORM = re.compile(r"\s*([A-Za-z_][\w.]*)\s*=\s*([a-z]+)\s*\((.*)\)\s*", re.DOTALL)
_EXAMPLE = "for example --space lr=loguniform(1e-4,1e-1), --space batch_size=grid(8,16)"


@dataclass(frozen=True)
class Domain:
    """Where one setting's value comes from: `key` as in `--set`, `kind` of `KINDS`, and its values."""

    key: str
    kind: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.key}={self.kind}({','.join(map(str, self.values))})"


def parse_space(texts: Iterable[str]) -> tuple[Domain, ...]:
    """Read domains in the order given. Raises `ConfigError` naming the one at fault and how it should look.

    >>> parse_space(["lr=loguniform(1e-4,1e-1)", "model.roi_scale=choice(published, true)"])[0].values
    (0.0001, 0.1)
    """
    domains = tuple(_parse(text) for text in texts)
    keys = [domain.key for domain in domains]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(f"--space names {', '.join(twice)} more than once", "give each setting one domain")
    return domains


def _parse(text: str) -> Domain:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(f"--space {text!r} is not of the form key=kind(values)", _EXAMPLE)
    key, kind, inside = match.groups()
    if kind not in KINDS:
        raise ConfigError(f"--space {text!r}: there is no domain {kind!r}", f"domains are {', '.join(KINDS)}")
    values = tuple(_value(part, text) for part in inside.split(",")) if inside.strip() else ()
    least, greatest = KINDS[kind]
    if len(values) < least or (greatest and len(values) > greatest):
        wanted = f"{least} values" if greatest == least else f"at least {least} value"
        raise ConfigError(f"--space {text!r}: {kind} takes {wanted}, not {len(values)}", _EXAMPLE)
    if greatest == 2:
        values = _bounds(text, kind, values)
    return Domain(key, kind, values)


def _value(part: str, text: str) -> Any:
    try:
        value = yaml.safe_load(part)
    except yaml.YAMLError as error:
        raise ConfigError(f"--space {text!r}: {part.strip()!r} is not a value: {error}", _EXAMPLE) from error
    if isinstance(value, str):  # YAML 1.1 takes 1e-4 for text
        try:
            return float(value)
        except ValueError:
            return value
    if value is None:
        raise ConfigError(f"--space {text!r} has an empty value", _EXAMPLE)
    return value


def _bounds(text: str, kind: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the two bounds of a range, checked."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"--space {text!r}: {kind} takes two numbers, not {value!r}", _EXAMPLE)
    low, high = values
    if kind == "randint" and not all(float(value).is_integer() for value in values):
        raise ConfigError(f"--space {text!r}: randint takes whole numbers", _EXAMPLE)
    if low >= high:
        raise ConfigError(f"--space {text!r}: the lower bound {low} is not below the upper bound {high}", _EXAMPLE)
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"--space {text!r}: loguniform needs bounds above 0", _EXAMPLE)
    return (int(low), int(high)) if kind == "randint" else (float(low), float(high))
