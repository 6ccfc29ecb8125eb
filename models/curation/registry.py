"""The list of measures that a curation makes of every clip, in their order."""

from __future__ import annotations

from importlib import import_module

from microg.errors import StageError
from microg.models.curation.measure import Measure

_MODULES = (
    "microg.models.curation.scenes",
    "microg.models.curation.motion",
)
# Steps of the observation that are no measures: their names are taken.
_STEPS = ("trim", "decode", "detect", "track", "persons")


def _check_distinct(measures: tuple[Measure, ...]) -> tuple[Measure, ...]:
    owner = {f"name {step}": "the observation itself" for step in _STEPS}
    for measure in measures:
        for kind, names in (
            ("name", [measure.name]),
            ("column", measure.columns.names),
            ("threshold", list(measure.thresholds.model_fields) if measure.thresholds else []),
        ):
            for name in names:
                if f"{kind} {name}" in owner:
                    other = owner[f"{kind} {name}"]
                    raise StageError(f"{kind} {name!r} of measure {measure.name!r} is taken: {other}", "rename it")
                owner[f"{kind} {name}"] = f"measure {measure.name!r}"
    return measures


MEASURES: tuple[Measure, ...] = _check_distinct(tuple(import_module(module).MEASURE for module in _MODULES))
