"""One training step of a Qwen2.5-VL on packed questions, and how right its answers are.

The loss is the cross-entropy of answer tokens only. Linear heads on the vision encoder teach seeing much faster
than answers alone do, and are thrown away with the training. Where people's boxes and actions are known, one head
predicts which cells of each frame hold somebody and what they do, and a second what each person does, from whichever of
the person's cells shows it: a thing in a hand is in one cell of many (multiple instances, Dietterich et al., 1997). A
third predicts which words occur in a clip's texts, again from any cell (as in Joulin et al., "Learning visual features
from large weakly supervised data", 2016): colours, rooms and things have no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from microg.demo.tiny_vlm.muon import JointOptimizer, Muon
from microg.models.vlm.tuning.packing import PackedBatch

_INITIAL_LOGIT = -6.0  # of one cell before anything is learnt: few labels are true, and few cells show them


@dataclass(frozen=True, eq=False)
class People:
    """Who is where in a batch and does what: `cells` (k,) of one person after another, of so many (n,) `sizes` each.

    A cell is a merged patch, counted through all clips; labels (n, actions) bool.
    """

    cells: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Batch:
    """Packed questions, the patches (n, values) of their clips one after another, and grids (b, 3) of patches.

    packed: None where there is no question. cells (k, 1 + actions): what is in each merged patch of all clips
    (`microg.demo.tiny_vlm.patches.cell_labels`), or None. people: those in view, or None where nobody is. words
    (b, words) bool: which occur in the texts of each clip, or None.
    """

    packed: PackedBatch | None
    patches: np.ndarray
    grids: np.ndarray
    cells: np.ndarray | None = None
    people: People | None = None
    words: np.ndarray | None = None


@dataclass(frozen=True)
class Losses:
    """Means over a batch, 0 where there is nothing to learn: of answer tokens, of cells and people, and of words."""

    answers: Tensor
    cells: Tensor
    words: Tensor


class Positions:
    """The positions that a model gives to a sequence about one clip that stands alone.

    grid: patches in time, height and width. seconds: between two pairs of frames.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.model
        self._video = model.config.video_token_id
        self._merge = model.config.vision_config.spatial_merge_size
        self._of_beginning = lru_cache(maxsize=4096)(self._compute)

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """Return how many tokens stand for a clip."""
        return grid[0] * grid[1] * grid[2] // self._merge**2

    def expand_prompt(self, prompt: Sequence[int], grid: tuple[int, int, int]) -> tuple[int, ...]:
        """Return a prompt with as many placeholders for the video as the clip takes, instead of one."""
        at = list(prompt).index(self._video)
        return (*prompt[:at], *[self._video] * self.tokens(grid), *prompt[at + 1 :])

    def of(self, row: tuple[int, ...], grid: tuple[int, int, int], seconds: float) -> np.ndarray:
        """Return the positions (3, n) of a sequence with an expanded prompt."""
        first = row.index(self._video)
        beginning = self._of_beginning(first, self.tokens(grid), grid, seconds)
        more = len(row) - beginning.shape[1]
        after = beginning.max() + 1 + np.arange(more)
        return np.concatenate([beginning, np.broadcast_to(after, (3, more))], 1)

    def _compute(self, before: int, tokens: int, grid: tuple[int, int, int], seconds: float) -> np.ndarray:
        types = torch.tensor([[0] * before + [2] * tokens])
        found, _ = self._model.get_rope_index(
            types, types, video_grid_thw=torch.tensor([grid]), second_per_grid_ts=torch.tensor([seconds])
        )
        return found[:, 0].numpy()


def _label_loss(logits: Tensor, labels: np.ndarray) -> Tensor:
    """Return the binary cross-entropy of labels (rows, labels), summed over labels and averaged over rows."""
    truth = torch.from_numpy(labels).to(logits)
    return nn.functional.binary_cross_entropy_with_logits(logits, truth) * truth.shape[1]


