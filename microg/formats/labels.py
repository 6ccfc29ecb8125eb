"""What the labels of other people's projects mean, so that nobody's regions are left out without a decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from microg.errors import ConfigError, FormatError

PERSON, OTHER = "person", "other"


@dataclass(frozen=True)
class Labels:
    """Labels in any case: `person` means a person, others mean what the user declared, or are left out and counted."""

    declared: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, declared: Sequence[str]) -> Labels:
        """Read declarations such as `Astronaut=person` and `hatch=other`. Raises `ConfigError` for another form."""
        meanings = {}
        for text in declared:
            name, _, meaning = text.rpartition("=")
            if not name.strip() or meaning not in (PERSON, OTHER):
                raise ConfigError(f"--label {text!r} is not understood", "write it as NAME=person or NAME=other")
            meanings[name.strip().casefold()] = meaning
        return cls(meanings)

    def is_person(self, label: Any) -> bool:
        """Tell whether a label means a person."""
        name = str(label or "").strip().casefold()
        return self.declared.get(name, name) == PERSON

    def is_other(self, label: Any) -> bool:
        """Tell whether the user declared that a label, or a control of this name, is to be left out."""
        return self.declared.get(str(label or "").strip().casefold()) == OTHER

    def refuse_loss(self, where: str, read: int, left_out: Counter[str]) -> None:
        """Raise `FormatError` when all regions of a file or task would be left out, `read` being 0.

        `left_out` counts them by label; those that the user declared to be something else are no loss.
        """
        lost = {label: count for label, count in left_out.items() if count and not self.is_other(label)}
        if read or not lost:
            return
        names = ", ".join(f"{label!r} ({count})" for label, count in lost.items())
        example = next(iter(lost))
        raise FormatError(
            f"{where}: all its regions would be left out: none is a box labelled 'person', but {names}",
            f"say what they are: --label '{example}=person', or --label '{example}=other' to leave them out",
        )
