"""Synthetic raw footage: files of several containers, codecs, rates and sizes, each a chain of shots with hard cuts.

Most shots show people, some are empty, so that the filters of curation have work. In every other file the shots are
multiples of 3 s, so that all cuts fall between the 3 s segments; in the others they fall anywhere. Consecutive shots
are in modules so different that a content detector at threshold 40 finds the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from microg import storage
from microg.demo.synthetic import language, truth
from microg.demo.synthetic.bodies import make_crew
from microg.demo.synthetic.encoding import encode
from microg.demo.synthetic.render import ShotRenderer
from microg.demo.synthetic.scenes import MODULES, content_distance, draw_module
from microg.demo.synthetic.shots import ZOOM, Shot, draw_plans, make_shot
from microg.demo.synthetic.tasks import check_size, commit, finished, run_all
from microg.errors import ConfigError, DatasetError

SEGMENT_S = 3.0
MIN_CUT = 55.0  # content distance between empty modules; people and drift may take some of it
_SHORTEST_S = 2.0
_FILE, _LAYOUT, _WORDS, _EMPTY_SHARE = 0xF1, 0x1A, 0x3D, 0.15
_VERSION = 2  # of the generator: another version makes other files


@dataclass(frozen=True)
class Format:
    """How one file is stored."""

    extension: str
    codec: str
    fps: int
    width: int
    height: int


FORMATS = (
    Format("mp4", "libx264", 30, 854, 480),
    Format("mkv", "libx264", 25, 960, 540),
    Format("mov", "libx264", 60, 640, 360),
    Format("avi", "mpeg4", 24, 640, 480),
)


@dataclass(frozen=True)
class Take:
    """One shot of a file: frames [first, last] counted from 0, who is in it by person id, and its module's seed."""

    first: int
    last: int
    shot: Shot
    person_ids: tuple[int, ...]
    module_seed: tuple[int, ...]


@dataclass(frozen=True)
class _Task:
    folder: str
    seed: int
    index: int
    seconds: float
    upright: float
    zoom: float
    format: Format

    @property
    def file(self) -> str:
        return f"footage_{self.index:02d}.{self.format.extension}"

    @property
    def part_uri(self) -> str:
        return storage.join(self.folder, "truth", "parts", f"{self.file}.json")

    def settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "index": self.index,
            "seconds": self.seconds,
            "upright": self.upright,
            "zoom": self.zoom,
            "format": asdict(self.format),
            "version": _VERSION,
        }


def shot_lengths(rng: np.random.Generator, seconds: float, aligned: bool) -> list[float]:
    """Draw lengths in seconds that add up to `seconds`: multiples of 3 s but for the last, or any from 3.5 to 8 s."""
    lengths: list[float] = []
    rest = seconds
    while rest > 1e-9:
        length = float(rng.choice((SEGMENT_S, 2 * SEGMENT_S), p=(0.35, 0.65)) if aligned else rng.uniform(3.5, 8.0))
        if rest - length < _SHORTEST_S:
            length = rest
        lengths.append(length)
        rest -= length
    return lengths


