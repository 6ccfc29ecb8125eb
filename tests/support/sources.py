"""The source files of the installed package, those behind links too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import microg


def modules(*, demo: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield each module's name and file, without the demo's unless wanted."""
    root = Path(microg.__file__).parent
    for top in sorted(root.iterdir()):
        if top.name == "demo" and not demo:
            continue
        # rglob does not go through links, and the rooms are links in a checkout
        for file in sorted(top.resolve().rglob("*.py")) if top.is_dir() else [top] if top.suffix == ".py" else []:
            parts = (top.stem, *file.relative_to(top.resolve()).with_suffix("").parts) if top.is_dir() else (top.stem,)
            yield ".".join(("microg", *parts)).removesuffix(".__init__"), file
