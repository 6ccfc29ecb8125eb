"""What `microg data download weights` does: weights by name, into the user's cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg.console import say
from microg.errors import ConfigError
from microg.system import zoo


def download_weights(names: Sequence[str], *, everything: bool, verify: bool, dry_run: bool) -> list[dict[str, Any]]:
    """Fetch weights by name, or check those in the cache, and return what became of each; without names list all.

    Raises `ConfigError` for a name that is not in the zoo, and `WeightsError` for what cannot be fetched or is damaged.
    """
    if everything and names:
        raise ConfigError("--all and names exclude each other", "give one of them")
    unknown = [name for name in names if zoo.known(name) is None]
    if unknown:
        raise ConfigError(
            f"there are no weights called {', '.join(map(repr, unknown))}",
            f"'microg data download weights' lists the names: {', '.join(list(zoo.entries())[:5])} ...",
        )
    chosen = list(zoo.entries()) if everything or not names else [str(zoo.known(name)) for name in names]
    if verify:
        kept = [name for name in chosen if names or (zoo.entries()[name].url and zoo.place(name).is_file())]
        return [_row(name) | {"sha256": zoo.verify(name)} for name in kept]
    if dry_run or not (names or everything):
        return [_row(name) for name in chosen]
    for name in chosen:
        if zoo.present(name) is None:
            zoo.fetch(name)
    return [_row(name) for name in chosen]


def _row(name: str) -> dict[str, Any]:
    entry, path = zoo.entries()[name], zoo.present(name)
    return {
        "name": name,
        "kind": entry.kind,
        "size": entry.megabytes,
        "licence": entry.licence,
        "about": entry.about,
        "from": zoo.address(name),
        "path": str(path) if path else None,
    }


def show_weights(rows: list[dict[str, Any]], *, listing: bool) -> None:
    """Print where weights are, or a table of what there is."""
    if not listing:
        for row in rows:
            checked = f": SHA-256 {row['sha256']}" if "sha256" in row else ""
            say(f"{row['name']}: {row['path'] or 'not here'}{checked} (licence {row['licence']})")
        if not rows:
            say("no fetched weights are in the cache")
        return
    from rich.table import Table

    from microg.screen import wide_screen

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "for", "size", "licence", "here", "what"):
        table.add_column(heading, no_wrap=heading == "name", overflow="fold")
    for row in rows:
        here = "yes" if row["path"] else "no"
        table.add_row(row["name"], row["kind"], row["size"], row["licence"], here, row["about"])
    wide_screen().print(table)
    say("", "fetch one with 'microg data download weights NAME'; commands that need one fetch it by themselves")
