"""Training a small vision-language model from nothing, in one process.

Not on Ray Train: the model has a million parameters, an epoch is seconds of one core, and the time goes into many
small steps, which more workers would only wait for each other at. Killed at any time, the same call goes on from the
last checkpoint to the same bits.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from microg import storage
from microg.demo.tiny_vlm.batches import Feed, keep_all
from microg.demo.tiny_vlm.learner import Learner, Positions
from microg.demo.tiny_vlm.lessons import Lessons, TrainingClip, read_lessons
from microg.demo.tiny_vlm.settings import VlmTrainSettings
from microg.errors import ConfigError, TrainingError
from microg.locks import exclusive
from microg.models.har.training.optimizers import learning_rate, set_learning_rate
from microg.models.vlm.layouts import OWN_FACTS
from microg.pipelines.core.training.ahead import ahead
from microg.pipelines.core.training.checkpoints import RunFiles
from microg.runs import Run

COMMAND = "vlm train-tiny"
ARCHITECTURE = "qwen2_5_vl"
Watch = Callable[[dict[str, Any]], None]


def train(
    settings: VlmTrainSettings, dataset: str, folder: str, watch: Watch = lambda progress: None
) -> dict[str, Any]:
    """Train, or go on training, the model of run folder `folder`, and return the result.

    The model is written to `folder`/model when it is finished. `watch` gets the progress after every clip and step.
    Raises `MicrogError` for what the user can put right.
    """
    if not storage.is_local(folder):
        raise ConfigError(f"a model cannot be trained into {folder}", "give a run folder on a local or shared disk")
    folder = storage.absolute(folder)
    lessons = read_lessons(dataset, settings)
    with exclusive(folder):
        run = Run.start(folder, COMMAND, settings, dataset=lessons.fingerprint)
        result = _Training(settings, lessons, run.root, watch).run()
        run.finish(result)
    return result


class _Training:
    """One invocation."""

    def __init__(self, settings: VlmTrainSettings, lessons: Lessons, folder: str, watch: Watch) -> None:
        self._settings, self._lessons, self._folder, self._watch = settings, lessons, folder, watch
        self._files = RunFiles(folder)
        self._progress = self._files.progress()
        self._frames = storage.join(folder, "checkpoints", "frames")
        self._target = Path(storage.local_path(folder)) / "model"
        self._seconds = {"read_s": 0.0, "train_s": 0.0}

    def run(self) -> dict[str, Any]:
        before = self._progress.finished
        if not before:
            self._train()
        return self._result(before)

    def _train(self) -> None:
        import torch

        from microg.models.vlm.engines.checkpoint import find, load_chat
        from microg.models.vlm.engines.transformers import load_model

        settings = self._settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        checkpoint = find(str(self._initial_model()))
        model = load_model(checkpoint, device=settings.device)
        chat = load_chat(checkpoint, "video")
        self._feed = Feed(chat, Positions(model), settings, self._frames)
        train = self._read(self._lessons.train, settings.views)
        val = self._read(self._lessons.val, 1)
        cells = settings.cells and all(len(clip.labels) for clip in train)
        words = len(self._lessons.words) if settings.words else 0
        self._vision_epochs = settings.vision_epochs if cells or words else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._learner = Learner(model, len(self._lessons.actions) if cells else 0, words).to(model.device)
        adam = settings.optimizer
        self._optimizer = self._learner.optimizer(settings.schedule.lr, adam.betas, adam.weight_decay, adam.muon)
        if (state := self._files.load(self._progress)) is not None:
            self._learner.load_state_dict(state["learner"])
            self._optimizer.load_state_dict(state["optimizer"])
        while self._progress.epoch < self._vision_epochs + settings.epochs:
            self._epoch(train, val)
        self._write(model, chat)

    def _initial_model(self) -> Path:
        """Return the folder of the model with random weights, made when it is not there yet."""
        from microg.demo.tiny_models import build

        folder = Path(storage.local_path(self._folder)) / "checkpoints" / "untrained"
        if not folder.is_dir():
            texts = [text for clip in self._lessons.train for text in clip.texts]
            made = folder.with_suffix(".tmp")
            shutil.rmtree(made, ignore_errors=True)
            build(
                ARCHITECTURE,
                made,
                seed=self._settings.seed,
                texts=texts,
                size=self._settings.size,
                phrases=self._settings.phrases(),
            )
            made.rename(folder)
        return folder

    def _read(self, clips: tuple[TrainingClip, ...], views: int) -> list[TrainingClip]:
        started = time.monotonic()
        progress = {"phase": "read", "total": len(clips)}
        good, failures = keep_all(self._feed, clips, views, lambda error: self._watch({**progress, "error": error}))
        self._progress.failures += [failure for failure in failures if failure not in self._progress.failures]
        self._seconds["read_s"] += time.monotonic() - started
        return good

    def _epoch(self, train: list[TrainingClip], val: list[TrainingClip]) -> None:
        settings, progress = self._settings, self._progress
        steps = -(-len(train) // settings.batch)
        epochs, questions = self._vision_epochs + settings.epochs, progress.epoch >= self._vision_epochs
        begin, end = (self._vision_epochs, epochs) if questions else (0, self._vision_epochs)  # of this phase
        started = saved = time.monotonic()
        for batch in ahead(self._feed.batches(train, progress.epoch, progress.iteration, questions), 2):
            lr = learning_rate(settings.schedule, progress.epoch - begin + progress.iteration / steps, end - begin)
            losses = self._step(batch, lr)
            progress.iteration += 1
            for name, value in losses.items():
                progress.partial[name] = progress.partial.get(name, 0.0) + value
            self._watch(
                {
                    "phase": "train" if questions else "look",
                    "epoch": progress.epoch,
                    "end": end,
                    "steps": steps,
                    "step": progress.iteration,
                    "lr": lr,
                    **losses,
                }
            )
            now = time.monotonic()
            if now - saved >= settings.checkpoint_every_s and progress.iteration < steps:
                progress.partial["train_s"] = progress.partial.get("train_s", 0.0) + now - started
                started = saved = now
                self._save()
        row: dict[str, Any] = {name: progress.partial[name] / steps for name in ("loss", "cells_loss", "words_loss")}
        row["train_s"] = progress.partial.get("train_s", 0.0) + time.monotonic() - started
        progress.epoch, progress.iteration, progress.partial = progress.epoch + 1, 0, {}
        if questions and ((progress.epoch - begin) % settings.validate_every == 0 or progress.epoch == epochs):
            row |= {"val": self._validate(val)}
        progress.history.append({"epoch": progress.epoch, "steps": steps * progress.epoch, **row})
        self._seconds["train_s"] += row["train_s"]
        self._save()

    def _step(self, batch: Any, lr: float) -> dict[str, float]:
        import torch

        set_learning_rate(self._optimizer.param_groups, lr)
        questions = batch.packed is not None
        if questions:
            for group in self._optimizer.param_groups:
                group["lr"] *= self._settings.encoder_rate if group["encoder"] else 1.0
        losses = self._learner.losses(batch)
        loss = losses.answers + self._settings.cells * losses.cells + self._settings.words * losses.words
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} in epoch {self._progress.epoch + 1}",
                "lower the rate: --set schedule.lr=0.0005",
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._settings.optimizer.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._learner.parameters(), self._settings.optimizer.clip_grad_norm)
        self._optimizer.step()
        return {
            "loss": (losses.answers if questions else loss).item(),
            "cells_loss": losses.cells.item(),
            "words_loss": losses.words.item(),
        }

    def _validate(self, val: list[TrainingClip]) -> dict[str, float]:
        """Return the share of val answers that are right to the letter, of each kind."""
        right: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for lessons, batch in self._feed.validation_batches(val):
            for lesson, hit in zip(lessons, self._learner.right(batch), strict=True):
                total[lesson.kind] += 1
                right[lesson.kind] += bool(hit)
        return {kind: right[kind] / total[kind] for kind in sorted(total)}

    def _save(self) -> None:
        state = {"learner": self._learner.state_dict(), "optimizer": self._optimizer.state_dict()}
        self._files.save(self._progress, state)

    def _write(self, model: Any, chat: Any) -> None:
        """Write the trained model in the Hugging Face layout, with frames and prompts; remove the training frames."""
        from microg.demo.tiny_models.save import save

        made = self._target.with_suffix(".tmp")
        shutil.rmtree(made, ignore_errors=True)
        save(model, chat.processor, made)
        about = {
            "frames": self._settings.frames.model_dump(mode="json"),
            "prompts": self._settings.prompts.model_dump(),
        }
        storage.write_json(str(made / OWN_FACTS), about)
        shutil.rmtree(self._target, ignore_errors=True)
        made.rename(self._target)
        self._progress.finished = True
        self._save()
        storage.remove_tree(self._frames)

    def _result(self, before: bool) -> dict[str, Any]:
        progress = self._progress
        return {
            "run": self._folder,
            "model": str(self._target),
            "already_finished": before,
            "complete": progress.finished,
            "epochs": progress.epoch,
            "history": progress.history,
            "failures": progress.failures,
            "clips": {"train": len(self._lessons.train), "val": len(self._lessons.val)},
            "seconds": self._seconds,
        }
