"""Rewriting a checkpoint's tensors under other names, one file at a time.

Memory is that of one file of weights. What is written lies in `OUT.part` until all of it is there, and a conversion
that was killed goes on with the file it was at.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microg import storage
from microg.errors import ConfigError, WeightsError, WriteError
from microg.models.vlm.layouts import LAYOUTS, OWN_FACTS, architecture
from microg.reading import parse_json, reads, refuse_pointer_file
from microg.storage_faults import writing

if TYPE_CHECKING:
    from torch import Tensor

_SOURCES = "sources.json"
_LISTED = 8


@dataclass(frozen=True)
class Source:
    """A file of weights.

    Attributes:
        path: The file: safetensors, or what `torch.save` wrote.
        rename: Beginnings of names -> what they become; the first that fits counts.
        unused: Patterns of names that the new model has no use for, in whole.
    """

    path: Path
    rename: Mapping[str, str]
    unused: tuple[str, ...] = ()

    def place(self, name: str) -> tuple[str, str] | None:
        """Return the rule that a tensor falls under and its new name, None where it is not used."""
        if any(re.fullmatch(pattern, name) for pattern in self.unused):
            return None
        for old, new in self.rename.items():
            if name.startswith(old):
                return f"{old}* -> {new}*", new + name.removeprefix(old)
        raise WeightsError(f"{self.path} holds {name}, of which the layout knows nothing", "it is another model")


@dataclass(frozen=True)
class Plan:
    """What becomes of a checkpoint.

    Attributes:
        card: Name of the model's card.
        model: The new model without memory (torch's device meta): names and shapes of its tensors, and its config.
        processor: Its processor, which is saved beside.
        sources: Where tensors come from; of two that give the same one the first counts.
        change: What to do with a tensor of the given new name, besides renaming it; also asked on torch's device meta.
    """

    card: str
    model: Any
    processor: Any
    sources: tuple[Source, ...]
    change: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        folder: The new checkpoint.
        card: Card of the model.
        was: Architecture that the folder named.
        architecture: The new one.
        renamed: Rule -> number of tensors.
        unused: Tensors that the new model has no use for.
        replaced: Tensors that another file gave first.
        gb: Size of the new weights in GB (10^9 bytes).
    """

    folder: str
    card: str
    was: str
    architecture: str
    renamed: dict[str, int]
    unused: tuple[str, ...]
    replaced: tuple[str, ...]
    gb: float


@reads(WeightsError)
def convert(
    folder: str,
    out: str,
    parts: Mapping[str, str] | None = None,
    watch: Callable[[int], Callable[[], object]] = lambda files: lambda: None,
) -> Report:
    """Rewrite the checkpoint in `folder` into the new folder `out`.

    `parts` are further files that a layout needs, by name. `watch` is told how many files of weights there are, and
    returns what is called after each. The folder is made in whole or not at all: every tensor of the new model must
    come from somewhere, in its shape.

    Raises:
        ConfigError: There is no such folder, no such layout, a part is missing, or `out` exists.
        WeightsError: A tensor is missing, unknown or of another shape, or a file is damaged.
    """
    from transformers import GenerationConfig

    if not (storage.is_local(folder) and storage.is_local(out)):
        raise ConfigError("a checkpoint is converted on this machine's disk", "copy the folder here first")
    source, target = storage.local_path(folder), storage.local_path(out)
    if target.exists():
        raise ConfigError(f"{target} exists already", "remove it, or name another folder")
    with _without_warnings():  # of model types that transformers does not know
        plan, was = _plan(source, parts or {})
    places, report = _arranged(plan)
    work = _working_folder(target, plan.sources)
    files = {path: f"model-{number:05d}.safetensors" for number, path in enumerate(places, start=1)}
    index: dict[str, str] = {}
    total = 0
    advance = watch(len(places))
    for path, names in places.items():
        total += _rewrite(path, names, work / files[path], plan.change)
        index |= dict.fromkeys(names.values(), files[path])
        advance()
    document = {"metadata": {"total_size": total}, "weight_map": index}
    storage.write_json(work / "model.safetensors.index.json", document)
    plan.model.config.architectures = [type(plan.model).__name__]
    plan.model.config.save_pretrained(work)
    generation = source / "generation_config.json"
    kept = GenerationConfig.from_pretrained(source) if generation.is_file() else plan.model.generation_config
    kept.save_pretrained(work)
    plan.processor.save_pretrained(work)
    storage.write_json(work / OWN_FACTS, {"card": plan.card})
    (work / _SOURCES).unlink()
    work.replace(target)
    return Report(str(target), plan.card, was, type(plan.model).__name__, **report, gb=total / 1e9)


@contextmanager
def _without_warnings() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@reads(ConfigError)
def read_config(file: Path) -> dict[str, Any]:
    """Return what a config.json holds. Raises `ConfigError`."""
    config = parse_json(file.read_bytes(), str(file))
    if not isinstance(config, dict):
        raise ConfigError(f"{file} is no model's configuration")
    return config


def weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's files of weights: safetensors, or those of torch where there are none.

    Raises `WeightsError` when there is none, or one is a stand-in of Git for a file that was not fetched.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise WeightsError(f"{folder} holds no weights", "looked for *.safetensors and pytorch_model*.bin")
    for file in files:
        refuse_pointer_file(file, WeightsError)
    return files


@contextmanager
def opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """Give a file's tensors by name; those of safetensors and of a torch file are read when they are asked for.

    Of a torch file only tensors and plain values are unpickled. Raises `WeightsError`.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                yield _Lazy(file)
        except SafetensorError as error:
            refuse_pointer_file(path, WeightsError)
            raise WeightsError(f"weights file {path} is damaged: {error}", "fetch it again") from error
        return
    yield _torch_file(path)


@reads(WeightsError)
def _torch_file(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} holds more than tensors, and is not read", "use a file of weights alone") from error
    except OSError as error:  # also of a file that names places outside of itself
        raise WeightsError(
            f"weights file {path} cannot be read: {error}", "it may be damaged: fetch it again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path} does not hold named tensors alone")
    return content


class _Lazy(Mapping[str, Any]):
    """The tensors of a safetensors file, read one by one."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names = list(file.keys())

    def __getitem__(self, name: str) -> Any:
        return self._file.get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return tuple(self._file.get_slice(name).get_shape())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _shape(tensors: Mapping[str, Any], name: str) -> tuple[int, ...]:
    return tensors.shape(name) if isinstance(tensors, _Lazy) else tuple(tensors[name].shape)


def _plan(source: Path, parts: Mapping[str, str]) -> tuple[Plan, str]:
    if not (source / "config.json").is_file():
        raise ConfigError(f"{source} holds no config.json", "give the folder of a checkpoint, as the hub has it")
    was = architecture(read_config(source / "config.json"))
    if was not in LAYOUTS:
        raise ConfigError(f"{source} holds {was or 'no named architecture'}, which needs no conversion or has none")
    return LAYOUTS.load(was)(source, {name: Path(path).expanduser() for name, path in parts.items()}), was


def _arranged(plan: Plan) -> tuple[dict[Path, dict[str, str]], dict[str, Any]]:
    """Return file -> name there -> new name, and what the report says; checks that nothing is missing."""
    import torch

    wanted = {name: tuple(tensor.shape) for name, tensor in plan.model.state_dict().items()}
    places: dict[Path, dict[str, str]] = {}
    found: dict[str, Source] = {}
    rules: Counter[str] = Counter()
    unused, replaced, wrong = [], [], []
    for source in plan.sources:
        with opened(source.path) as tensors:
            for name in sorted(tensors):
                place = source.place(name)
                if place is None:
                    unused.append(name)
                elif place[1] not in wanted:
                    wrong.append(f"{name} would be {place[1]}, which the new model has not")
                elif place[1] in found and found[place[1]].rename is source.rename:
                    wrong.append(f"{name} is in two files")
                elif place[1] in found:
                    replaced.append(name)
                else:
                    empty = torch.empty(_shape(tensors, name), device="meta")
                    shape = tuple(plan.change(place[1], empty).shape)
                    if shape != wanted[place[1]]:
                        wrong.append(f"{name} is of shape {shape} instead of {wanted[place[1]]}")
                    found[place[1]] = source
                    rules[place[0]] += 1
                    places.setdefault(source.path, {})[name] = place[1]
    wrong += [f"{name} is missing" for name in wanted if name not in found]
    if wrong:
        more = f", and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise WeightsError(
            f"the weights do not make a {type(plan.model).__name__}: {'; '.join(wrong[:_LISTED])}{more}",
            "see that all files are there, and of this model",
        )
    return places, {"renamed": dict(rules), "unused": tuple(unused), "replaced": tuple(replaced)}


