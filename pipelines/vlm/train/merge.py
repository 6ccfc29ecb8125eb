"""From a run's adapters to a checkpoint that every engine loads, with a check that it says the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from microg import storage
from microg.errors import ConfigError, WeightsError
from microg.locks import exclusive, hidden
from microg.models.vlm.base import Frames, Request
from microg.models.vlm.cards import card_of, is_checkpoint
from microg.pipelines.vlm.train.model_card import model_card
from microg.pipelines.vlm.train.run import COMMAND, shown_by
from microg.pipelines.vlm.train.settings import TuneSettings
from microg.pipelines.vlm.train.worker import ADAPTER, MODEL, REPORT, put_folder, save_checkpoint

# How far logits may be apart, as a part of the largest: 16 bits round weights.
_LARGEST = 0.1
# What the two models are asked, to compare them: one clip of noise with so many frames of so many pixels.
_FRAMES, _HEIGHT, _WIDTH = 4, 112, 168


def tuned_model(run: str) -> str:
    """Return the checkpoint of a run of `microg vlm train`, merged when that was not done yet.

    Raises:
        ConfigError: It is no such run, or not finished.
    """
    settings = settings_of(run)
    model = storage.join(run, MODEL)
    if not is_checkpoint(model):
        if settings.method == "full":
            raise ConfigError(f"{run} is not finished: it has no model yet", "run the same 'microg vlm train' again")
        merge_run(run)
    return model


def settings_of(run: str) -> TuneSettings:
    """Return the settings of a run of `microg vlm train`.

    Raises:
        ConfigError: It is no such run.
    """
    path = storage.join(run, "run.json")
    found = storage.read_json(path) if storage.exists(path) else {}
    if not isinstance(found, dict) or found.get("command") != COMMAND:
        raise ConfigError(f"{run} is no run of 'microg vlm train'", "give the folder that its --run named")
    return TuneSettings.model_validate(found["full_config"])


def merge_run(run: str, out: str | None = None, device: str = "cpu") -> dict[str, Any]:
    """Merge a run's adapters into its model, write the checkpoint and its card, and return the report.

    Args:
        run: Run folder.
        out: Folder to write; None takes RUN/model.
        device: Where the model is loaded.

    Raises:
        ConfigError: The run has no adapters, its model is another one now, or the folder holds other files.
        WeightsError: The adapters do not fit, or the merged model does not say what the model with adapters says.
    """
    target = out or storage.join(run, MODEL)
    with exclusive(target):
        return _merge(run, target, device)


def _merge(run: str, target: str, device: str) -> dict[str, Any]:
    import torch

    from microg.models.vlm.engines.transformers import TransformersEngine, load_model
    from microg.models.vlm.tuning.adapters import merge, with_adapter

    settings = settings_of(run)
    adapter = storage.join(run, ADAPTER)
    if settings.method == "full":
        raise ConfigError(f"{run} tuned the weights themselves: nothing is to be merged", f"use {run}/{MODEL}")
    if not storage.exists(storage.join(adapter, "adapter_config.json")):
        raise ConfigError(f"{run} has no adapters yet", "run the same 'microg vlm train' again to finish it")
    # what lies there is replaced: only a model that was merged before may be
    if hidden(storage.names(target)) and not storage.exists(storage.join(target, REPORT)):
        raise ConfigError(f"{target} holds other files, which a merged model would replace", "give another --out")
    found = card_of(settings.model)
    engine = TransformersEngine(found.hub_id, found.settings.get("revision"), **shown_by(found, settings))
    if engine.checkpoint.identity != settings.model_identity:
        raise ConfigError(
            f"{settings.model} is not the model that {run} tuned", "its files have changed: put those ones back"
        )
    with tempfile.TemporaryDirectory() as scratch:
        local = _local(adapter, Path(scratch) / ADAPTER)
        kind = "bfloat16" if device != "cpu" else engine.stored_as
        model = with_adapter(load_model(engine.checkpoint, kind, device), local)
        before = _logits(model, engine)
        plain, report = merge(model)
        after = _logits(plain, engine)
        difference = float((after - before).abs().max())
        same = float((after.argmax(-1) == before.argmax(-1)).float().mean())
        if not torch.isfinite(after).all() or difference > _LARGEST * max(float(before.abs().max()), 1.0):
            raise WeightsError(
                f"the merged model's logits are {difference:.3g} from those of the model with adapters",
                "load it with --device cuda, or keep the adapters apart",
            )
        folder = Path(scratch) / MODEL
        save_checkpoint(plain, engine, folder, settings)
        about = {**report.to_dict(), "logits": difference, "same_choice": same, "dtype": kind, "run": run}
        about["model"] = target
        storage.write_json(str(folder / REPORT), about)
        (folder / "README.md").write_text(model_card(run, settings, about), encoding="utf-8")
        put_folder(folder, target)
    return about


def _local(adapter: str, target: Path) -> Path:
    """Return a run's adapter on this machine's disk."""
    if storage.is_local(adapter):
        return storage.local_path(adapter)
    target.mkdir(parents=True)
    for name in storage.names(adapter):
        (target / name).write_bytes(storage.read_bytes(storage.join(adapter, name)))
    return target


def _logits(model: Any, engine: Any) -> Any:
    """Return the logits (tokens, vocabulary) of an answer to a question about a clip of noise, as float32."""
    import numpy as np
    import torch

    from microg.models.vlm.tuning.examples import clip_example
    from microg.models.vlm.tuning.loss import AnswerLoss, base_of

    pixels = np.random.default_rng(0).integers(0, 256, (_FRAMES, _HEIGHT, _WIDTH, 3), np.uint8)
    frames = Frames(pixels, tuple(range(_FRAMES)), 30.0, _FRAMES)
    request = Request("check", "What do the people in this video do, and how do they hold themselves?", "", frames)
    answer = "Two astronauts float beside each other and hold a handrail."
    example = clip_example(base_of(model), engine.chat, [request], [answer], dict(engine.processor))
    with torch.inference_mode():
        return AnswerLoss(model).logits(example).float().cpu()
