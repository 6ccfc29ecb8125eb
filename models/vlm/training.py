"""One training step of a Qwen2.5-VL on packed questions, and how right its answers are.

The loss is the cross-entropy of answer tokens only. Where people's boxes and actions are known, a second, linear head
on the vision encoder is asked which cells of each frame hold somebody and what they do: with a few hundred clips that
teaches seeing much faster than answers alone. The head is thrown away with the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.training.muon import Muon, Together
from models.vlm.packing import PackedBatch


@dataclass(frozen=True, eq=False)
class Batch:
    """Packed questions, the patches (n, values) of their clips one after another, and grids (b, 3) of patches.

    packed: None where nothing is asked. cells (k, 1 + actions): what is in each merged patch of all clips
    (`models.vlm.patches.cell_labels`), or None.
    """

    packed: PackedBatch | None
    patches: np.ndarray
    grids: np.ndarray
    cells: np.ndarray | None = None


class Positions:
    """The positions that a model gives to a sequence about one clip, asked alone.

    grid: patches in time, height and width. seconds: between two pairs of frames.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.model
        self._video = model.config.video_token_id
        self._merge = model.config.vision_config.spatial_merge_size
        self._of_beginning = lru_cache(maxsize=4096)(self._computed)

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """Return how many tokens stand for a clip."""
        return grid[0] * grid[1] * grid[2] // self._merge**2

    def widened(self, prompt: Sequence[int], grid: tuple[int, int, int]) -> tuple[int, ...]:
        """Return a prompt whose one placeholder for the video became as many as the clip takes."""
        at = list(prompt).index(self._video)
        return (*prompt[:at], *[self._video] * self.tokens(grid), *prompt[at + 1 :])

    def of(self, row: tuple[int, ...], grid: tuple[int, int, int], seconds: float) -> np.ndarray:
        """Return the positions (3, n) of a widened sequence."""
        first = row.index(self._video)
        beginning = self._of_beginning(first, self.tokens(grid), grid, seconds)
        more = len(row) - beginning.shape[1]
        after = beginning.max() + 1 + np.arange(more)
        return np.concatenate([beginning, np.broadcast_to(after, (3, more))], 1)

    def _computed(self, before: int, tokens: int, grid: tuple[int, int, int], seconds: float) -> np.ndarray:
        types = torch.tensor([[0] * before + [2] * tokens])
        found, _ = self._model.get_rope_index(
            types, types, video_grid_thw=torch.tensor([grid]), second_per_grid_ts=torch.tensor([seconds])
        )
        return found[:, 0].numpy()


class Learner(nn.Module):
    """A model, and the second head where `actions` are known (0: none)."""

    def __init__(self, model: Any, actions: int) -> None:
        super().__init__()
        self.model = model
        embed = model.model.visual.patch_embed
        # its convolution's kernel is its stride: the same product, without what a convolution costs
        embed.forward = lambda patches: nn.functional.linear(patches, embed.proj.weight.flatten(1))
        self.cells = nn.Linear(model.config.get_text_config().hidden_size, 1 + actions) if actions else None

    def optimizer(self, lr: float, betas: tuple[float, float], weight_decay: float, muon: float) -> Together:
        """Return the optimizer: Muon at `muon` times the rate for the matrices of all blocks, AdamW for the rest.

        0 is AdamW alone. The merger's matrix of 4 x 4 encoder widths stays with AdamW: to turn it costs more than all
        others together.
        """
        inner = self.model.model
        fused = [block.attn.qkv.weight for block in inner.visual.blocks]
        blocks = [inner.visual.patch_embed, inner.visual.blocks, inner.language_model.layers]
        matrices = [p for block in blocks for p in block.parameters() if p.ndim >= 2] if muon else []
        apart = set(map(id, matrices))
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [p for p in self.parameters() if id(p) not in apart], lr, betas, weight_decay=weight_decay
            )
        ]
        if matrices:
            single = [p for p in matrices if all(p is not other for other in fused)]
            groups = [{"params": fused, "parts": 3}, {"params": single}]
            optimizers.append(Muon(groups, lr, factor=muon, weight_decay=weight_decay))
        return Together(optimizers)

    def seen(self, batch: Batch) -> Tensor:
        """Return the picture encoder's tokens (k, hidden)."""
        device = self.model.device
        patches, grids = torch.from_numpy(batch.patches).to(device), torch.from_numpy(batch.grids).to(device)
        return self.model.model.visual(patches, grid_thw=grids).pooler_output

    def logits(self, packed: PackedBatch, seen: Tensor) -> Tensor:
        """Return the logits (m, vocabulary) before each answer token, of questions about what was `seen`."""
        inner, device = self.model.model, self.model.device
        ids = torch.from_numpy(packed.tokens).to(device)
        embedded = inner.get_input_embeddings()(ids)
        shown = (ids == self.model.config.video_token_id)[..., None].expand_as(embedded)
        hidden = inner.language_model(
            inputs_embeds=embedded.masked_scatter(shown, seen),
            position_ids=torch.from_numpy(packed.positions).to(device),
            attention_mask={"full_attention": torch.from_numpy(packed.visible).to(device)}, use_cache=False,
        ).last_hidden_state  # fmt: skip
        return self.model.lm_head(hidden.flatten(0, 1)[torch.from_numpy(packed.sources).to(device)])

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the answer tokens, and that of the second head; 0 where there are none."""
        seen = self.seen(batch)
        said = cells = seen.new_zeros(())
        if batch.packed is not None:
            targets = torch.from_numpy(batch.packed.targets).to(seen.device)
            said = nn.functional.cross_entropy(self.logits(batch.packed, seen), targets)
        if self.cells is not None and batch.cells is not None:
            wanted = torch.from_numpy(batch.cells).to(seen.device)
            # the sum over what is asked of a cell, the mean over cells
            cells = nn.functional.binary_cross_entropy_with_logits(self.cells(seen), wanted) * wanted.shape[1]
        return said, cells

    @torch.no_grad()
    def right(self, batch: Batch) -> np.ndarray:
        """Tell which examples greedy decoding answers to the letter: (examples,) bool.

        It does exactly where each token of the true answer is the likeliest after those before it.
        """
        packed = batch.packed
        if packed is None:
            return np.ones(0, bool)
        hit = self.logits(packed, self.seen(batch)).argmax(1).cpu().numpy() == packed.targets
        found = np.ones(int(packed.owners.max()) + 1, bool)
        np.logical_and.at(found, packed.owners, hit)
        return found
