"""Many questions about one clip in one sequence: what they have in common is computed once.

Prompts about a clip begin alike (the frames, then the wording), so training on each alone computes the same thing
many times. Here prompts and answers of a clip become a tree of tokens, laid out in one row; a token sees its ancestors
only and stands at the position that it has when asked alone. The model's output at each token is therefore what it
would be for that question alone, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix

import numpy as np


@dataclass(frozen=True)
class Example:
    """Tokens of a prompt, placeholders for the frames widened, and of the answer, the end of turn included."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PackedRow:
    """Examples of one clip as a tree in one row.

    tokens (n,); positions (3, n) of time, height and width; visible (n, n) bool, whether row i sees column j. Answer
    token `targets[k]` is to be said after the token at `sources[k]`, in example `owners[k]`; (m,) each.
    """

    tokens: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    owners: np.ndarray


def pack(examples: Sequence[Example], positions: Callable[[tuple[int, ...]], np.ndarray]) -> PackedRow:
    """Join examples into one row; `positions` gives those (3, n) of a sequence of tokens that stands alone."""
    places: dict[tuple[int, int], int] = {}
    aims: list[tuple[int, int, int]] = []
    rows = [(*example.prompt, *example.answer[:-1]) for example in examples]
    # what all begin with is most of each row: laid out once
    common = min(len(commonprefix(rows)), *(len(example.prompt) - 1 for example in examples))
    placed = [positions(row) for row in rows]
    tokens, parents, where = list(rows[0][:common]), list(range(-1, common - 1)), list(placed[0][:, :common].T)
    for owner, (example, row, own) in enumerate(zip(examples, rows, placed, strict=True)):
        at = common - 1
        for depth, token in enumerate(row[common:], start=common):
            parent, at = at, places.setdefault((at, token), len(tokens))
            if at == len(tokens):
                tokens.append(token)
                parents.append(parent)
                where.append(own[:, depth])
            if depth >= len(example.prompt) - 1:
                aims.append((at, example.answer[depth + 1 - len(example.prompt)], owner))
    visible = np.tri(len(tokens), dtype=bool)
    for at, parent in enumerate(parents[common:], start=common):
        visible[at, :at] = visible[parent, :at] if parent >= 0 else False
    sources, targets, owners = np.array(aims, np.int64).reshape(-1, 3).T
    return PackedRow(np.array(tokens, np.int64), np.stack(where, 1), visible, sources, targets, owners)


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Rows of several clips, padded on the right: tokens (b, n), positions (3, b, n), visible (b, 1, n, n).

    `sources` (m,) index the tokens of all rows in one line; `owners` (m,) count the examples of all rows.
    """

    tokens: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    owners: np.ndarray


def stack(rows: Sequence[PackedRow], pad: int) -> PackedBatch:
    """Put rows into one batch; padding sees itself only, which keeps its attention finite."""
    count, width = len(rows), max(len(row.tokens) for row in rows)
    tokens = np.full((count, width), pad, np.int64)
    positions = np.zeros((3, count, width), np.int64)
    visible = np.zeros((count, 1, width, width), bool)
    visible[:, 0, np.arange(width), np.arange(width)] = True
    sources, targets, owners, before = [], [], [], 0
    for at, row in enumerate(rows):
        length = len(row.tokens)
        tokens[at, :length] = row.tokens
        positions[:, at, :length] = row.positions
        visible[at, 0, :length, :length] = row.visible
        sources.append(row.sources + at * width)
        targets.append(row.targets)
        owners.append(row.owners + before)
        before += int(row.owners.max()) + 1
    return PackedBatch(
        tokens, positions, visible, np.concatenate(sources), np.concatenate(targets), np.concatenate(owners)
    )
