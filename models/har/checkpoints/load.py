"""Putting the tensors of a file into a model, with a report and a refusal."""

from __future__ import annotations

import io
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from microg import storage
from microg.errors import ConfigError, WeightsError
from microg.models.har.backbones.registry import build
from microg.models.har.backbones.roi_head import BoxClassifier
from microg.models.har.checkpoints import names as naming
from microg.models.har.checkpoints.files import FORMAT, StoredWeights, read_weights
from microg.models.har.checkpoints.names import pyslowfast_name

SHOWN = 8
HEAD = "detection_head."


@dataclass(frozen=True)
class Mismatch:
    """A tensor that the file has in another shape."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} (file {_shape(self.file_shape)}, model {_shape(self.model_shape)})"


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a model came from a file; names are the model's, `unexpected` and `head_unused` the file's.

    `key` is where in the file they stood ("" where it has nothing else), `prefix` what was taken off their names, and
    `other_keys` name further weights, such as averaged ones, that were not taken. `layout` is the naming that fitted
    the file. `filled` were absent and set to identity, as the model they come from computes; `missing` and `mismatched`
    are outside the head and were left as initialised, which `allowed` patterns accepted; `head` tells whether the
    classification head was loaded, and if not why.
    """

    path: str
    container: str
    layout: str
    model: str
    loaded: tuple[str, ...]
    filled: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    unexpected: tuple[str, ...]
    head_loaded: bool
    head: str
    head_unused: tuple[str, ...]
    allowed: tuple[str, ...]
    key: str = ""
    prefix: str = ""
    other_keys: tuple[str, ...] = ()

    @property
    def not_loaded(self) -> tuple[str, ...]:
        """The model's tensors outside the head that were left as initialised."""
        return (*self.missing, *(mismatch.name for mismatch in self.mismatched))

    @property
    def complete(self) -> bool:
        """Whether everything, the head included, came from the file."""
        return self.head_loaded and not self.not_loaded

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for run.json and `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return the report for people, line by line."""
        about = f"{self.container}{self.key and f', {self.key}'}, {self.layout} names"
        about += f" without {self.prefix!r}" if self.prefix else ""
        lines = [
            f"{self.model}: {len(self.loaded)} tensors loaded from {self.path} ({about})",
            f"  head: {self.head}",
        ]
        if self.other_keys:
            lines.append(f"  other weights in the file, for --weights-key: {listed(self.other_keys)}")
        groups: list[tuple[str, Sequence[object]]] = [
            ("filled as identity", self.filled),
            ("left as initialised, missing in the file", self.missing),
            ("left as initialised, of another shape", self.mismatched),
            ("in the file but not in the model", self.unexpected),
        ]
        return lines + [f"  {title}: {len(items)}: {listed(items)}" for title, items in groups if items]


def listed(items: Sequence[object]) -> str:
    """Return the first few items and how many more there are."""
    text = ", ".join(str(item) for item in items[:SHOWN])
    return text + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def is_allowed(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Tell whether one of a tensor's names fits one of the shell-style patterns."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def patterns_for(names: Sequence[str]) -> list[str]:
    """Return few patterns that fit all `names`: the numbers of blocks become `*`, then whole endings do.

    >>> patterns_for(["model.blocks.1.norm.weight", "model.blocks.3.norm.weight"])
    ['model.blocks.*.norm.weight']
    """
    general = [re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names]
    for depth in range(max((name.count(".") for name in general), default=0), 0, -1):
        patterns = sorted({_cut(name, depth) for name in general})
        if len(patterns) <= 4:
            return patterns
    return sorted({name.split(".")[0] + "*" for name in general})


def _cut(name: str, depth: int) -> str:
    parts = name.split(".")
    return name if len(parts) <= depth + 1 else ".".join([*parts[:depth], "*"])


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


_COUNTER = ".num_batches_tracked"  # no effect on results: absent in older files and in caffe2


def load_weights(
    model: nn.Module,
    path: str,
    *,
    allow_missing: Sequence[str] = (),
    require_head: bool = False,
    layout: str | None = None,
    key: str | None = None,
) -> LoadReport:
    """Load a weights file of any known format into a model of `build` and report what became of each tensor.

    The classification head is left as initialised where the file has none or one of another size; `require_head`
    refuses that. Anything else that would stay as initialised is refused, and the model left untouched, unless a
    shell-style pattern of `allow_missing` fits its name (ours or PySlowFast's). `layout` (microg, pyslowfast,
    pytorchvideo, torchvision) forces a naming instead of taking the one that fits best: it reproduces runs that read a
    file by the wrong names. `key` names the weights to take where a file holds several, else they are the raw ones.
    Raises `WeightsError`, `ConfigError`.
    """
    inner = unwrapped(model)
    return _load(inner, read_weights(path, key), allow_missing, require_head, layout)


def open_model(path: str) -> tuple[BoxClassifier, dict[str, Any]]:
    """Build the model that a file of `save_weights` describes, with its weights, in evaluation mode.

    Returns it and the file's metadata (`model`, `num_classes`, `roi_scale` and what was saved with it).
    Raises `WeightsError` for any other file.
    """
    stored = read_weights(path)
    metadata = stored.metadata
    if "model" not in metadata:
        raise WeightsError(f"{path} does not say which model it is for: it was not saved by microg", "name the model")
    model = build(metadata["model"], num_classes=metadata["num_classes"], roi_scale=metadata["roi_scale"])
    _load(model, stored, (), True, "microg")
    return model.eval(), metadata


def unwrapped(model: nn.Module) -> BoxClassifier:
    """Return the model inside DistributedDataParallel and torch.compile."""
    while not isinstance(model, BoxClassifier):
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            raise TypeError(f"{type(model).__name__} is not a model of microg.models.har.backbones.build")
        model = inner
    return model


def _load(
    model: BoxClassifier, stored: StoredWeights, patterns: Sequence[str], require_head: bool, forced: str | None
) -> LoadReport:
    targets: dict[str, Tensor] = model.state_dict()
    layout, prefix, tensors, renamed = _best_layout(model, stored, targets, forced)
    sources: dict[str, tuple[str, Tensor]] = {ours: (name, tensors[name]) for name, ours in renamed.items()}
    loaded: dict[str, Tensor] = {}
    missing, mismatched = [], []
    for name, target in targets.items():
        if name not in sources:
            if not name.endswith(_COUNTER):
                missing.append(name)
            continue
        value = _fitted(sources[name][1], target, name)
        if value is None:
            mismatched.append(Mismatch(name, tuple(sources[name][1].shape), tuple(target.shape)))
        else:
            loaded[name] = value
    filled = _identities(model, missing) if layout == "pytorchvideo" else {}
    unused = [name for name in tensors if name not in renamed]
    report = LoadReport(
        path=stored.path,
        container=stored.container,
        layout=layout,
        model=model.spec.name,
        loaded=tuple(loaded),
        filled=tuple(filled),
        missing=tuple(name for name in missing if not name.startswith(HEAD) and name not in filled),
        mismatched=tuple(mismatch for mismatch in mismatched if not mismatch.name.startswith(HEAD)),
        unexpected=tuple(name for name in unused if not naming.is_head(name)),
        head_loaded=all(name in loaded for name in targets if name.startswith(HEAD)),
        head=_head_note(missing, mismatched),
        head_unused=tuple(name for name in unused if naming.is_head(name)),
        allowed=tuple(patterns),
        key=stored.key,
        prefix=prefix,
        other_keys=stored.others,
    )
    _refuse_unfit(report, model, patterns, require_head, len(tensors))
    broken = [name for name, value in loaded.items() if not _is_finite(value)]
    if broken:
        raise WeightsError(f"{stored.path}: {len(broken)} tensors hold NaN or infinity: {listed(broken)}")
    with torch.no_grad():
        for name, value in {**loaded, **filled}.items():
            targets[name].copy_(value)
    return report


def _best_layout(
    model: BoxClassifier, stored: StoredWeights, targets: dict[str, Tensor], forced: str | None
) -> tuple[str, str, dict[str, Tensor], dict[str, str]]:
    """Return the naming that finds most tensors, the prefix it takes off, the tensors, and file name -> our name."""
    if stored.container == "caffe2 pickle":
        candidates = {"caffe2": naming.caffe2_layout(targets, model.spec)}
    else:
        candidates = naming.layouts(targets, model.spec)
    if forced is not None:
        if forced not in candidates:
            raise ConfigError(f"layout {forced!r} is none of {', '.join(candidates)}, which {stored.path} may have")
        candidates = {forced: candidates[forced]}
    results = []
    for prefix in naming.outer_prefixes(stored.tensors):
        plain = naming.without_prefix(stored.tensors, prefix)
        for layout, rename in candidates.items():
            separate = layout == "pytorchvideo" and model.spec.family == "mvit"
            tensors = naming.join_separate_qkv(plain) if separate else plain
            renamed = {name: ours for name in tensors if (ours := rename(name)) in targets}
            results.append((layout, prefix, tensors, renamed))
    return max(results, key=lambda result: len(result[3]))


def _fitted(value: Tensor, target: Tensor, name: str) -> Tensor | None:
    """Return `value` in the target's shape where only axes of size 1 differ, else None.

    PySlowFast keeps leading ones on position embeddings; caffe2 leaves trailing ones out.
    """
    if value.shape == target.shape:
        return value
    shape = list(value.shape)
    if ".pos_encoding." in name:
        while len(shape) > target.dim() and shape[0] == 1:
            shape.pop(0)
    shape += [1] * (target.dim() - len(shape))
    return value.reshape(shape) if shape == list(target.shape) else None


def _identities(model: BoxClassifier, missing: Sequence[str]) -> dict[str, Tensor]:
    """Return values that make norms of shortcuts do nothing, where pytorchvideo's models have none."""
    values: dict[str, Tensor] = {}
    for name in missing:
        module, _, kind = name.rpartition(".")
        if module.endswith(".branch1_norm"):
            norm: Any = model.get_submodule(module)
            whole = torch.ones_like(norm.weight) if kind in ("weight", "running_var") else torch.zeros_like(norm.bias)
            values[name] = whole - norm.eps if kind == "running_var" else whole
    return values


def _is_finite(value: Tensor) -> bool:
    # The extremes tell as much as all values, in one pass and without another tensor of that size.
    return value.numel() == 0 or not value.is_floating_point() or all(x.isfinite() for x in torch.aminmax(value))


def _head_note(missing: Sequence[str], mismatched: Sequence[Mismatch]) -> str:
    weight = HEAD + "proj.weight"
    other = next((mismatch for mismatch in mismatched if mismatch.name == weight), None)
    if other is not None:
        return (
            f"left as initialised: the file's has {other.file_shape[0]} classes of {other.file_shape[1]} features, "
            f"the model's {other.model_shape[0]} of {other.model_shape[1]}"
        )
    if weight in missing:
        return "left as initialised: the file has none that fits"
    return "loaded"


def _refuse_unfit(
    report: LoadReport, model: BoxClassifier, patterns: Sequence[str], require_head: bool, file_tensors: int
) -> None:
    if all(name.startswith(HEAD) for name in report.loaded):
        raise WeightsError(
            f"{report.path} holds no weights of {report.model}: none of its {file_tensors} tensors fits; they are "
            f"called {listed((*report.unexpected, *report.head_unused))}",
            "name the model that the file is for",
        )

    def refused(name: str) -> bool:
        return not is_allowed((name, naming.pyslowfast_name(name, model.spec)), patterns)

    unfit = [name for name in report.not_loaded if refused(name)]
    if unfit:
        shown = {mismatch.name: str(mismatch) for mismatch in report.mismatched}
        total = len(report.loaded) + len(report.filled) + len(report.not_loaded)
        options = " ".join(f"--allow-missing '{pattern}'" for pattern in patterns_for(unfit))
        raise WeightsError(
            f"{report.path} would leave {len(unfit)} of {total} tensors of {report.model} as initialised: "
            f"{listed([shown.get(name, name + ' (missing)') for name in unfit])}",
            f"use the weights of this very configuration, or accept it with {options}",
        )
    if require_head and not report.head_loaded and refused(HEAD + "proj.weight"):
        raise WeightsError(
            f"{report.path}: the head of {report.model} would be {report.head}; scores would be noise",
            f"fine-tune the model first, build it with the file's classes, or accept it with --allow-missing '{HEAD}*'",
        )


_VERSION = 1
_TOKENS = {"cls_token": 2, "pos_embed_class": 2, "pos_embed_spatial": 1, "pos_embed_temporal": 1}


def save_weights(model: nn.Module, path: str, **metadata: Any) -> None:
    """Write a model so that `open_model` needs nothing else: name, classes, RoI scale, weights and `metadata`.

    `metadata` must be plain (what JSON can hold). The file loads with `weights_only`; it is written atomically.
    """
    inner = unwrapped(model)
    described = {"model": inner.spec.name, "num_classes": inner.num_classes, "roi_scale": inner.roi_scale, **metadata}
    described = json.loads(json.dumps(described))
    content = {"format": FORMAT, "version": _VERSION, "metadata": described, "state_dict": _on_cpu(inner)}
    _write(path, content)


def export_pyslowfast(model: nn.Module, path: str) -> None:
    """Write a model as a PySlowFast checkpoint (`model_state`, its names and shapes), bit for bit."""
    inner = unwrapped(model)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in _on_cpu(inner).items():
        renamed = pyslowfast_name(name, inner.spec)
        state[renamed] = value.reshape((1,) * _TOKENS.get(renamed, 0) + tuple(value.shape))
    _write(path, {"model_state": state})


def _on_cpu(model: nn.Module) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, value.detach().cpu().contiguous()) for name, value in model.state_dict().items())


def _write(path: str, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    storage.write_bytes(path, buffer.getvalue())
