"""Model cards: one YAML file a model that says what runs it, on which frames, and what it takes.

Cards are data: adding a model to the benchmark is adding a file here, or passing a file of your own as the model. A
checkpoint folder has the card of its architecture, with the folder's weights.
"""

from __future__ import annotations

import datetime
import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from microg import storage
from microg.config import Config
from microg.errors import ConfigError
from microg.models.vlm.base import Engine
from microg.models.vlm.engines.registry import engine_class, engine_settings_of, open_engine
from microg.models.vlm.layouts import OWN_FACTS, refuse_unconverted
from microg.models.vlm.sampling import FramePolicy, Uniform
from microg.reading import refuse_pointer_file
from microg.system.folders import RemoteFolder

NO_ENGINE = "none"
Proof = Literal["weights", "architecture", "protocol", "unproved", "no"]
_WEIGHTS = ("*.safetensors", "*.bin")
_GB = 1e9
# Beside the weights: activations and a cache for a few clips.
_MORE_MEMORY_GB = 6.0


class PaperRow(Config):
    """The row of the paper's tables that a card stands for."""

    name: str = Field(description="Name of the model in the paper.")
    tables: tuple[Literal[4, 5], ...] = Field(min_length=1, description="Tables that have the row.")
    frames: int = Field(description="Published number of input frames (#f).")
    note: str = Field(default="", description="What is special about the row.")


class ModelCard(Config):
    """What is known about one model."""

    name: str = Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", description="Name of the card, which --model takes.")
    title: str = Field(description="Name of the model for people.")
    hub_id: str = Field(description="Repository on the Hugging Face hub, or the provider's model id.")
    hub_id_confirmed: bool = Field(
        default=False, description="Somebody loaded it; otherwise the id is from public documentation."
    )
    engine: str = Field(description="Engine that runs the model: a name, module:class of your own, or none.")
    architecture: str = Field(
        default="", description="Class of the model in transformers or vLLM; module.Class where its repository has it."
    )
    layout: str = Field(
        default="",
        description="Architecture that its authors' files name, where `microg vlm convert` has to rewrite them first.",
    )
    frames: FramePolicy = Field(description="How a clip is sampled by default.")
    paper: PaperRow | None = Field(default=None, description="Row of the paper's tables.")
    chat_template: str = Field(description="Where the chat template comes from.")
    context: int = Field(ge=1, description="Longest input in tokens.")
    parameters_b: float | None = Field(default=None, gt=0, description="Billions of parameters.")
    gpu_memory_gb: float | None = Field(
        default=None,
        ge=0,
        description="GPU memory in GB, estimated from weights in bfloat16 and a cache for a few clips; none for API "
        "models.",
    )
    runs: Proof = Field(
        description="What was proved: weights, somebody here ran the published weights; architecture, a tiny random "
        "model of the same architecture and file layout ran; protocol, a local server that speaks the provider's "
        "protocol was asked; unproved, it should run and nobody has seen it; no."
    )
    why: str = Field(default="", description="Exactly why it does not run, or what stands against it.")
    to_run: str = Field(default="", description="What would make it run.")
    shutdown: datetime.date | None = Field(
        default=None, description="Day on which the provider switches the model off."
    )
    successor: str = Field(default="", description="Card of the model that the provider has in its place.")
    special: tuple[str, ...] = Field(default=(), description="What is special about the model, for people.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the engine for this model.")

    @model_validator(mode="after")
    def _says_why_not(self) -> ModelCard:
        if self.runs in ("unproved", "no") and not (self.why and self.to_run):
            raise ValueError(f"runs is {self.runs}: say why, and in to_run what would make it run")
        if self.engine == NO_ENGINE and self.runs != "no":
            raise ValueError("engine is none: then it does not run")
        if self.engine != NO_ENGINE and not self.api and self.gpu_memory_gb is None:
            raise ValueError("gpu_memory_gb is needed for a model that runs here; it may be 0")
        return self

    @property
    def api(self) -> bool:
        """Whether a provider runs the model and every request may cost money."""
        return self.engine != NO_ENGINE and not engine_class(self.engine).runs_here

    def problem(self, today: datetime.date | None = None) -> str | None:
        """Return why the model cannot be used (not why it might not), or None."""
        today = today or datetime.date.today()
        if self.shutdown is not None and today >= self.shutdown:
            return f"the provider switched it off on {self.shutdown}"
        return self.why if self.runs == "no" else None

    def require(self, today: datetime.date | None = None) -> ModelCard:
        """Return the card itself; raises `ConfigError` with what to do when the model cannot be used."""
        problem = self.problem(today)
        if problem:
            raise ConfigError(f"{self.title} cannot run: {problem}", self.to_run or "choose another model")
        return self

    def require_converted(self) -> None:
        """Raise `ConfigError` where the model is the published one, which has to be rewritten before it runs here."""
        if self.layout and not self.api and not is_checkpoint(self.hub_id):
            problem = f"its published files, of {self.layout}, have to be converted first"
            raise ConfigError(f"{self.title} cannot run: {problem}", self.to_run)


def open_card(card: ModelCard, *, max_cost: float | None = None, **settings: Any) -> Engine:
    """Return the engine that runs `card`, with its settings and then `settings`.

    Raises `ConfigError` when the model cannot run, and for what `microg.models.vlm.engines.registry.open_engine` does.
    """
    card.require()
    return open_engine(card.engine, card.hub_id, max_cost=max_cost, **{**card.settings, **settings})


def run_by(card: ModelCard, engine: str | None) -> ModelCard:
    """Return a card whose model another engine runs, with the settings that this one has, too; None changes nothing.

    Raises `ConfigError` where there is no such engine.
    """
    if engine is None or engine == card.engine:
        return card
    # how frames are shown, say, holds for every engine that has the setting
    kept = {name: value for name, value in card.settings.items() if name in engine_settings_of(engine)}
    return card.replaced(engine=engine, runs="unproved" if card.runs == "no" else card.runs, settings=kept)


def names() -> list[str]:
    """Return the names of all cards, without reading them."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@cache
def card(name: str) -> ModelCard:
    """Return the card called `name`, or the one in the YAML file that `name` is the path of.

    Raises `ConfigError` when there is none, or when it is not valid, naming the key.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ConfigError(f"there is no model card {name}")
        return _parsed(name, Path(name).read_text("utf-8"))
    if name not in names():
        raise ConfigError(f"there is no model {name!r}", f"models: {', '.join(names())}; or the path of your own card")
    built_in = _parsed(name, resources.files(__name__).joinpath(f"{name}.yaml").read_text("utf-8"))
    if built_in.name != name:
        raise ConfigError(f"the file {name}.yaml holds the card {built_in.name}")
    return built_in


def _parsed(name: str, text: str) -> ModelCard:
    try:
        return ModelCard.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"model card {name} is not valid YAML: {error}") from None
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'card'}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"model card {name} is not valid: {'; '.join(problems)}") from None
    except ConfigError as error:
        raise ConfigError(f"model card {name}: {error.what}", error.fix) from None


def successor_note(row: str) -> str:
    """Return why a row of the paper's tables cannot be made again and which card has its successor, or ""."""
    for found in map(card, names()):
        if found.paper is not None and found.paper.name == row and found.successor and (problem := found.problem()):
            return f"{problem}; the card of its successor is {found.successor}"
    return ""


def is_checkpoint(path: str) -> bool:
    """Tell whether `path`, or a URI, is a folder in the Hugging Face layout."""
    if storage.is_local(path):
        return (storage.local_path(path) / "config.json").is_file()
    return storage.exists(storage.join(path, "config.json"))


def card_of(model: str) -> ModelCard:
    """Return the card of a checkpoint folder, or the one that `model` names (see `folder_card` and `card`)."""
    return folder_card(model) if is_checkpoint(model) else card(model)


def folder_card(path: str) -> ModelCard:
    """Return the card of a checkpoint folder, also at a URI: engine, frames and settings are those of its
    architecture's card.

    An architecture that no card has is run by transformers with eight frames. A model that `microg vlm train` or
    `microg vlm convert` made says itself (`microg.json`) which frames it was trained on, or which of our cards it has.
    Nothing else is taken from there: a folder may come from strangers, and an engine `module:object` or engine settings
    of theirs would run their code.

    Raises:
        ConfigError: The folder's config.json does not say what it holds, or it has to be converted first.
    """
    if storage.is_local(path):
        folder = storage.local_path(path).absolute()
        sizes = [file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern)]
    else:
        remote = RemoteFolder.listed(path)
        folder, sizes = remote.keep(weights=False), [file.size for file in remote.files if file.is_weights]
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        architecture = config["architectures"][0]
        # what its own code is called tells more than a name that several repositories use
        own_class = config.get("auto_map", {}).get("AutoModel")
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError, AttributeError):
        raise ConfigError(
            f"{folder / 'config.json'} names no architecture", "give the folder of a checkpoint saved by transformers"
        ) from None
    if not sizes:
        raise ConfigError(f"{path} holds no weights", f"looked for {' and '.join(_WEIGHTS)}")
    refuse_unconverted(config, path)
    facts = _own_facts(folder)
    every = [card(name) for name in names()]
    alike = [each for each in every if own_class and each.architecture == own_class]
    alike = alike or [each for each in every if each.architecture == architecture]
    named = [each for each in alike if each.name == facts.get("card")]
    known = next(iter(named or [each for each in alike if not each.layout]), None)
    own: dict[str, Any] = {
        "name": plain_name(folder.name),
        "title": folder.name,
        "hub_id": str(folder) if storage.is_local(path) else storage.absolute(path),
        "hub_id_confirmed": True,
        "paper": None,
        "architecture": architecture,
        "gpu_memory_gb": round(sum(sizes) / _GB + _MORE_MEMORY_GB, 1),
        "parameters_b": None,
        "special": (),
    }
    own |= {name: value for name, value in facts.items() if name == "frames"}
    if known is not None:
        return known.replaced(**own)
    return ModelCard(
        engine="transformers",
        **{"frames": Uniform(count=8), **own},
        chat_template="from the folder's processor",
        context=4096,
        runs="unproved",
        why="no model card knows this architecture",
        to_run="try it with --limit 1",
    )


def _own_facts(folder: Path) -> dict[str, Any]:
    """Return what microg wrote beside a model that it made; {} for any other."""
    file = folder / OWN_FACTS
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or not facts.keys() & {"frames", "card"}:
        refuse_pointer_file(file, ConfigError)
        raise ConfigError(f"{file} does not tell which frames the model was trained on, or its card", "delete it")
    return facts


def plain_name(name: str) -> str:
    """Return a model's name in the form of a card's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
