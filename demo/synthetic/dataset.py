"""A synthetic dataset: 3 s clips with exact boxes, actions, captions and questions.

Every clip is a pure function of (seed, index, frame size, settings): clips can be made in any order and in parallel,
and the same ones come out, byte for byte. `CLIPS_PER_SOURCE` consecutive clips share a source: one module, one crew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.ids import make_clip_id
from microg.demo.synthetic import language
from microg.demo.synthetic.bodies import Appearance, make_crew
from microg.demo.synthetic.encoding import encode
from microg.demo.synthetic.render import Frame, ShotRenderer
from microg.demo.synthetic.scenes import MODULES, draw_module
from microg.demo.synthetic.shots import ZOOM, Shot, draw_plans, make_shot
from microg.demo.synthetic.tasks import check_size, commit, finished, run_all
from microg.errors import ConfigError, DatasetError

FPS, FRAMES, DURATION_S = 30, 90, 3.0
CLIPS_PER_SOURCE = 5
HANDSHAKE_SHARE = 0.25  # of the clips with at least two people
_PEOPLE = (0.38, 0.37, 0.25)  # shares of clips with one, two and three people
_VERSION = 2  # of the generator: another version makes other pixels
_MOST_QUESTIONS = 100
_SOURCE, _CLIP, _WORDS = 0x50, 0xC1, 0x3D  # what a random stream is for


@dataclass(frozen=True)
class Settings:
    """What decides the pixels and, with `questions` (how many a clip, if there is so much to ask), the words."""

    seed: int
    width: int
    height: int
    upright: float
    origin: str
    version: int = _VERSION
    questions: int = len(language.KINDS)
    fps: int = FPS
    zoom: float = 1.0

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return round(DURATION_S * self.fps)


@dataclass(frozen=True)
class _Task:
    root: str
    settings: Settings
    index: int


def source_of(settings: Settings, index: int) -> tuple[str, str, tuple[Appearance, ...]]:
    """Return (source id, module, crew) of the source that clip `index` belongs to."""
    number = index // CLIPS_PER_SOURCE
    rng = np.random.default_rng((settings.seed, _SOURCE, number))
    names = list(MODULES)
    # the module goes round, so that a small dataset has all of them
    module = names[(number + settings.seed) % len(names)]
    return f"synthetic-{settings.seed}-{number:04d}", module, make_crew(rng)


def origin_of(settings: Settings, index: int) -> str:
    """Return "movie" or "real"; with origin "mix", sources alternate."""
    if settings.origin != "mix":
        return settings.origin
    return schema.ORIGINS[(index // CLIPS_PER_SOURCE) % len(schema.ORIGINS)]


def clip_id_of(settings: Settings, index: int) -> str:
    """Return the id of clip `index`."""
    return make_clip_id(source_of(settings, index)[0], index % CLIPS_PER_SOURCE)


def make_clip_shot(settings: Settings, index: int) -> Shot:
    """Draw what happens in clip `index`."""
    _, module, crew = source_of(settings, index)
    rng = np.random.default_rng((settings.seed, _CLIP, index))
    count = 1 + int(rng.choice(3, p=_PEOPLE))
    looks = tuple(crew[int(member)] for member in rng.permutation(len(crew))[:count])
    return make_shot(
        rng,
        module,
        looks,
        draw_plans(settings.seed, index, count),
        upright=settings.upright,
        aspect=settings.width / settings.height,
        handshake=count > 1 and rng.random() < HANDSHAKE_SHARE,
        zoom=settings.zoom,
    )


@lru_cache(maxsize=2)
def _background(settings: Settings, number: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng((settings.seed, _SOURCE, number, 1))
    return draw_module(source_of(settings, number * CLIPS_PER_SOURCE)[1], rng, settings.width, settings.height)


def render_clip(settings: Settings, index: int) -> Iterator[Frame]:
    """Render the frames of clip `index`."""
    renderer = ShotRenderer(
        make_clip_shot(settings, index),
        _background(settings, index // CLIPS_PER_SOURCE),
        settings.width,
        settings.height,
    )
    for number in range(settings.frames):
        yield renderer.frame(number / settings.fps)


def _part_uri(root: str, clip_id: str) -> str:
    return storage.join(root, "parts", f"{clip_id}.json")


def _make(task: _Task) -> None:
    settings, clip_id = task.settings, clip_id_of(task.settings, task.index)
    shot = make_clip_shot(settings, task.index)
    boxes: list[tuple[int, int, float, float, float, float]] = []

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        for number, frame in enumerate(render_clip(settings, task.index), start=1):
            boxes.extend((number, person, *box) for person, box in enumerate(frame.boxes, start=1) if box is not None)
            yield frame.image

    video = encode(images(), fps=settings.fps, width=settings.width, height=settings.height)
    rng = np.random.default_rng((settings.seed, _WORDS, task.index))
    part = {
        "boxes": boxes,
        "actions": [(person, label) for person, who in enumerate(shot.people, start=1) for label in who.plan.labels],
        "caption": language.caption(shot, DURATION_S, rng),
        "qa": language.questions(shot, DURATION_S, rng, settings.questions),
    }
    root = task.root
    commit(video, storage.join(root, "videos", f"{clip_id}.mp4"), part, _part_uri(root, clip_id))


def generate_dataset(
    root: str,
    clips: int,
    *,
    seed: int = 0,
    width: int = 854,
    height: int = 480,
    origin: str = "mix",
    upright: float = 0.4,
    questions: int = len(language.KINDS),
    fps: int = FPS,
    zoom: float = 1.0,
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
) -> Dataset:
    """Make (or finish, or extend) a synthetic dataset of `clips` clips under `root`.

    `origin` is "movie", "real" or "mix" (sources alternate); `upright` is the share of people within about 20 degrees
    of upright, the others float at any angle; `zoom` makes people larger than where they fit into the frame. A clip has
    one question of each kind of `language.KINDS`, and more to learn from where `questions` is larger. Fewer frames a
    second than MicroG-4M's 30 are rendered faster, and all that a model needs which is shown few of them. Clips that
    are finished already are kept. Tables: clips, boxes (confidence 1), actions, captions, qa. Raises `ConfigError` on
    bad sizes or counts and `DatasetError` when `root` holds a dataset made with other settings.
    """
    check_size(width, height)
    least = len(language.KINDS)
    good = clips >= 1 and seed >= 0 and 0.0 <= upright <= 1.0 and least <= questions <= _MOST_QUESTIONS
    good = good and 4 <= fps <= 60 and ZOOM[0] <= zoom <= ZOOM[1]
    if not good or origin not in (*schema.ORIGINS, "mix"):
        raise ConfigError(
            f"cannot make {clips} clips with seed {seed}, upright {upright}, {questions} questions, {fps} frames a "
            f"second, zoom {zoom}, origin {origin!r}",
            f"clips is at least 1, seed at least 0, upright 0..1, questions {least}..{_MOST_QUESTIONS}, frames a "
            f"second 4..60, zoom {ZOOM[0]:g}..{ZOOM[1]:g}, origin movie, real or mix",
        )
    settings = Settings(seed, width, height, upright, origin, questions=questions, fps=fps, zoom=zoom)
    dataset = Dataset.create(root, "synthetic", generator=asdict(settings))
    dataset.refuse_other_labels("microg data synth")
    if dataset.info.get("generator") != asdict(settings):
        raise DatasetError(
            f"{root} holds a dataset made with other settings: {dataset.info.get('generator')}",
            f"use another folder for {asdict(settings)}",
        )
    parts = {index: _stored(dataset, settings, index) for index in range(clips)}
    missing = [index for index, part in parts.items() if part is None]
    if progress is not None and len(missing) < clips:
        progress(clips - len(missing))
    run_all(_make, [_Task(dataset.root, settings, index) for index in missing], workers=workers, progress=progress)
    parts.update({index: _stored(dataset, settings, index) for index in missing})
    _write_tables(dataset, settings, parts)
    return dataset


def _stored(dataset: Dataset, settings: Settings, index: int) -> dict[str, Any] | None:
    clip_id = clip_id_of(settings, index)
    return finished(dataset.video_uri(clip_id), _part_uri(dataset.root, clip_id))


def _write_tables(dataset: Dataset, settings: Settings, parts: dict[int, dict[str, Any] | None]) -> None:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("clips", "boxes", "actions", "captions", "qa")}
    for index, part in sorted(parts.items()):
        clip_id = clip_id_of(settings, index)
        if part is None:
            raise DatasetError(
                f"clip {clip_id} vanished from {dataset.root} while it was made", "run the command again"
            )
        source_id = source_of(settings, index)[0]
        rows["clips"].append(
            {
                "clip_id": clip_id,
                "source_id": source_id,
                "sequence": index % CLIPS_PER_SOURCE,
                "uri": f"videos/{clip_id}.mp4",
                "origin": origin_of(settings, index),
                "fps": float(settings.fps),
                "num_frames": settings.frames,
                "width": settings.width,
                "height": settings.height,
                "duration_s": DURATION_S,
                "sha256": part["sha256"],
                "status": "ok",
            }
        )
        rows["boxes"] += [
            {
                "clip_id": clip_id,
                "frame": frame,
                "person_id": person,
                "x1": x1,
                "y1": y1,
                "x2": x2,
                "y2": y2,
                "confidence": 1.0,
            }
            for frame, person, x1, y1, x2, y2 in part["boxes"]
        ]
        rows["actions"] += [{"clip_id": clip_id, "person_id": p, "action_id": a} for p, a in part["actions"]]
        rows["captions"].append({"clip_id": clip_id, "caption": part["caption"]})
        rows["qa"] += [
            {"clip_id": clip_id, "qa_index": number, "question": question, "answer": answer}
            for number, (question, answer) in enumerate(part["qa"])
        ]
    for name, values in rows.items():
        dataset.write(name, schema.from_rows(name, values))
