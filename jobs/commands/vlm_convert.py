"""What `microg vlm convert` reads from its options, and prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microg.console import say
from microg.errors import ConfigError


def parts_of(options: Sequence[str]) -> dict[str, str]:
    """Return parts by name from NAME=PATH. Raises `ConfigError`."""
    pairs = [option.partition("=") for option in options]
    for name, equals, path in pairs:
        if not (name and equals and path):
            raise ConfigError(f"--part {name}{equals}{path} names no part", "--part NAME=PATH")
    return {name: path for name, _, path in pairs}


def show(report: dict[str, Any]) -> None:
    """Print the report of a conversion."""
    say(f"{report['was']} -> {report['architecture']}, {report['gb']:.1f} GB in {report['folder']}")
    for rule, count in report["renamed"].items():
        say(f"  {count:5d} tensors  {rule}")
    for what, note in (("replaced", "taken from another file"), ("unused", "not used by the new model")):
        if report[what]:
            say(f"  {len(report[what]):5d} tensors  {note}: {_some(report[what])}")
    say("every tensor of the new model was found, in its shape")
    say(f"microg vlm generate --recipe recipes/vlm/{report['card']}.yaml --model {report['folder']} ...")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
