"""The environment of processes that tests start."""

from __future__ import annotations

import os


def without_ray(**variables: str) -> dict[str, str]:
    """Return this process's variables, none of them Ray's, then `variables`: a Ray that runs here is not joined."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables
