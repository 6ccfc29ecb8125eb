"""Configuration: one typed object from defaults, a YAML recipe and `--set key=value` overrides."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from microg.errors import ConfigError
from microg.reading import reads

_RECIPES = Path(__file__).parent / "recipes"
# Where a model computes: auto is a GPU where there is one.
Device = Literal["auto", "cpu", "cuda"]
DEVICE = (
    "Where the model computes: auto is a GPU of its own for each actor where Ray has one or its autoscaler can start "
    "one, else the CPU."
)


class Config(BaseModel):
    """Base of all configuration sections: frozen, and an unknown key is an error.

    Every field has a description, of which help, documentation and errors are made (see `settings_of`). Keys named in
    `volatile` say where and how fast something runs, not what comes out: they do not count in `digest`, so that a run
    may be resumed on another machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    volatile: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """Return the plain values that decide the result; sections inside lists and mappings count likewise."""
        plain = self.model_dump(mode="json")
        names = [name for name in type(self).model_fields if name not in self.volatile]
        return {name: _identity(getattr(self, name), plain[name]) for name in names}

    def digest(self) -> str:
        """Return a short hash of `identity`."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def replaced(self, **changes: Any) -> Self:
        """Return a validated copy with other values; what was left to its default, also in a section, still is."""
        return type(self).model_validate({name: getattr(self, name) for name in self.model_fields_set} | changes)


class Resources(Config):
    """What one job may use; the default suits a laptop, and none of it changes results."""

    volatile: ClassVar[frozenset[str]] = frozenset(
        {"cpus", "gpus", "memory_gb", "min_actors", "max_actors", "wait_s", "address"}
    )
    cpus: float = Field(default=1.0, ge=0, description="CPUs that each actor of the job's main pool declares.")
    gpus: float = Field(default=0.0, ge=0, description="GPUs that each actor of the main pool declares.")
    memory_gb: float = Field(default=0.0, ge=0, description="Memory that each actor declares, in GB; 0 declares none.")
    min_actors: int = Field(default=1, ge=1, description="Fewest actors of the main pool.")
    max_actors: int = Field(default=0, ge=0, description="Most actors of the main pool; 0 means as many as fit.")
    wait_s: float = Field(
        default=1200.0, ge=0, description="Seconds to wait for nodes that a cluster's autoscaler has to start first."
    )
    address: str | None = Field(
        default=None,
        description="Address of a Ray cluster (auto, ray://host:10001, host:6379); without it a local Ray starts.",
    )


def _identity(value: Any, plain: Any) -> Any:
    """Return `plain`, the JSON form of `value`, without what sections inside it call volatile."""
    if isinstance(value, Config):
        return value.identity()
    if isinstance(value, list | tuple):
        return [_identity(item, form) for item, form in zip(value, plain, strict=True)]
    if isinstance(value, dict):
        return {key: _identity(item, form) for item, (key, form) in zip(value.values(), plain.items(), strict=True)}
    return plain


C = TypeVar("C", bound=BaseModel)


def load_config(
    model: type[C], /, recipe: str | None = None, overrides: Iterable[str | Mapping[str, Any]] = (), **defaults: Any
) -> C:
    """Build a configuration: `defaults`, then the YAML file `recipe`, then `overrides`, the last one first in rank.

    Args:
        model: Class of the configuration.
        recipe: File or name of a recipe, or None.
        overrides: `key.sub=value` texts, whose values are read as YAML (`0.5`, `true`, `[1, 2]`, `text`), and mappings
            of dotted keys to values, which replace what was there.
        defaults: Values by key.

    Raises:
        ConfigError: A value or a key is wrong; the error names the key and says what it means.
    """
    values: dict[str, Any] = {
        key: value.model_dump() if isinstance(value, BaseModel) else value for key, value in defaults.items()
    }
    if recipe is not None:
        values = merged(values, read_recipe(recipe))
    for override in overrides:
        if isinstance(override, str):
            values = merged(values, _parse_override(override))
        else:
            for key, value in override.items():
                values = merged(merged(values, nested(key, None)), nested(key, value))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        problems = "; ".join(_problem(model, item["loc"], item["type"], item["msg"]) for item in found)
        meanings = dict.fromkeys(_meaning(model, item["loc"]) for item in found if item["type"] != "extra_forbidden")
        known = f"keys at the top level: {', '.join(model.model_fields)}"
        raise ConfigError(f"bad configuration: {problems}", "; ".join(filter(None, meanings)) or known) from error


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key that `--set` takes.

    Attributes:
        key: Dotted name.
        meaning: Sentence that says what the value is.
        allowed: Bounds or choices, "" where any value of the type will do.
        choices: The values that there are; empty where they cannot be listed.
        default: Default as YAML, "" where a value must be given.
        section: Purpose of the section that the key belongs to.
    """

    key: str
    meaning: str
    allowed: str
    choices: tuple[str, ...]
    default: str
    section: str

    def text(self, note: str = "") -> str:
        """Return the meaning, a note, and in brackets what is allowed and what is the default."""
        bounds = [self.allowed] if self.allowed else []
        bounds += [f"default: {self.default}"] if self.default not in ("", "null", "[]", "{}", "''", "false") else []
        return " ".join(filter(None, (self.meaning, note, f"[{'; '.join(bounds)}]" if bounds else "")))


def settings_of(model: type[BaseModel], prefix: str = "", base: BaseModel | None = None) -> Iterator[Setting]:
    """Yield every setting of a configuration, also of its sections; defaults are those of `base` where it is given."""
    purpose = (model.__doc__ or "").strip().partition("\n")[0]
    for name, field in model.model_fields.items():
        default = getattr(base, name) if base is not None else field.get_default(call_default_factory=True)
        sections = _sections(field.annotation)
        if sections != [field.annotation]:
            choices = _choices(field.annotation)
            yield Setting(
                key=prefix + name,
                meaning=field.description or "",
                allowed=_allowed(field, choices),
                choices=choices,
                default="" if base is None and field.is_required() else _as_yaml(default),
                section=purpose,
            )
        inner: dict[str, Setting] = {}
        for section in sections:  # several where a value may be of one of several kinds
            for setting in settings_of(section, f"{prefix}{name}.", default if isinstance(default, section) else None):
                inner.setdefault(setting.key, setting)
        yield from inner.values()


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the configuration classes that a value may be of, not those of items in collections."""
    if _is_section(annotation):
        return [annotation]
    if get_origin(annotation) in (dict, list, tuple):
        return []
    return [section for part in get_args(annotation) for section in _sections(part)]


_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}


def _allowed(field: FieldInfo, choices: tuple[str, ...]) -> str:
    if choices:
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    bounds = {name: getattr(each, name) for each in field.metadata for name in _BOUNDS if hasattr(each, name)}
    words = [f"{bounds.pop('ge')} to {bounds.pop('le')}"] if {"ge", "le"} <= set(bounds) else []
    return ", ".join([*words, *(f"{_BOUNDS[name]} {value}" for name, value in bounds.items())])


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return the values of a `Literal`, also of one in a union or a collection, if there are several."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    words = () if _is_section(annotation) else tuple(w for part in get_args(annotation) for w in _choices(part))
    return words if len(words) > 1 else ()


def _as_yaml(value: Any) -> str:
    return (
        yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
    )


def _meaning(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """Return what the setting at fault means, "" where no description says it."""
    parts = [str(part) for part in location]
    known = {found.key: found for found in settings_of(model)}
    for end in range(len(parts), 0, -1):
        for key in (".".join(parts[:end]), ".".join([parts[0], *parts[2:end]])):  # the second may name a kind
            if key in known and known[key].meaning:
                return f"{key}: {known[key].text()}"
    return ""


def recipe_path(recipe: str) -> str:
    """Return the file of a recipe: a path as it is, else that of a shipped recipe given by name or by relative path.

    >>> recipe_path("x3d_s").endswith("recipes/har/x3d_s.yaml"), recipe_path("none.yaml")
    (True, 'none.yaml')
    """
    from microg import storage  # it imports pyarrow, which help does not need

    if storage.exists(recipe):
        return recipe
    for file in _RECIPES.rglob("*.yaml"):
        if recipe.lower() in (file.stem, file.relative_to(_RECIPES.parent).as_posix()):
            return str(file)
    return recipe


_MOST_VALUES, _DEEPEST = 100_000, 50


@reads(ConfigError)
def read_recipe(recipe: str) -> dict[str, Any]:
    """Return the keys and values of a YAML file, which `recipe_path` finds.

    Raises `ConfigError` when it cannot be read or is no mapping.
    """
    from microg import storage

    path = recipe_path(recipe)
    if not storage.exists(path):
        raise ConfigError(f"configuration file {path} is not there", "give a file, or a name in recipes/")
    try:
        loaded = yaml.safe_load(storage.read_bytes(path))
        _check_size(loaded, path)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from error
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, not {type(loaded).__name__}")
    return loaded


def _check_size(document: Any, path: str) -> None:
    """Refuse YAML whose aliases repeat parts until nothing can go through it, and what is nested too deeply."""
    waiting, values = [(document, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if values > _MOST_VALUES or depth > _DEEPEST:
            raise ConfigError(f"{path} holds over {_MOST_VALUES:,} values, or is nested over {_DEEPEST} deep")
        if isinstance(value, dict | list | tuple | set):
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(each, depth + 1) for each in inner]


def recipe_section(recipe: str | None, name: str, *, row: str | None = None) -> dict[str, Any]:
    """Return the settings that a recipe has for one job, empty without recipe or section.

    Args:
        recipe: File or name of the recipe, or None.
        name: Section of the job.
        row: Key under which the settings take the recipe's `row`, or None where they take none.

    Raises:
        ConfigError: The section is no mapping.
    """
    if recipe is None:
        return {}
    document = read_recipe(recipe)
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{recipe} has no mapping {name!r}", "a recipe maps names of jobs to their settings")
    return {row: document["row"], **section} if row is not None and document.get("row") is not None else section


def _problem(model: type[BaseModel], location: tuple[int | str, ...], kind: str, message: str) -> str:
    """Return what is wrong with one value; for an unknown key also which keys there are, or the one it resembles."""
    where = ".".join(str(part) for part in location) or "value"
    if kind != "extra_forbidden":
        return f"{where}: {message}"
    section: Any = model
    for part in location[:-1]:
        field = section.model_fields.get(part) if _is_section(section) else None
        section = field.annotation if field is not None else None
    if not _is_section(section):
        return f"{where}: unknown key"
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"{where}: unknown key" + (f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(names)})")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"--set {text!r} is not of the form key=value or section.key=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: the value is not valid YAML: {error}") from error
    return nested(key, parsed)


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return the mapping that a dotted key means.

    >>> nested("schedule.lr", 0.1)
    {'schedule': {'lr': 0.1}}
    """
    for part in reversed(key.split(".")):
        value = {part.strip(): value}
    return value


def merged(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `extra`, mapping by mapping; one of another `kind` replaces what was there.

    >>> merged({"frames": {"kind": "uniform", "count": 4}}, {"frames": {"kind": "dense"}})
    {'frames': {'kind': 'dense'}}
    """
    result = dict(base)
    for key, value in extra.items():
        before = result.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and not _another_kind(before, value):
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result


def _another_kind(before: dict[str, Any], value: dict[str, Any]) -> bool:
    """Tell whether both say what kind they are, and not the same: the keys of one kind are not another's."""
    return "kind" in before and "kind" in value and before["kind"] != value["kind"]
