"""Running statistics of batch normalisation that do not depend on how many processes train.

Each process sees its own micro-batches, so its layers' running means and variances would be those of a part of the
data, and the model that is validated and kept would change with the number of workers. Here the layers only measure
(each keeps the statistics of its latest micro-batch), and after a step all micro-batches of all processes are folded
into the running statistics in the order in which one process would have seen them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class RunningStatistics:
    """The running statistics of a model's batch normalisation layers.

    Layers that share statistics among processes (`SyncBatchNorm`) or average over all batches are left as they are.

    Args:
        model: The model, not wrapped for data-parallel training. Its layers' momentum is set to 1: what is kept of it
            is here.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [
            layer
            for layer in model.modules()
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
            and layer.running_mean is not None
            and layer.momentum is not None
        ]
        momenta = [float(layer.momentum or 0) for layer in self._layers]
        widths = [2 * layer.num_features for layer in self._layers]
        self._momentum = torch.repeat_interleave(
            torch.tensor(momenta, dtype=torch.float64), torch.tensor(widths, dtype=torch.int64)
        )
        for layer in self._layers:
            layer.momentum = 1.0
        self._kept, self._batches = torch.empty(0), [0] * len(self._layers)
        self._rows: list[torch.Tensor] = []

    def begin_step(self) -> None:
        """Keep the running statistics, which the micro-batches of a step will overwrite."""
        self._kept, self._rows = self._flat(), []
        self._batches = [int(layer.num_batches_tracked or 0) for layer in self._layers]

    def take_micro_batch(self, turn: int) -> None:
        """Take the statistics of the batch that the model has just seen in training mode, a part of micro-batch `turn`
        of this process.
        """
        seen = self._flat()
        self._rows.append(torch.cat([seen.new_tensor([turn]), seen]))

    def rows(self) -> torch.Tensor:
        """Return what this process's batches gave, (batches, 1 + 2 x channels of all layers) float32: turn, means and
        variances.
        """
        return torch.stack(self._rows) if self._rows else self._kept.new_empty((0, 1 + len(self._kept)))

    def end_step(self, rows: Sequence[torch.Tensor]) -> None:
        """Fold the micro-batches of a step into the running statistics.

        Args:
            rows: `rows()` of every process, in the order of ranks: micro-batches went round the processes in turn.
        """
        if not self._layers:
            return
        kept, momentum = self._kept.double(), self._momentum.to(self._kept.device)
        together = torch.cat(list(rows))
        turns = together[:, 0].tolist()  # the device is waited for once
        for place in sorted(range(len(turns)), key=turns.__getitem__):  # stable: of one turn, ranks stay in their order
            batch = together[place, 1:].double()
            kept = (momentum * batch + (1 - momentum) * kept).float().double()  # rounded after each batch
        self._put(kept.float(), sum(map(len, rows)))

    def _flat(self) -> torch.Tensor:
        parts = [part for layer in self._layers for part in (layer.running_mean, layer.running_var)]
        return torch.cat([part.detach() for part in parts if part is not None]) if parts else torch.empty(0)

    @torch.no_grad()
    def _put(self, flat: torch.Tensor, batches: int) -> None:
        place = 0
        for layer, before in zip(self._layers, self._batches, strict=True):
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.fill_(before + batches)
            for part in (layer.running_mean, layer.running_var):
                assert part is not None
                part.copy_(flat[place : place + len(part)])
                place += len(part)
