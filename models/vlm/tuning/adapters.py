"""Models made ready to be tuned, what they learnt on disk, and adapters merged into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from microg.errors import ConfigError, WeightsError, describe
from microg.models.vlm.tuning.families import Family, family_of, linear_modules
from microg.models.vlm.tuning.settings import AdapterSettings, Method

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def prepare(model: Any, method: Method, settings: AdapterSettings, *, checkpointing: bool) -> Any:
    """Return a model in which just those parameters learn that the settings name.

    Args:
        model: A model of transformers, loaded in four bits for method qlora.
        method: lora, qlora or full.
        settings: Adapters, and which parts learn.
        checkpointing: Whether activations are computed again on the way back, which saves most of their memory.

    Raises:
        ConfigError: Models of this type cannot be tuned.
    """
    family = family_of(model.config.model_type)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if method == "full":
        return _unfrozen(model, family, settings)
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    names = linear_modules(model, family, vision=settings.vision, projector=settings.projector)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=settings.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _unfrozen(model: Any, family: Family, settings: AdapterSettings) -> Any:
    for name, parameter in model.named_parameters():
        if name.startswith(family.projector):
            parameter.requires_grad_(settings.projector)
        elif name.startswith(family.vision):
            parameter.requires_grad_(settings.vision)
        else:
            parameter.requires_grad_(True)
    return model


def trainable_state(model: Any) -> dict[str, torch.Tensor]:
    """Return the parameters that learn, by name, on the CPU."""
    return {name: value.detach().cpu() for name, value in model.named_parameters() if value.requires_grad}


def load_trainable_state(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Put back what `trainable_state` returned.

    Raises:
        WeightsError: The model has other parameters that learn.
    """
    own = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if set(own) != set(state):
        other = sorted(set(own) ^ set(state))[:3]
        raise WeightsError(f"the state is of other parameters: {', '.join(other)}", "start another run")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many parameters learn, and how many there are."""
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)


def save_adapter(model: Any, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write adapters in peft's layout, with the parameters of `state` (see `trainable_state`)."""
    model.save_pretrained(str(folder), state_dict=dict(state), safe_serialization=True)


def adapter_touches_vision(folder: Path) -> bool:
    """Tell whether an adapter changes more than the language model, which servers ignore in silence.

    Raises:
        WeightsError: The folder holds no adapter.
    """
    from microg import storage

    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        raise WeightsError(f"{folder} holds no adapter: it has no {ADAPTER_CONFIG}", "give a run of 'microg vlm train'")
    names = storage.read_json(str(file)).get("target_modules") or []
    return any(not name.startswith(("model.language_model.", "model.text_model.")) for name in names)


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """What merging did.

    Attributes:
        merged: Weight matrices that were changed.
        largest: Largest change of one weight.
        unchanged: Matrices whose adapter had learnt nothing.
    """

    merged: int
    largest: float
    unchanged: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def with_adapter(model: Any, folder: Path) -> Any:
    """Return a model with adapters of a folder on it, not to be trained.

    Raises:
        WeightsError: The adapters are not of this model.
    """
    from peft import PeftModel
    from safetensors import safe_open

    modules = {name for name, _ in model.named_modules()}
    with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as file:
        wanted = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in file.keys()}  # noqa: SIM118
    if missing := sorted(wanted - modules):  # peft would only warn
        raise WeightsError(f"the adapter in {folder} is not of this model: it has no {missing[0]}")
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise WeightsError(f"the adapter in {folder} is not of this model: {describe(error)[:300]}") from error


def merge(model: Any) -> tuple[Any, MergeReport]:
    """Add adapters to the weights that they are on, and return the plain model.

    Args:
        model: A model with adapters (see `with_adapter`), not quantized.

    Raises:
        WeightsError: A merged weight is not finite.
        ConfigError: The weights are quantized.
    """
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    before = {}
    for name, layer in layers.items():
        weight = layer.get_base_layer().weight
        if not weight.is_floating_point():
            raise ConfigError(
                "the weights are quantized: nothing can be merged into them", "load the model unquantized"
            )
        before[name] = weight.detach().clone()
    for layer in layers.values():
        layer.merge(safe_merge=False)
    changes = [
        float((layer.get_base_layer().weight.float() - before[name].float()).abs().max())
        for name, layer in layers.items()
    ]
    if not all(torch.isfinite(torch.tensor(changes))):
        raise WeightsError("a merged weight is not finite: the training diverged", "lower the rate: --set schedule.lr=")
    plain = model.unload()
    moved = [change for change in changes if change > 0]
    return plain, MergeReport(
        merged=len(changes), largest=max(changes, default=0.0), unchanged=len(changes) - len(moved)
    )
