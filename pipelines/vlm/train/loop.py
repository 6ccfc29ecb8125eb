"""The loop of one worker: steps, validation, checkpoints, and going on from wherever the run was left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from microg.errors import TrainingError
from microg.models.har.training.optimizers import learning_rate, set_learning_rate
from microg.models.vlm.tuning.loss import AnswerLoss
from microg.pipelines.core.training.checkpoints import Progress, RunFiles, TensorBoardLog
from microg.pipelines.core.training.epochs import Epochs
from microg.pipelines.core.training.plan import Plan
from microg.pipelines.core.training.worker_group import WorkerGroup
from microg.pipelines.vlm.train.replicas import Replicas
from microg.pipelines.vlm.train.settings import TuneSettings
from microg.pipelines.vlm.train.stream import Lesson
from microg.pipelines.vlm.train.validation import Answers, scores_of

TABLE = "vlm_train"
_SUMS = ("loss_sum", "tokens", "clips", "failed", "stop", "late")


@dataclass(frozen=True, kw_only=True)
class TuneContext:
    """What every worker of a run needs; sent to it by Ray.

    Attributes:
        root: The run folder.
        settings: The run's settings, resolved.
        plan: Order of all clips.
        generated: Clips of the val split that are answered in a validation.
        model: Folder or hub id of the model that is tuned.
        revision: Its commit on the hub.
        engine: Settings of the engine that shows frames: frames_as, chat_template, repeat_frames, processor.
    """

    root: str
    settings: TuneSettings
    plan: Plan
    generated: frozenset[str]
    model: str
    revision: str | None
    engine: dict[str, Any]


class TuneLoop(Epochs[list[Lesson]]):
    """Runs one worker's part of a run from `progress` on.

    Args:
        context: The run.
        group: The workers.
        replicas: The model over the workers.
        answerer: Answers requests with the model as it is, for validation.
        progress: Where the run is.
        state: What `_save` kept there; None at the start.
    """

    def __init__(
        self,
        context: TuneContext,
        group: WorkerGroup,
        replicas: Replicas,
        answerer: Any,
        progress: Progress,
        state: dict[str, Any] | None,
    ) -> None:
        self.context, self.group, self.progress = context, group, progress
        self.plan = context.plan
        self._replicas, self._answerer = replicas, answerer
        self._loss = AnswerLoss(replicas.model)
        self._files = RunFiles(context.root)
        settings = context.settings
        self._optimizer = torch.optim.AdamW(
            replicas.parameters,
            settings.schedule.lr,
            settings.optimizer.betas,
            weight_decay=settings.optimizer.weight_decay,
        )
        if state is not None:
            replicas.load(state["model"])
            replicas.load_optimizer(self._optimizer, state["optimizer"])
        logs = settings.tensorboard and group.rank == 0
        self.log = TensorBoardLog(context.root if logs else None, self.progress.steps(self.plan.iterations))
        self._saved = time.monotonic()
        self._lr, self._last_loss = 0.0, float("nan")
        self._spare: Lesson | None = None

    def train_epoch(self, work: Iterator[list[Lesson]]) -> bool:
        plan, progress = self.plan, self.progress
        self._loss.train()
        while progress.iteration < plan.iterations:
            started = time.monotonic()
            schedule = self.context.settings.schedule
            self._lr = learning_rate(schedule, progress.epoch + progress.iteration / plan.iterations, plan.epochs)
            set_learning_rate(self._optimizer.param_groups, self._lr)
            totals, waited, failures = self._step(work)
            stop, late = totals.pop("stop"), totals.pop("late")
            progress.iteration += 1
            self.progress.add(totals, waited, time.monotonic() - started, failures)
            self._last_loss = totals["loss_sum"] / max(totals["tokens"], 1)
            self.log.step(self.progress.steps(self.plan.iterations), self._last_loss, self._lr)
            if stop:
                self.save()
                return False
            if late:
                self.save()
        return True

    def _step(self, work: Iterator[list[Lesson]]) -> tuple[dict[str, float], float, list[str]]:
        """Compute one optimizer step; return sums over all workers by `_SUMS`, seconds waited, and failures."""
        plan, waited = self.plan, 0.0
        failures: list[str] = []
        loss_sum, tokens, clips = 0.0, 0, 0
        for turn in range(plan.micro_batches):
            begin = time.monotonic()
            (lesson,) = next(work)
            waited += time.monotonic() - begin
            spare = self._stand_in(lesson)
            if lesson.example is None:
                failures.append(f"{lesson.clip_id}: {lesson.error}")
                if spare is not None:
                    (self._forward(spare) * 0).backward()
                continue
            torch.manual_seed(self._number(turn))  # so dropout depends on the place in the run alone
            loss = self._forward(lesson)
            loss.backward()
            loss_sum, tokens, clips = loss_sum + float(loss.detach()), tokens + lesson.example.targets, clips + 1
        # wishes to stop and to save travel with the sums: all workers have to save together where they share the model
        stop = float(self.group.update(self._where("training")))
        late = time.monotonic() - self._saved > self.context.settings.checkpoint_every_s and self.group.rank == 0
        totals = self.group.total([loss_sum, tokens, clips, len(failures), stop, float(late)])
        if not totals[1]:
            raise TrainingError(
                f"no clip of a batch could be used: {'; '.join(failures[:3])}",
                "run 'microg data validate' on the dataset",
            )
        self._replicas.sum_gradients(1 / totals[1])
        if not torch.isfinite(torch.tensor(totals[0])):
            raise TrainingError(
                f"the loss is {totals[0]} in epoch {self.progress.epoch + 1}",
                "lower the rate: --set schedule.lr=0.00005",
            )
        if self.context.settings.optimizer.clip_grad_norm is not None:
            self._replicas.clip_gradients(self.context.settings.optimizer.clip_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return dict(zip(_SUMS, totals, strict=True)), waited, failures

    def _forward(self, lesson: Lesson) -> torch.Tensor:
        assert lesson.example is not None
        half = self.context.settings.precision == "bfloat16"
        with torch.autocast(self._loss.device.type, torch.bfloat16) if half else nullcontext():
            return self._loss(lesson.example)

    def _stand_in(self, lesson: Lesson | None) -> Lesson | None:
        """Return a clip to compute for nothing where this worker has none and the others wait for its parameters.

        All workers have to call. Raises `TrainingError` when no worker ever had a usable clip.
        """
        if not self._replicas.sharded:
            return None
        if lesson is not None and lesson.example is not None:
            self._spare = lesson
        if self.group.total([float(self._spare is None)])[0]:
            found = [each for each in self.group.gather(self._spare) if each is not None]
            if not found:
                raise TrainingError("none of the first clips can be used", "run 'microg data validate' on the dataset")
            self._spare = self._spare or found[0]
        return self._spare

    def _number(self, turn: int) -> int:
        """Return a number that a clip's turn has in this run alone, whoever computes it."""
        plan, progress = self.plan, self.progress
        step = progress.epoch * plan.iterations + progress.iteration
        number = (step * plan.micro_batches + turn) * plan.workers + self.group.rank
        return (self.context.settings.seed * 0x9E3779B1 + number) % 2**63

    def validate(self, work: Iterator[list[Lesson]]) -> dict[str, Any] | None:
        """Return the scores of the val split, the same on every worker; None when asked to stop."""
        started = time.monotonic()
        answers, chosen = Answers(), []
        self._loss.eval()
        for _ in range(self.plan.val_rounds):
            lesson = next(iter(next(work)), None)
            spare = self._stand_in(lesson)
            if lesson is not None and lesson.example is not None:
                with torch.no_grad():
                    answers.loss_sum += float(self._forward(lesson))
                answers.tokens += lesson.example.targets
                answers.clips += 1
                if lesson.clip_id in self.context.generated:
                    chosen.append(lesson)
            else:
                if lesson is not None:
                    answers.failures.append(f"{lesson.clip_id}: {lesson.error}")
                if spare is not None:
                    with torch.no_grad():
                        self._forward(spare)
            if self.group.total([float(self.group.update(self._where("validation")))])[0]:
                return None
        if self._replicas.sharded:  # all have to compute in step: each answers everything
            chosen = [lesson for part in self.group.gather(chosen) for lesson in part]
        for lesson in chosen:
            answers.add(lesson, self._answer(lesson))
            self.group.update(self._where("answering"))
        parts = self.group.gather(answers)
        scores = scores_of(parts, once=self._replicas.sharded) if self.group.rank == 0 else {}
        scores = self.group.gather(scores)[0]
        self.progress.keep_failures([failure for part in parts for failure in part.failures])
        return {**scores, "val_s": time.monotonic() - started}

    def _answer(self, lesson: Lesson) -> Sequence[str]:
        half = self.context.settings.precision == "bfloat16"
        with torch.autocast(self._loss.device.type, torch.bfloat16) if half else nullcontext():
            return self._answerer(lesson.requests)

    def finish_epoch(self, scores: dict[str, Any]) -> None:
        progress, partial, settings = self.progress, self.progress.partial, self.context.settings
        select = settings.validation.select
        value = scores.get("val_loss") if select == "loss" else scores.get("scores", {}).get(select)
        rank = None if value is None else -value if select == "loss" else value
        best = rank is not None and (progress.best is None or rank > progress.best["rank"])
        number, seconds = progress.epoch + 1, partial.get("train_s", 0.0)
        row = {
            "epoch": number,
            "steps": number * self.plan.iterations,
            "lr": self._lr,
            "loss": partial.get("loss_sum", 0.0) / max(partial.get("tokens", 0.0), 1.0),
            **{name: int(partial.get(name, 0)) for name in ("clips", "tokens", "failed")},
            "train_s": seconds,
            "wait_s": partial.get("wait_s", 0.0),
            "clips_per_s": partial.get("clips", 0.0) / max(seconds, 1e-9),
            **{name: scores.get(name) for name in ("val_loss", "val_clips", "val_answers", "val_s")},
            "best": best,
        }
        found = {f"val_{name}": float(score) for name, score in scores.get("scores", {}).items()}
        progress.history.append({**row, **found})
        if best:
            progress.best = {"epoch": number, "select": select, "value": value, "rank": rank}
        progress.epoch, progress.iteration, progress.partial = progress.epoch + 1, 0, {}
        progress.finished = progress.epoch == self.plan.epochs
        keep = best or (progress.best is None and progress.finished)
        state = self._replicas.state() if keep else None
        if self.group.rank == 0:
            self.log.epoch({**row, **found})
            if state is not None:
                self._files.save_best(state)
            self._files.write_history(progress, TABLE)
        self.save()
        self.group.report({**row, "epochs": self.plan.epochs})

    def save(self) -> None:
        """Commit where the run is; all workers take part where the model is shared out, one writes."""
        state: dict[str, Any] = {}
        if self.group.rank == 0 or self._replicas.sharded:
            optimizer = self._replicas.optimizer_state(self._optimizer)
            state = {"model": self._replicas.state(), "optimizer": optimizer}
        if self.group.rank == 0:
            self._files.save(self.progress, state)
        self._saved = time.monotonic()

    def _where(self, phase: str) -> dict[str, Any]:
        return self.progress.where(phase, self.plan.iterations, self._lr, self._last_loss)
