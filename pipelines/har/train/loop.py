"""The loop of one worker: steps, validation, checkpoints, and going on from wherever the run was left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from microg.errors import TrainingError
from microg.metrics.har.registry import validation_columns
from microg.models.har.backbones.roi_head import normalise
from microg.models.har.checkpoints import save_weights
from microg.models.har.training.augment import quarter_turns
from microg.models.har.training.batch_norm import RunningStatistics
from microg.models.har.training.optimizers import learning_rate, set_learning_rate
from microg.models.har.training.step import Stepper, box_loss
from microg.pipelines.core.training.checkpoints import Progress, RunFiles, TensorBoardLog
from microg.pipelines.core.training.epochs import Epochs
from microg.pipelines.core.training.plan import Plan
from microg.pipelines.core.training.worker_group import WorkerGroup
from microg.pipelines.har.samples import SampleBatch
from microg.pipelines.har.train.settings import TrainConfig
from microg.pipelines.har.train.stream import Piece, Views
from microg.pipelines.har.train.validation import Scorer, ValSums

_SUMS = ("loss_sum", "cells", "clips", "boxes", "failed")


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """What every worker of a run needs; sent to it by Ray. `val_rows` and `val_truth` describe the val split."""

    root: str
    config: TrainConfig
    plan: Plan
    views: Views
    weights: str | None
    val_rows: pa.Table
    val_truth: pa.Table


class TrainLoop(Epochs[Piece]):
    """Runs one worker's part of a run from `progress` on.

    `model` is the bare model, which `stepper` may hold wrapped. Only rank 0 writes.
    """

    def __init__(
        self, context: TrainingContext, group: WorkerGroup, model: nn.Module, stepper: Stepper, progress: Progress
    ) -> None:
        self.context, self.group, self.progress = context, group, progress
        self.plan = context.plan
        self.model, self.stepper, self.device = model, stepper, stepper.device
        self._files = RunFiles(context.root)
        self._statistics = RunningStatistics(model)
        self._scorer = Scorer(context.val_rows, context.val_truth, context.config.space)
        self._saved = time.monotonic()
        logs = context.config.tensorboard and group.rank == 0
        self.log = TensorBoardLog(context.root if logs else None, self.progress.steps(self.plan.iterations))
        self._lr, self._loss = 0.0, float("nan")

    def train_epoch(self, work: Iterator[Piece]) -> bool:
        plan, progress = self.plan, self.progress
        self.stepper.model.train()
        while progress.iteration < plan.iterations:
            started = time.monotonic()
            self._lr = self._rate(progress.iteration)
            set_learning_rate(self.stepper.optimizer.param_groups, self._lr)
            sums, waited, failures = self._step(work)
            # the wish to stop travels with the sums, so that all workers end at the same step
            *totals, stop = self.group.total([*sums, float(self.group.update(self._where("training")))])
            progress.iteration += 1
            self.progress.add(dict(zip(_SUMS, totals, strict=True)), waited, time.monotonic() - started, failures)
            self._loss = totals[0] / max(totals[1], 1)
            self.log.step(self.progress.steps(self.plan.iterations), self._loss, self._lr)
            if stop:
                self.save()
                return False
            if time.monotonic() - self._saved > self.context.config.checkpoint_every_s:
                self.save()
        return True

    def _step(self, work: Iterator[Piece]) -> tuple[list[float], float, list[str]]:
        """Compute one optimizer step; return sums in the order of `_SUMS`, seconds waited, and what failed."""
        plan, clips, failed, waited, failures = self.plan, 0, 0, 0.0, []
        self._statistics.begin_step()
        for turn in range(plan.micro_batches):
            begin = time.monotonic()
            piece = next(work)
            waited += time.monotonic() - begin
            failures += [f"{key} {reason}" for key, reason in piece.errors]
            if not piece.batches:
                raise TrainingError(
                    f"no sample of a batch could be decoded: {'; '.join(failures[:3])}",
                    "run 'microg data validate' on the dataset",
                )
            number = self._micro_batch_number(turn)
            torch.manual_seed(number)  # so dropout depends on the place in the run: no generator's state is kept
            boxes_in_all = sum(len(batch.boxes) for batch in piece.batches)
            for batch in piece.batches:  # several where whole frames differ in size
                self.stepper.forward_backward(
                    *self._to_device(batch, number if self.context.config.quarter_turns else None),
                    batch.keys,
                    share=(len(batch.boxes) / boxes_in_all if boxes_in_all else 1.0) / plan.micro_batches,
                    last=turn + 1 == plan.micro_batches and batch is piece.batches[-1],
                )
                self._statistics.take_micro_batch(turn)
                clips += len(batch.keys)
            failed += len(piece.errors)
        done = self.stepper.step()
        self._statistics.end_step(self.group.gather_rows(self._statistics.rows()))
        return [done.loss_sum, done.cells, clips, done.boxes, failed], waited, failures

    def _rate(self, iteration: int) -> float:
        plan, schedule = self.plan, self.context.config.schedule
        return learning_rate(schedule, self.progress.epoch + iteration / plan.iterations, plan.epochs)

    def _micro_batch_number(self, turn: int) -> int:
        """Return a number that a micro-batch has in this run alone, whoever computes it."""
        plan, progress = self.plan, self.progress
        step = progress.epoch * plan.iterations + progress.iteration
        number = (step * plan.micro_batches + turn) * plan.workers + self.group.rank
        return (self.context.config.seed * 0x9E3779B1 + number) % 2**63

    def _to_device(
        self, batch: SampleBatch, turned: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return clips as the model takes them, boxes and labels; `turned` seeds quarter turns."""
        clips, boxes = batch.clips.to(self.device, non_blocking=True), batch.boxes.to(self.device, non_blocking=True)
        if turned is not None:
            turns = np.random.default_rng(turned).integers(0, 4, len(batch.keys))
            clips, boxes = quarter_turns(clips, boxes, turns.tolist())
        clips = normalise(clips)
        if self.context.config.step.channels_last:
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        return clips, boxes, batch.labels.to(self.device, non_blocking=True)

    def validate(self, work: Iterator[Piece]) -> dict[str, Any] | None:
        """Return the scores of the val split, the same on every worker; None when asked to stop."""
        plan, sums, started, waited = self.plan, ValSums([], [], []), time.monotonic(), 0.0
        self.model.eval()
        left = plan.val_rounds
        while left > 0:
            begin = time.monotonic()
            piece = next(work)
            waited += time.monotonic() - begin
            left -= plan.blocks
            sums.failed += [f"{key} {reason}" for key, reason in piece.errors]
            for batch in piece.batches:
                with torch.inference_mode():
                    clips, boxes, labels = self._to_device(batch)
                    logits = self.model(clips, boxes).float()
                    sums.loss_sum += float(box_loss(logits, labels)) * labels.numel()
                sums.tables.append(self._scorer.rows(batch, logits.cpu().numpy()))
                sums.keys += batch.keys
            if self.group.total([float(self.group.update(self._where("validation")))])[0]:
                return None
        parts = self.group.gather(sums)
        scores = self._scorer.scores(parts) if self.group.rank == 0 else {}
        failures = [failure for part in parts for failure in part.failed]
        self.progress.keep_failures(failures)
        scores = self.group.gather(scores)[0]
        return {**scores, "val_s": time.monotonic() - started, "val_failed": len(failures)}

    def finish_epoch(self, scores: dict[str, Any]) -> None:
        progress, partial, config = self.progress, self.progress.partial, self.context.config
        chosen = scores.get(f"val_map_{config.validation.select}")
        best = chosen is not None and (progress.best is None or chosen > progress.best["map"])
        number = progress.epoch + 1
        seconds = partial.get("train_s", 0.0)
        row = {
            "epoch": number,
            "steps": number * self.plan.iterations,
            "lr": self._rate(self.plan.iterations - 1),
            "loss": partial.get("loss_sum", 0.0) / max(partial.get("cells", 0.0), 1.0),
            **{name: int(partial.get(name, 0)) for name in ("clips", "boxes")},
            "failed": int(partial.get("failed", 0)) + scores.get("val_failed", 0),
            "train_s": seconds,
            "wait_s": partial.get("wait_s", 0.0),
            "step_s": seconds - partial.get("wait_s", 0.0),
            "val_s": scores.get("val_s"),
            "clips_per_s": partial.get("clips", 0.0) / max(seconds, 1e-9),
            **{name: scores.get(name) for name in ("val_loss", *validation_columns(), "val_boxes")},
            "best": best,
        }
        progress.history.append(row)
        if best:
            progress.best = {"epoch": number, "map": chosen, "select": config.validation.select}
        progress.epoch, progress.iteration, progress.partial = progress.epoch + 1, 0, {}
        progress.finished = progress.epoch == self.plan.epochs
        if self.group.rank == 0:
            self.log.epoch(row)
            if best or (progress.best is None and progress.finished):
                save_weights(self.model, self._files.best, epoch=number, **self._about())
            self._files.write_history(progress, "har_train")
        self.save()
        self.group.report({**row, "epochs": self.plan.epochs, "best_map": (progress.best or {}).get("map")})

    def _about(self) -> dict[str, Any]:
        config = self.context.config
        return {
            "row": config.row,
            "variant": config.variant,
            "label_space": config.space.name,
            **({} if config.vocabulary is None else {"vocabulary": config.vocabulary}),
            "best": self.progress.best,
        }

    def save(self) -> None:
        """Commit where the run is; the weights are the same on all workers, so one of them writes."""
        if self.group.rank == 0:
            self._files.save(self.progress, {"model": self.model.state_dict(), **self.stepper.state()})
        self._saved = time.monotonic()

    def _where(self, phase: str) -> dict[str, Any]:
        return self.progress.where(phase, self.plan.iterations, self._lr, self._loss)