def _any_cell(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the logits (n, labels) of groups of `sizes` cells: high where any cell's is."""
    return torch.stack([group.logsumexp(0) for group in logits.split(sizes)])


class Learner(nn.Module):
    """A model, heads for cells and people where `actions` are known and one for so many `words` (0: none)."""

    def __init__(self, model: Any, actions: int, words: int = 0) -> None:
        super().__init__()
        self.model = model
        embed = model.model.visual.patch_embed
        # its convolution's kernel is its stride: the same product, without what a convolution costs
        embed.forward = lambda patches: nn.functional.linear(patches, embed.proj.weight.flatten(1))
        hidden = model.config.get_text_config().hidden_size
        self.cells = nn.Linear(hidden, 1 + actions) if actions else None
        self.people = nn.Linear(hidden, actions) if actions else None
        self.words = nn.Linear(hidden, words) if words else None
        for head in (self.people, self.words):
            if head is not None:
                nn.init.constant_(head.bias, _INITIAL_LOGIT)

    def optimizer(self, lr: float, betas: tuple[float, float], weight_decay: float, muon: float) -> JointOptimizer:
        """Return the optimizer: Muon at `muon` times the rate for the picture encoder's blocks (0: none), and AdamW.

        Groups of the encoder say so, as "encoder". The merger's matrix of 4 x 4 encoder widths stays with AdamW: to
        turn it costs more than all others together.
        """
        visual = self.model.model.visual
        fused = [block.attn.qkv.weight for block in visual.blocks]
        matrices = [p for block in (visual.patch_embed, visual.blocks) for p in block.parameters() if p.ndim >= 2]
        single = [p for p in matrices if all(p is not other for other in fused)]
        turned = {id(p) for p in matrices} if muon else set()
        encoder = {id(p) for p in visual.parameters()}
        rest = [p for p in self.parameters() if id(p) not in turned]
        groups = [
            {"params": [p for p in rest if (id(p) in encoder) == inside], "encoder": inside} for inside in (False, True)
        ]
        optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr, betas, weight_decay=weight_decay)]
        if muon:
            groups = [{"params": fused, "parts": 3, "encoder": True}, {"params": single, "encoder": True}]
            optimizers.append(Muon(groups, lr, factor=muon, weight_decay=weight_decay))
        return JointOptimizer(optimizers)

    def visual_tokens(self, batch: Batch) -> Tensor:
        """Return the picture encoder's tokens (k, hidden)."""
        device = self.model.device
        patches, grids = torch.from_numpy(batch.patches).to(device), torch.from_numpy(batch.grids).to(device)
        return self.model.model.visual(patches, grid_thw=grids).pooler_output

    def logits(self, packed: PackedBatch, visual: Tensor) -> Tensor:
        """Return the logits (m, vocabulary) before each answer token, of questions about clips of `visual` tokens."""
        inner, device = self.model.model, self.model.device
        ids = torch.from_numpy(packed.tokens).to(device)
        embedded = inner.get_input_embeddings()(ids)
        is_video = (ids == self.model.config.video_token_id)[..., None].expand_as(embedded)
        hidden = inner.language_model(
            inputs_embeds=embedded.masked_scatter(is_video, visual),
            position_ids=torch.from_numpy(packed.positions).to(device),
            attention_mask={"full_attention": torch.from_numpy(packed.visible).to(device)},
            use_cache=False,
        ).last_hidden_state
        return self.model.lm_head(hidden.flatten(0, 1)[torch.from_numpy(packed.sources).to(device)])

    def losses(self, batch: Batch) -> Losses:
        """Return the cross-entropy of answer tokens, and the binary cross-entropy of cells, people and words, summed
        over labels and averaged over rows."""
        visual = self.visual_tokens(batch)
        answers = cells = words = visual.new_zeros(())
        if batch.packed is not None:
            targets = torch.from_numpy(batch.packed.targets).to(visual.device)
            answers = nn.functional.cross_entropy(self.logits(batch.packed, visual), targets)
        if self.cells is not None and batch.cells is not None:
            cells = _label_loss(self.cells(visual), batch.cells)
        if self.people is not None and batch.people is not None:
            people = batch.people
            own = visual[torch.from_numpy(people.cells).to(visual.device)]
            cells = cells + _label_loss(_any_cell(self.people(own), people.sizes.tolist()), people.labels)
        if self.words is not None and batch.words is not None:
            tokens = (batch.grids.prod(1) // self.model.config.vision_config.spatial_merge_size**2).tolist()
            words = _label_loss(_any_cell(self.words(visual), tokens), batch.words)
        return Losses(answers, cells, words)

    @torch.no_grad()
    def right(self, batch: Batch) -> np.ndarray:
        """Tell which examples greedy decoding answers to the letter: (examples,) bool.

        It does exactly where each token of the true answer is the likeliest after those before it.
        """
        packed = batch.packed
        if packed is None:
            return np.ones(0, bool)
        hit = self.logits(packed, self.visual_tokens(batch)).argmax(1).cpu().numpy() == packed.targets
        found = np.ones(int(packed.owners.max()) + 1, bool)
        np.logical_and.at(found, packed.owners, hit)
        return found