def _working_folder(target: Path, sources: Sequence[Source]) -> Path:
    """Return the folder that becomes `target`, with what an earlier try of the same files has left."""
    work = target.with_name(f"{target.name}.part")
    stamps = {str(source.path): [source.path.stat().st_size, source.path.stat().st_mtime_ns] for source in sources}
    noted = work / _SOURCES
    if noted.is_file() and parse_json(noted.read_bytes(), str(noted)) == stamps:
        return work
    shutil.rmtree(work, ignore_errors=True)
    with writing(work):
        work.mkdir(parents=True)
    storage.write_json(noted, stamps)
    return work


def _rewrite(path: Path, names: Mapping[str, str], target: Path, change: Callable[[str, Tensor], Tensor]) -> int:
    """Write a file's tensors under their new names, unless that was done, and return their size in bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not target.exists():
        with opened(path) as tensors:
            renamed = {new: change(new, tensors[old]).contiguous() for old, new in names.items()}
        temporary = target.with_suffix(".tmp")
        try:
            with writing(target):
                save_file(renamed, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise WriteError(
                f"{target} cannot be written: {error}", "see that there is room for the whole model"
            ) from error
        storage.move_into_place(temporary, target)
    return target.stat().st_size


def as_json(report: Report) -> dict[str, Any]:
    """Return a report for JSON."""
    return json.loads(json.dumps(vars(report)))
