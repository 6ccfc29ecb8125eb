"""Models by what their config.json names as `AutoModel`: who asks each as its authors do."""

from __future__ import annotations

from typing import Any

from microg.errors import ConfigError
from microg.models.vlm.engines.repository.consent import RepositoryCode
from microg.registry import Registry

_HERE = "microg.models.vlm.engines.repository"
MODELS = Registry(
    "model with code of its own",
    {
        "modeling_mplugowl3.mPLUGOwl3Model": f"{_HERE}.mplug_owl3:MplugOwl3",
        "modeling_internvl_chat_hico2.InternVLChatModel": f"{_HERE}.internvideo:InternVideo",
    },
)


def asking_class(code: RepositoryCode) -> Any:
    """Return the class that asks the model of this code. Raises `ConfigError` where nobody here knows how."""
    name = code.classes["AutoModel"]
    if name not in MODELS:  # a stranger's `module:object` is not looked for
        raise ConfigError(f"{code.model}: nobody here knows how to ask {name}", f"known: {', '.join(MODELS)}")
    return MODELS.load(name)
