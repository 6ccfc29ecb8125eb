"""What a training run keeps on disk: where it is, the state to go on from, and the best weights.

`checkpoints/progress.json` names the state file that belongs to it and is replaced last, so a kill at any moment
leaves a pair that fits. `checkpoints/best.pt` holds the weights of the best epoch in the project's own format.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from microg import storage
from microg.data import schema
from microg.errors import DatasetError
from microg.pipelines.core.training.plan import Position
from microg.storage_faults import writing

_FORMAT = "microg-train/1"
BEST = "best.pt"
_FAILURES_KEPT = 100


@dataclass
class Progress:
    """Where a run is: what is done, one row an epoch, sums of the epoch under way, and the best epoch so far."""

    epoch: int = 0
    iteration: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    partial: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    finished: bool = False
    failures: list[str] = field(default_factory=list)
    state: str | None = None

    def steps(self, iterations: int) -> int:
        """Return the optimizer steps that are done, of so many an epoch."""
        return self.epoch * iterations + self.iteration

    def add(self, totals: Mapping[str, float], waited: float, seconds: float, failures: Sequence[str]) -> None:
        """Add a step to the sums of the epoch: seconds that workers waited and that it took, and what failed."""
        for name, value in {**totals, "wait_s": waited, "train_s": seconds}.items():
            self.partial[name] = self.partial.get(name, 0.0) + value
        self.keep_failures(failures)

    def keep_failures(self, failures: Sequence[str]) -> None:
        """Keep what failed, each once and not without end."""
        new = [failure for failure in dict.fromkeys(failures) if failure not in self.failures]
        self.failures += new[: _FAILURES_KEPT - len(self.failures)]

    def where(self, phase: str, iterations: int, lr: float, loss: float) -> dict[str, Any]:
        """Return what a driver is told of a worker that is in a phase, with the last step's rate and loss."""
        return {
            "phase": phase,
            "epoch": self.epoch,
            "steps": self.steps(iterations),
            "iterations": iterations,
            "lr": lr,
            "loss": loss,
            "best": self.best,
            "wait_share": self.partial.get("wait_s", 0.0) / max(self.partial.get("train_s", 0.0), 1e-9),
        }

    @property
    def position(self) -> Position:
        """The place in the plan of samples."""
        return Position(self.epoch, self.iteration)


class RunFiles:
    """The training files of the run folder `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = storage.join(root, "checkpoints")

    @property
    def best(self) -> str:
        """Path of the best weights."""
        return storage.join(self._folder, BEST)

    def progress(self) -> Progress:
        """Return how far the run is; a new one is at its start. Raises `DatasetError` when the file is damaged."""
        path = storage.join(self._folder, "progress.json")
        if not storage.exists(path):
            return Progress()
        found = storage.read_json(path)
        try:
            if found.pop("format") != _FORMAT:
                raise ValueError("another format")
            return Progress(**found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path} does not tell where training is: {error}", "start another run") from error

    def save(self, progress: Progress, state: dict[str, Any]) -> None:
        """Commit `state` (tensors and plain values) and `progress` together, then remove the state before."""
        import torch

        before = progress.state
        name = f"state-{progress.epoch:05d}-{progress.iteration:06d}.pt"
        if before == name:  # the same place again, such as an epoch before and after its validation
            name = name.replace(".pt", "-b.pt")
        buffer = io.BytesIO()
        torch.save(state, buffer)
        storage.write_bytes(storage.join(self._folder, name), buffer.getbuffer())
        progress.state = name
        self._commit(progress)
        if before is not None:
            storage.remove(storage.join(self._folder, before))

    def _commit(self, progress: Progress) -> None:
        storage.write_json(storage.join(self._folder, "progress.json"), {"format": _FORMAT, **asdict(progress)})

    def save_best(self, state: dict[str, Any]) -> None:
        """Keep the weights of the best epoch so far."""
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        storage.write_bytes(self.best, buffer.getbuffer())

    def load_best(self) -> dict[str, Any]:
        """Return the weights of the best epoch, tensors on the CPU."""
        import torch

        return torch.load(io.BytesIO(storage.read_bytes(self.best)), map_location="cpu", weights_only=True)

    def load(self, progress: Progress) -> dict[str, Any] | None:
        """Return the state that belongs to `progress`, tensors on the CPU; None at the start of a run."""
        if progress.state is None:
            return None
        import torch

        data = storage.read_bytes(storage.join(self._folder, progress.state))
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    def write_history(self, progress: Progress, name: str) -> None:
        """Write the run's table `name`: one row a finished epoch."""
        table = schema.from_rows(name, progress.history)
        storage.write_parquet(storage.join(self.root, "tables", f"{name}.parquet"), table)


_EVERY = 10  # steps between two points


class TensorBoardLog:
    """Writes to `tensorboard/` of the run folder `root`; None writes nothing, nor does an object store.

    `step` is where the run goes on: points of a killed attempt beyond it are dropped by TensorBoard.
    """

    def __init__(self, root: str | None, step: int) -> None:
        self._writer: Any = None
        if root is not None and storage.is_local(root):
            from torch.utils.tensorboard import SummaryWriter

            self._folder = storage.local_path(storage.join(root, "tensorboard"))
            with writing(self._folder):
                self._writer = SummaryWriter(str(self._folder), purge_step=step)

    def step(self, step: int, loss: float, lr: float) -> None:
        """Add the loss and the learning rate of a step."""
        if self._writer is not None and (step % _EVERY == 0 or step == 1):
            with writing(self._folder):
                self._writer.add_scalar("train/loss_step", loss, step)
                self._writer.add_scalar("train/lr", lr, step)

    def epoch(self, row: dict[str, Any]) -> None:
        """Add a row of the table of epochs."""
        if self._writer is None:
            return
        named = {
            "train/loss": row["loss"],
            "speed/clips_per_s": row["clips_per_s"],
            "speed/data_wait_share": row["wait_s"] / max(row["train_s"], 1e-9),
            **{name.replace("val_", "val/", 1): row[name] for name in row if name.startswith("val_")},
        }
        with writing(self._folder):
            for name, value in named.items():
                if value is not None:
                    self._writer.add_scalar(name, value, row["steps"])
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            with writing(self._folder):
                self._writer.close()