def plan_takes(seed: int, index: int, seconds: float, upright: float, format_: Format, zoom: float = 1.0) -> list[Take]:
    """Draw the shots of file `index`; a pure function of its arguments."""
    rng = np.random.default_rng((seed, _FILE, index))
    lengths = shot_lengths(rng, seconds, aligned=index % 2 == 0)
    empty: set[int] = set()
    if len(lengths) > 2:  # the first shot always has people, and the shorter ones are empty
        quiet = sorted(range(1, len(lengths)), key=lambda number: (round(lengths[number], 6), rng.random()))
        empty = set(quiet[: max(1, round(_EMPTY_SHARE * len(lengths)))])
    crew = make_crew(rng)
    frames = round(seconds * format_.fps)
    starts = [min(round(sum(lengths[:number]) * format_.fps), frames) for number in range(len(lengths))]
    takes: list[Take] = []
    for number, first in enumerate(starts):
        last = (starts[number + 1] if number + 1 < len(starts) else frames) - 1
        module, module_seed = _next_module(rng, (seed, _FILE, index, number), takes, format_)
        count = 0 if number in empty else 1 + int(rng.choice(3, p=(0.40, 0.45, 0.15)))
        members = tuple(int(member) for member in rng.permutation(len(crew))[:count])
        shot = make_shot(
            rng,
            module,
            tuple(crew[member] for member in members),
            draw_plans(seed + 1, index * 64 + number, count),
            upright=upright,
            aspect=format_.width / format_.height,
            handshake=count > 1 and rng.random() < 0.25,
            zoom=zoom,
        )
        ids = {crew[member]: member + 1 for member in members}
        takes.append(Take(first, last, shot, tuple(ids[person.look] for person in shot.people), module_seed))
    return takes


