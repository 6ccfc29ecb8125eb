"""TensorBoard scalars of a run: loss and rate by step, scores, speed and waiting by epoch."""

from __future__ import annotations

from typing import Any

from microg import storage

_EVERY = 10  # steps between two points


class TensorBoardLog:
    """Writes to `tensorboard/` of the run folder `root`; None writes nothing, nor does an object store.

    `step` is where the run goes on: points of a killed attempt beyond it are dropped by TensorBoard.
    """

    def __init__(self, root: str | None, step: int) -> None:
        self._writer: Any = None
        if root is not None and storage.is_local(root):
            from torch.utils.tensorboard import SummaryWriter

            folder = storage.local_path(storage.join(root, "tensorboard"))
            self._writer = SummaryWriter(str(folder), purge_step=step)

    def step(self, step: int, loss: float, lr: float) -> None:
        """Add the loss and the learning rate of a step."""
        if self._writer is not None and (step % _EVERY == 0 or step == 1):
            self._writer.add_scalar("train/loss_step", loss, step)
            self._writer.add_scalar("train/lr", lr, step)

    def epoch(self, row: dict[str, Any]) -> None:
        """Add a row of table `har_train`."""
        if self._writer is None:
            return
        named = {
            "train/loss": row["loss"],
            "speed/clips_per_s": row["clips_per_s"],
            "speed/data_wait_share": row["wait_s"] / max(row["train_s"], 1e-9),
            **{name.replace("val_", "val/", 1): row[name] for name in row if name.startswith("val_")},
        }
        for name, value in named.items():
            if value is not None:
                self._writer.add_scalar(name, value, row["steps"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
