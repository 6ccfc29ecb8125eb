"""A model card for a checkpoint on disk: what is known of its architecture, with the folder's weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from microg.errors import ConfigError
from microg.models.vlm.cards import ModelCard, card, names
from microg.models.vlm.sampling import Uniform

_WEIGHTS = ("*.safetensors", "*.bin")
# What `microg vlm train` writes beside a model: how it wants to be asked.
OWN_FACTS = "microg.json"
_GB = 1e9
# Beside the weights: activations and a cache for a few clips.
_MORE_MEMORY_GB = 6.0


def is_checkpoint(path: str) -> bool:
    """Tell whether `path` is a folder in the Hugging Face layout."""
    return (Path(path).expanduser() / "config.json").is_file()


def folder_card(path: str) -> ModelCard:
    """Return the card of a checkpoint folder: engine, frames and settings are those of its architecture's card.

    An architecture that no card has is run by transformers with eight frames. A model that `microg vlm train` made says
    itself (`microg.json`) which frames it was trained on. Raises `ConfigError` when the folder's
    config.json does not say what it holds.
    """
    folder = Path(path).expanduser().absolute()
    try:
        architecture = json.loads((folder / "config.json").read_text("utf-8"))["architectures"][0]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise ConfigError(
            f"{folder / 'config.json'} names no architecture", "give the folder of a checkpoint saved by transformers"
        ) from None
    sizes = [file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern)]
    if not sizes:
        raise ConfigError(f"{folder} holds no weights", f"looked for {' and '.join(_WEIGHTS)}")
    known = next((found for found in map(card, names()) if found.architecture == architecture), None)
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "model"
    own: dict[str, Any] = {
        "name": name,
        "title": folder.name,
        "hub_id": str(folder),
        "hub_id_confirmed": True,
        "paper": None,
        "architecture": architecture,
        "gpu_memory_gb": round(sum(sizes) / _GB + _MORE_MEMORY_GB, 1),
        "parameters_b": None,
        "special": (),
    }
    own |= _trained_on(folder)
    if known is not None:
        return known.replaced(**own)
    return ModelCard(
        engine="transformers",
        **{"frames": Uniform(count=8), **own},
        chat_template="from the folder's processor",
        context=4096,
        runs="unverified",
        why="no model card knows this architecture",
        to_run="try it with --limit 1",
    )


def _trained_on(folder: Path) -> dict[str, Any]:
    """Return the frames that the model was trained on, where the folder tells."""
    file = folder / OWN_FACTS
    if not file.is_file():
        return {}
    try:
        return {"frames": json.loads(file.read_text("utf-8"))["frames"]}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{file} does not tell which frames the model was trained on", "delete it") from None