@lru_cache(maxsize=8)
def _thumbnail(module: str, seed: tuple[int, ...], format_: Format) -> npt.NDArray[np.uint8]:
    """The same module, small: enough to tell how far two modules are apart."""
    return draw_module(module, np.random.default_rng(seed), 160 * format_.width // format_.height, 160)


def _next_module(
    rng: np.random.Generator, base: tuple[int, ...], takes: list[Take], format_: Format
) -> tuple[str, tuple[int, ...]]:
    """Choose a module that is far from the one before, in content distance."""
    names = [str(name) for name in rng.permutation(list(MODULES))]
    if not takes:
        return names[0], (*base, 0)
    before = _thumbnail(takes[-1].shot.module, takes[-1].module_seed, format_)
    for attempt, name in enumerate(names):
        seed = (*base, attempt)
        if name != takes[-1].shot.module and content_distance(before, _thumbnail(name, seed, format_)) >= MIN_CUT:
            return name, seed
    raise DatasetError(f"no module differs enough from the {takes[-1].shot.module}", "report this seed")


def _make(task: _Task) -> None:
    form = task.format
    takes = plan_takes(task.seed, task.index, task.seconds, task.upright, form, task.zoom)
    boxes: list[tuple[int, int, int, float, float, float, float]] = []

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        for number, take in enumerate(takes):
            background = draw_module(take.shot.module, np.random.default_rng(take.module_seed), form.width, form.height)
            renderer = ShotRenderer(take.shot, background, form.width, form.height)
            for frame in range(take.first, take.last + 1):
                rendered = renderer.frame((frame - take.first) / form.fps)
                for person, box in zip(take.person_ids, rendered.boxes, strict=True):
                    if box is not None:
                        x1, y1, x2, y2 = box
                        boxes.append(
                            (
                                frame + 1,
                                number,
                                person,
                                x1 / form.width,
                                y1 / form.height,
                                x2 / form.width,
                                y2 / form.height,
                            )
                        )
                yield rendered.image

    video = encode(
        images(), fps=form.fps, width=form.width, height=form.height, extension=form.extension, codec=form.codec
    )
    rng = np.random.default_rng((task.seed, _WORDS, task.index))
    shots = []
    for take in takes:
        length = (take.last + 1 - take.first) / form.fps
        shots.append(
            {
                "start_s": take.first / form.fps,
                "end_s": (take.last + 1) / form.fps,
                "first_frame": take.first + 1,
                "last_frame": take.last + 1,
                "module": take.shot.module,
                "people": len(take.shot.people),
                "caption": language.caption(take.shot, length, rng),
                "qa": language.questions(take.shot, length, rng),
                "actions": [
                    (person, label)
                    for person, who in zip(take.person_ids, take.shot.people, strict=True)
                    for label in who.plan.labels
                ],
            }
        )
    part = {"settings": task.settings(), "frames": takes[-1].last + 1, "shots": shots, "boxes": boxes}
    commit(video, storage.join(task.folder, task.file), part, task.part_uri)


def generate_footage(
    folder: str,
    videos: int,
    *,
    seed: int = 0,
    seconds: float = 20.0,
    fps: int | None = None,
    width: int | None = None,
    height: int | None = None,
    upright: float = 0.85,
    zoom: float = 1.0,
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
) -> pa.Table:
    """Make (or finish, or extend) `videos` files of `seconds` each under `folder`, and the truth under `folder/truth`.

    `FORMATS` go round; `fps`, `width` and `height` override them. `upright` is the share of people within about 20
    degrees of upright; `zoom` makes people larger than where they fit into the frame. Returns the truth table `files`.
    Raises `ConfigError` on bad values and `DatasetError` when the folder holds footage made with other settings.
    """
    if videos < 1 or seed < 0 or seconds < _SHORTEST_S or not 0.0 <= upright <= 1.0 or not ZOOM[0] <= zoom <= ZOOM[1]:
        raise ConfigError(
            f"cannot make {videos} videos of {seconds} s with seed {seed}, upright {upright}, zoom {zoom}",
            f"videos is at least 1, seconds at least {_SHORTEST_S:g}, seed at least 0, upright 0..1, "
            f"zoom {ZOOM[0]:g}..{ZOOM[1]:g}",
        )
    if fps is not None and not 1 <= fps <= 120:
        raise ConfigError(f"{fps} frames a second cannot be made", "give 1 to 120")
    tasks = []
    for index in range(videos):
        base = FORMATS[index % len(FORMATS)]
        form = Format(base.extension, base.codec, fps or base.fps, width or base.width, height or base.height)
        check_size(form.width, form.height)
        tasks.append(_Task(str(folder), seed, index, float(seconds), float(upright), float(zoom), form))
    missing = [task for task in tasks if _stored(task) is None]
    if progress is not None and len(missing) < videos:
        progress(videos - len(missing))
    run_all(_make, missing, workers=workers, progress=progress)
    return _write_truth(str(folder), tasks)


def _stored(task: _Task) -> dict[str, Any] | None:
    part = finished(storage.join(task.folder, task.file), task.part_uri)
    if part is not None and part.get("settings") != task.settings():
        raise DatasetError(
            f"{task.folder} holds footage made with other settings: {part.get('settings')}", "use another folder"
        )
    return part


def _write_truth(folder: str, tasks: list[_Task]) -> pa.Table:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in truth.TABLES}
    for task in tasks:
        part, form, file = _stored(task), task.format, task.file
        if part is None:
            raise DatasetError(f"{file} vanished from {folder} while it was made", "run the command again")
        rows["files"].append(
            {
                "file": file,
                "container": form.extension,
                "codec": form.codec,
                "fps": form.fps,
                "width": form.width,
                "height": form.height,
                "frames": part["frames"],
                "duration_s": part["frames"] / form.fps,
                "sha256": part["sha256"],
            }
        )
        for number, shot in enumerate(part["shots"]):
            plain = {key: value for key, value in shot.items() if key not in ("qa", "actions")}
            rows["shots"].append({"file": file, "shot": number, **plain})
            rows["actions"] += [
                {"file": file, "shot": number, "person_id": person, "action_id": label}
                for person, label in shot["actions"]
            ]
            rows["qa"] += [
                {"file": file, "shot": number, "qa_index": place, "question": question, "answer": answer}
                for place, (question, answer) in enumerate(shot["qa"])
            ]
        rows["boxes"] += [
            {
                "file": file,
                "frame": frame,
                "time_s": (frame - 1) / form.fps,
                "shot": shot,
                "person_id": person,
                "x1": x1,
                "y1": y1,
                "x2": x2,
                "y2": y2,
            }
            for frame, shot, person, x1, y1, x2, y2 in part["boxes"]
        ]
    tables = {name: truth.write(storage.join(folder, "truth"), name, values) for name, values in rows.items()}
    return tables["files"]
