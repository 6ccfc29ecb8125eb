"""Where the parts of a vision-language model lie in transformers: language model, picture encoder, what joins them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from microg.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """A family of architectures whose modules have the same names.

    Attributes:
        name: Name for people.
        language: Prefix of the modules of the language model.
        vision: Prefix of those of the picture encoder.
        projector: Prefixes of those between the two, which may lie inside the picture encoder.
    """

    name: str
    language: str
    vision: str
    projector: tuple[str, ...]


_LLAVA = Family(
    "LLaVA", "model.language_model.", "model.vision_tower.", ("model.multi_modal_projector.", "model.vision_resampler.")
)
_QWEN = Family("Qwen-VL", "model.language_model.", "model.visual.", ("model.visual.merger.", "model.visual.deepstack"))
_SMOL = Family("SmolVLM", "model.text_model.", "model.vision_model.", ("model.connector.",))
# By transformers' model type.
FAMILIES: dict[str, Family] = {
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "llava": _LLAVA,
    "llava_next": _LLAVA,
    "llava_next_video": _LLAVA,
    "llava_onevision": _LLAVA,
    "internvl": _LLAVA,
    "smolvlm": _SMOL,
    "idefics3": _SMOL,
}


def family_of(model_type: str) -> Family:
    """Return the family of a model type.

    Raises:
        ConfigError: Models of this type cannot be tuned.
    """
    if model_type not in FAMILIES:
        raise ConfigError(
            f"models of type {model_type!r} cannot be tuned here", f"types are {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def linear_modules(model: Any, family: Family, *, vision: bool, projector: bool) -> list[str]:
    """Return the names of the linear layers that adapters are put on.

    Args:
        model: A model of transformers.
        family: Its family.
        vision: Whether those of the picture encoder are among them.
        projector: Whether those between encoder and language model are.

    Raises:
        ConfigError: The model has no linear layer in its language model: it is not of this family.
    """
    from torch import nn

    found, language = [], 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if name.startswith(family.language):
            language += 1
            found.append(name)
        elif name.startswith(family.projector):
            found += [name] * projector
        elif name.startswith(family.vision):
            found += [name] * vision
    if not language:
        raise ConfigError(f"{type(model).__name__} has no linear layer under {family.language}: it cannot be tuned")
    return found
