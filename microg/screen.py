"""Tables and coloured texts in a terminal, by Rich without its markup: what data say is printed as it stands."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console  # noqa: TID251
from rich.text import Text

from microg.escaping import visible, visible_line


class Screen(Console):
    """A console that prints texts as they stand: no markup, no emoji codes, nothing that steers a terminal."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Turn a text into what Rich prints; all texts come through here, those in tables too."""
        return super().render_str(visible(text), **options)


def wide_screen(width: int = 160) -> Screen:
    """Return a screen so many columns wide where there is no terminal, as a table must not be cut at 80 there."""
    return Screen(width=None if sys.stdout.isatty() else width)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return one text of texts and pairs (text, style), such as `("note:", "yellow")`; none of them begins a line."""
    return Text.assemble(
        *(visible_line(part) if isinstance(part, str) else (visible_line(part[0]), part[1]) for part in parts)
    )
