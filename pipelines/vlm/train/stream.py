"""The clips of a whole run: decoded by Ray Data tasks on any node, dealt out to the workers in the plan's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from microg.errors import describe
from microg.models.vlm.base import Request
from microg.models.vlm.prompts import Prompt
from microg.models.vlm.sampling import FramePolicy
from microg.models.vlm.tuning.examples import ClipExample
from microg.pipelines.core.attempts import Attempts
from microg.pipelines.core.stage import Pipeline, Stage
from microg.pipelines.core.training.lots import LOT_NUMBERS, Lots, stream_of, units_in_order
from microg.pipelines.core.training.plan import PADDING, Plan, Position
from microg.pipelines.vlm.clip_tables import SCHEMA, DecodedClip, decode_block, from_table, to_table
from microg.pipelines.vlm.questions import CLIPS
from microg.pipelines.vlm.train.lessons import LESSONS
from microg.texts.items import ItemKey, Task

if TYPE_CHECKING:
    from ray.data import Dataset

_FRAME_BYTES = 854 * 480 * 3
_STREAM = pa.schema([*SCHEMA, LESSONS.field("answer"), pa.field("unit", pa.int64())])


@dataclass(frozen=True, eq=False)
class Lesson:
    """A clip as a worker computes it: its example, or why there is none, and the requests and answers in it."""

    validation: bool
    clip_id: str
    keys: tuple[ItemKey, ...] = ()
    requests: tuple[Request, ...] = ()
    answers: tuple[str, ...] = ()
    example: ClipExample | None = None
    error: str = ""


def run_dataset(
    plan: Plan,
    start: Position,
    rows: tuple[pa.Table, pa.Table],
    policy: FramePolicy,
    decoder: str,
    *,
    cpus: float,
) -> Dataset:
    """Return the decoded clips from `start` to the end of the run, one lot a block, in order.

    `rows` are `LESSONS` of train and val; decoding tasks declare `cpus` CPUs.
    """
    import ray

    lots = Lots.of(plan, start, _FRAME_BYTES * 8)
    decode = DECODE.bound(
        plan=plan, lots=lots, rows=(ray.put(rows[0]), ray.put(rows[1])), policy=policy, decoder=decoder
    )
    return stream_of(PIPELINE.with_stages(replace(decode, cpus=cpus)), lots)


def decode_lots(
    block: pa.Table,
    *,
    plan: Plan,
    lots: Lots,
    rows: tuple[Any, Any],
    policy: FramePolicy,
    decoder: str,
    attempts: Attempts,
) -> pa.Table:
    """Decode the lots of which a block has the numbers; `rows` refer to `LESSONS` of train and val."""
    import ray

    train, val = ray.get(list(rows))
    tables = []
    for unit in (plan.unit(number) for lot in block["id"].to_pylist() for number in lots.units(lot)):
        tables.append(decode_unit(unit.keys, val if unit.validation else train, unit.number, policy, decoder, attempts))
    return pa.concat_tables(tables)


def decode_unit(
    keys: Sequence[int],
    rows: pa.Table,
    number: int,
    policy: FramePolicy,
    decoder: str,
    attempts: Attempts | None = None,
) -> pa.Table:
    """Decode the clips at `keys` of `rows`; padding becomes a row without an id, so that all units are alike."""
    chosen = rows.take(pa.array([key for key in keys if key != PADDING], pa.int64()))
    decoded = decode_block(chosen.select(CLIPS.names), policy=policy, decoder=decoder, attempts=attempts)
    missing = len(keys) - chosen.num_rows
    table = pa.concat_tables([decoded, to_table([DecodedClip("", ())] * missing)])
    answers = [*chosen["answer"].to_pylist(), *[[]] * missing]
    table = table.append_column(_STREAM.field("answer"), pa.array(answers, _STREAM.field("answer").type))
    return table.append_column(_STREAM.field("unit"), pa.array([number] * table.num_rows, pa.int64()))


DECODE = Stage(name="decode", work=decode_lots, reads=LOT_NUMBERS, writes=_STREAM, rows=1)
PIPELINE = Pipeline(name="tune clips", source=LOT_NUMBERS, stages=(DECODE,))


class Composer:
    """Makes lessons of decoded clips: prompts, tokens and the processor's frames.

    Args:
        build: Makes the example of requests and answers (see `microg.models.vlm.tuning.examples.clip_example`).
        prompts: The prompt of each task.
        questions: Most questions of a clip at a time; None takes all.
        seed: Of the choice among them, with the epoch and the clip.
    """

    def __init__(self, build: Any, prompts: Mapping[Task, Prompt], questions: int | None, seed: int) -> None:
        self._build, self._prompts, self._questions, self._seed = build, prompts, questions, seed

    def lesson(self, clip: DecodedClip, answers: Sequence[str], epoch: int, *, validation: bool) -> Lesson:
        """Return a clip's lesson; what fails becomes its error."""
        if clip.error or clip.frames is None:
            return Lesson(validation, clip.clip_id, error=clip.error or "it has no frames")
        places = range(len(answers)) if validation else self._chosen(clip.clip_id, len(answers), epoch)
        keys, requests = [], []
        for place in places:
            question = clip.questions[place]
            fields = {} if question.text is None else {"question": question.text}
            prompt = self._prompts[question.item.task]
            keys.append(question.item)
            requests.append(prompt.request(question.item.qualified_id, clip.frames, **fields))
        chosen = tuple(answers[place] for place in places)
        try:
            example = self._build(requests, chosen)
        except Exception as error:
            return Lesson(validation, clip.clip_id, error=describe(error))
        return Lesson(validation, clip.clip_id, tuple(keys), tuple(requests), chosen, example)

    def _chosen(self, clip_id: str, count: int, epoch: int) -> list[int]:
        if self._questions is None or count <= self._questions:
            return list(range(count))
        draw = np.random.default_rng((self._seed, epoch, *clip_id.encode()))
        return sorted(draw.choice(count, self._questions, replace=False).tolist())


def lessons(
    blocks: Iterator[pa.Table], plan: Plan, worker: int, start: Position, composer: Composer
) -> Iterator[list[Lesson]]:
    """Yield what `worker` computes from `start` on, in order: one unit a time, padding left out."""
    for table in units_in_order(blocks, plan, worker, start):
        unit = plan.unit(table["unit"][0].as_py())
        clips = from_table(table.select(SCHEMA.names))
        yield [
            composer.lesson(clip, answers, unit.epoch, validation=unit.validation)
            for clip, answers in zip(clips, table["answer"].to_pylist(), strict=True)
            if clip.clip_id
        ]
