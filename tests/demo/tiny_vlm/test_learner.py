"""Training sees what inference sees: the same tokens, positions and pixels, however questions are packed and moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from microg.demo.tiny_vlm.learner import Batch, Learner, People, Positions
from microg.demo.tiny_vlm.patches import Move, PatchRule, cell_labels, covered_cells, resize_frames
from microg.models.vlm.base import Frames
from microg.models.vlm.engines.checkpoint import find, frames_for_processor, load_chat
from microg.models.vlm.engines.transformers import load_model
from microg.models.vlm.prompts import prompt
from microg.models.vlm.tuning.packing import Example, pack, stack

QUESTIONS = {
    "How many people are there?": "Two.",
    "Is anyone there?": "Yes.",
    "How many people sleep?": "Nobody at all.",
}


def frames(seed: int, count: int = 5, height: int = 60, width: int = 96) -> Frames:
    """Random frames, smooth enough to be resized, 0.5 s apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 12, width // 12, 3)).astype(np.uint8)
    return Frames(coarse.repeat(12, 1).repeat(12, 2), tuple(range(0, 15 * count, 15)), 30.0, 90)


@pytest.fixture(scope="module")
def tiny(tiny_vlm: Callable[[str], Path]) -> tuple[Any, Any]:
    checkpoint = find(str(tiny_vlm("qwen2_5_vl")))
    return load_model(checkpoint, device="cpu"), load_chat(checkpoint, "video")


def alone(model: Any, chat: Any, shown: Frames, question: str, answer: list[int]) -> torch.Tensor:
    """Logits before each answer token, by the model's own forward pass on the processor's output."""
    text = chat.text(prompt("vqa-v1").request("", shown, question=question))
    inputs = chat.processor(text=[text], return_tensors="pt", **frames_for_processor([shown], "video"))
    more = torch.tensor([answer[:-1]], dtype=torch.long)
    for name, extra in {"input_ids": more, "attention_mask": more * 0 + 1, "mm_token_type_ids": more * 0}.items():
        inputs[name] = torch.cat([inputs[name], extra.to(inputs[name].dtype)], 1)
    model.model.rope_deltas = None
    with torch.no_grad():
        return model(**inputs).logits[0, -len(answer) :]


def test_packed_questions_have_the_logits_of_each_question_alone(tiny: tuple[Any, Any]):
    model, chat = tiny
    rule, positions, tokenizer = PatchRule.of(chat.processor), Positions(model), chat.tokenizer
    clips = [frames(0), frames(1, count=2, height=96, width=60)]  # two clips of different length and shape
    rows, patches, grids, wanted = [], [], [], []
    for shown in clips:
        pixels, seconds = resize_frames(chat.processor, shown)
        grid = rule.grid(pixels)
        examples = []
        for question, answer in QUESTIONS.items():
            ids = chat.ids(chat.text(prompt("vqa-v1").request("", shown, question=question)))
            said = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
            examples.append(Example(positions.expand_prompt(ids, grid), tuple(said)))
            wanted.append(alone(model, chat, shown, question, said))
        rows.append(pack(examples, lambda row, grid=grid, seconds=seconds: positions.of(row, grid, seconds)))
        patches.append(rule.cut(pixels))
        grids.append(grid)
        assert len(rows[-1].tokens) < sum(len(each.prompt) for each in examples) * 0.6  # what they share is there once
    packed = stack(rows, tokenizer.pad_token_id)
    batch, learner = Batch(packed, np.concatenate(patches), np.array(grids)), Learner(model, 0)
    with torch.no_grad():
        found = learner.logits(packed, learner.visual_tokens(batch))
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-4, atol=1e-5)
    assert packed.owners.max() + 1 == len(wanted)


def test_an_answer_is_right_exactly_when_greedy_decoding_says_it(tiny: tuple[Any, Any]):
    model, chat = tiny
    rule, positions, shown = PatchRule.of(chat.processor), Positions(model), frames(2)
    pixels, seconds = resize_frames(chat.processor, shown)
    grid = rule.grid(pixels)
    text = chat.text(prompt("vqa-v1").request("", shown, question="Who?"))
    inputs = chat.processor(text=[text], return_tensors="pt", **frames_for_processor([shown], "video"))
    model.model.rope_deltas = None
    said = model.generate(**inputs, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :].tolist()
    asked = positions.expand_prompt(chat.ids(text), grid)
    examples = [Example(asked, tuple(said)), Example(asked, (*said[:-1], (said[-1] + 1) % 200))]
    row = pack(examples, lambda tokens: positions.of(tokens, grid, seconds))
    batch = Batch(stack([row], chat.tokenizer.pad_token_id), rule.cut(pixels), np.array([grid]))
    assert Learner(model, 0).right(batch).tolist() == [True, False]


def one_cell_tells(learner: Learner, head: torch.nn.Linear, cell: int, cells: int) -> None:
    """Let `head` be told of its second question by `cell` of so many cells, and of nothing else."""
    seen = torch.zeros(cells, head.in_features)
    seen[cell, 0] = 1.0
    with torch.no_grad():
        head.weight.zero_()
        head.weight[1, 0] = 40.0
    learner.visual_tokens = lambda batch: seen  # pyright: ignore[reportAttributeAccessIssue]


def test_a_word_is_said_of_a_clip_when_any_of_its_cells_tells_it(tiny: tuple[Any, Any]):
    model, _ = tiny
    learner = Learner(model, 0, words=2)
    assert learner.words is not None
    grids = np.array([[1, 2, 4], [1, 2, 2]])  # clips of two cells and of one
    one_cell_tells(learner, learner.words, 1, cells=3)
    right, wrong = (
        learner.losses(Batch(None, np.zeros((0, 0)), grids, words=np.array(words))).words.item()
        for words in ([[False, True], [False, False]], [[False, False], [False, True]])
    )
    assert right < 0.05
    assert wrong > 15
    nothing = learner.losses(Batch(None, np.zeros((0, 0)), grids))
    assert (nothing.answers.item(), nothing.cells.item(), nothing.words.item()) == (0, 0, 0)


def test_what_a_person_does_is_told_by_any_cell_of_the_person(tiny: tuple[Any, Any]):
    learner = Learner(tiny[0], 2)
    assert learner.people is not None
    assert learner.cells is not None
    one_cell_tells(learner, learner.people, 2, cells=4)
    grids, cells = np.array([[1, 2, 8]]), np.zeros((4, 3), np.float32)

    def loss(covered: list[int], sizes: list[int]) -> float:
        people = People(np.array(covered), np.array(sizes), np.array([[False, True], [False, False]]))
        return learner.losses(Batch(None, np.zeros((0, 0)), grids, cells, people)).cells.item()

    alone = learner.losses(Batch(None, np.zeros((0, 0)), grids, cells)).cells.item()
    assert loss([0, 2, 1, 3], [2, 2]) - alone < 0.05
    assert loss([0, 1, 2, 3], [2, 2]) - alone > 15


@pytest.mark.parametrize("muon", [0.0, 3.0])
def test_every_parameter_has_one_optimizer_and_the_encoder_has_groups_of_its_own(tiny: tuple[Any, Any], muon: float):
    learner = Learner(tiny[0], 4, words=3)
    groups = learner.optimizer(0.1, (0.9, 0.98), 0.05, muon).param_groups
    placed = [id(p) for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in learner.parameters())
    encoder = {id(p) for group in groups if group["encoder"] for p in group["params"]}
    assert encoder == {id(p) for p in learner.model.model.visual.parameters()}
    turned = [p for group in groups if "parts" in group for p in group["params"]]
    blocks = learner.model.model.visual.blocks
    assert len(turned) == (1 + sum(p.ndim == 2 for p in blocks.parameters()) if muon else 0)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_kept_frames_are_cut_into_the_patches_of_the_processor(tiny: tuple[Any, Any], count: int):
    _, chat = tiny
    shown, rule = frames(3, count), PatchRule.of(chat.processor)
    pixels, seconds = resize_frames(chat.processor, shown)
    inputs = chat.processor(text=["<|video_pad|>"], return_tensors="pt", **frames_for_processor([shown], "video"))
    assert pixels.dtype == np.uint8
    assert len(pixels) % 2 == 0
    np.testing.assert_allclose(rule.cut(pixels), inputs["pixel_values_videos"].numpy(), atol=1e-5)
    assert [list(rule.grid(pixels))] == inputs["video_grid_thw"].tolist()
    assert seconds == pytest.approx(float(inputs["second_per_grid_ts"][0]))


@pytest.mark.parametrize(
    "move", [Move(), Move(mirror=True), Move(zoom=1.1, right=0.05, down=-0.1), Move(True, 0.9, 0.1)]
)
def test_boxes_move_with_the_frames(move: Move):
    picture = np.zeros((2, 100, 200, 3), np.uint8)
    picture[:, 40:60, 60:90] = 255
    box = np.array([[[0.3, 0.4, 0.45, 0.6]]] * 2)
    rows, columns = np.nonzero(move.frames(picture)[0, :, :, 0] > 127)
    found = np.array([columns.min() / 200, rows.min() / 100, (columns.max() + 1) / 200, (rows.max() + 1) / 100])
    np.testing.assert_allclose(move.boxes(box)[0, 0], found, atol=0.011)


def test_a_cell_knows_who_is_in_it_and_what_they_do():
    boxes = np.array([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 1.0]], [[np.nan] * 4, [0.5, 0.0, 1.0, 0.6]]])
    found = cell_labels(covered_cells(boxes, 2, 2), np.array([[True, False], [False, True]]))
    assert found[0].tolist() == [[[1, 1, 0], [1, 0, 1]], [[0, 0, 0], [1, 0, 1]]]
    assert found[1].tolist() == [[[0, 0, 0], [1, 0, 1]], [[0, 0, 0], [0, 0, 0]]]  # 0.2 of the lower cell is too little
