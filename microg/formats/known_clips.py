"""What is known of clips before their annotations are read, and whether annotations fit the clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from microg.annotations.boxes import edited
from microg.annotations.rows import Annotation, from_row
from microg.annotations.table import current
from microg.arrow import pc
from microg.data import schema
from microg.errors import FormatError, VideoError
from microg.formats.base import FoundVideo
from microg.formats.same_people import Corners, People

# Texts under which a question is known, by its index.
Questions = dict[int, set[str]]
_FACTS = ("fps", "num_frames", "width", "height", "duration_s")


def _nothing(_: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class KnownContent:
    """What a dataset has of clips, by which their people and questions are recognised.

    people: with their boxes, by clip id. drawn: those whom somebody drew in another tool, by clip id and annotator.
    questions: the texts under which each question is known, by clip id and index.
    """

    people: Mapping[str, People] = field(default_factory=dict)
    drawn: Mapping[tuple[str, str], People] = field(default_factory=dict)
    questions: Mapping[str, Questions] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownClips:
    """Clips that have videos, or rows in the dataset that annotations are merged into.

    videos: by clip id. rows: of table `clips`, by clip id. read_video: returns what table `clips` says of a video.
    content: what the dataset has of them.
    """

    videos: Mapping[str, FoundVideo] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    read_video: Callable[[str], dict[str, Any]] = _nothing
    content: KnownContent = field(default_factory=KnownContent)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self.videos or clip_id in self.rows

    def about(self, clip_id: str) -> dict[str, Any]:
        """Return what is known of a clip's rate, frames, size in pixels and seconds; the dataset's word counts most."""
        row = self.rows.get(clip_id, {})
        facts = {name: row[name] for name in _FACTS if row.get(name) is not None}
        if clip_id not in self.videos or len(facts) == len(_FACTS):
            return facts
        try:
            columns = self.read_video(self.videos[clip_id].path)
        except (VideoError, OSError):
            return facts  # it becomes a row with this error later
        return {name: columns[name] for name in _FACTS if columns.get(name) is not None} | facts


def known_content(tables: Mapping[str, pa.Table]) -> KnownContent:
    """Return what a dataset's tables `boxes`, `qa` and `annotations` say of its clips, as far as they are there."""
    people: dict[str, People] = {}
    if "boxes" in tables:
        names = ("clip_id", "person_id", "frame", "x1", "y1", "x2", "y2")
        columns = (tables["boxes"][name].to_pylist() for name in names)
        for clip_id, person_id, frame, *corners in zip(*columns, strict=True):
            track = people.setdefault(clip_id, {}).setdefault(person_id, {})
            track.setdefault(frame, cast("Corners", tuple(corners)))
    questions: dict[str, Questions] = {}
    if "qa" in tables:
        for row in tables["qa"].to_pylist():
            questions.setdefault(row["clip_id"], {}).setdefault(row["qa_index"], set()).add(row["question"] or "")
    said = [from_row(row) for row in tables["annotations"].to_pylist()] if "annotations" in tables else []
    for each in said:
        if each.item is not None:  # also one that is rejected, or that annotators differ in, keeps its index
            texts = questions.setdefault(each.clip_id, {}).setdefault(each.item, set())
            texts.add(str(each.value.get("question", "")))
    return KnownContent(people, _drawn(said), questions)


def _drawn(said: Sequence[Annotation]) -> dict[tuple[str, str], People]:
    drawings: dict[tuple[str, str], list[Annotation]] = {}
    for each in current(said):
        if each.kind == "box" and each.source in ("cvat", "labelstudio"):
            drawings.setdefault((each.clip_id, each.annotator), []).append(each)
    return {
        whose: {person: {frame: box[:4] for frame, box in track.items()} for person, track in edited({}, edits).items()}
        for whose, edits in drawings.items()
    }


def check_places(tables: Mapping[str, pa.Table], files: Mapping[str, str], path: str, known: KnownClips) -> None:
    """Raise `FormatError` for the first box, or sample, on a frame that its clip has not, or without a size.

    Args:
        tables: Imported tables.
        files: The file that annotations of a clip come from, where it is not `path`.
        path: What is imported.
        known: Clips whose number of frames the dataset knows already.
    """
    clips = tables["clips"]
    ids = clips["clip_id"].to_pylist()
    stated = zip(ids, clips["num_frames"].to_pylist(), strict=True)
    lengths = pa.array(
        [known.rows.get(clip_id, {}).get("num_frames") or length for clip_id, length in stated], pa.int64()
    )
    for name in ("boxes", "samples"):
        if not (rows := tables.get(name)):
            continue
        rows = rows.combine_chunks()
        length = pc.take(lengths, pc.index_in(rows["clip_id"], pa.array(ids, pa.string())))
        outside = pc.or_(pc.less(rows["frame"], 1), pc.fill_null(pc.greater(rows["frame"], length), False))
        sized = pc.and_(pc.greater(rows["x2"], rows["x1"]), pc.greater(rows["y2"], rows["y1"]))
        for corner in ("x1", "y1", "x2", "y2"):
            sized = pc.and_(sized, pc.is_finite(rows[corner]))
        flat = pc.invert(pc.fill_null(sized, False))
        bad = pc.indices_nonzero(pc.or_(outside, flat)).to_pylist()
        if not bad:
            continue
        row = rows.slice(bad[0], 1).to_pylist()[0]
        clip_id = row["clip_id"]
        where = f"{files.get(clip_id, path)}: clip {clip_id}, frame {row['frame']}, person {row['person_id']}"
        more = f" ({len(bad) - 1} more rows of '{name}' are like this)" if len(bad) > 1 else ""
        if outside[bad[0]].as_py():
            last = length[bad[0]].as_py()
            frames = f"the clip has frames 1 to {last}" if last else "frames count from 1"
            raise FormatError(f"{where}: there is no such frame{more}", frames)
        corners = ", ".join(f"{corner} {row[corner]}" for corner in ("x1", "y1", "x2", "y2"))
        raise FormatError(f"{where}: a box of no size: {corners}{more}", "correct or remove it, and export again")


def check_judgements(
    annotations: Sequence[Annotation],
    tables: Mapping[str, pa.Table],
    files: Mapping[str, str],
    path: str,
    known: KnownClips,
) -> None:
    """Raise `FormatError` as `check_places` for boxes that somebody drew; `tables` hold the newest annotator's only."""
    rows = [
        {"clip_id": each.clip_id, "person_id": each.person_id, "frame": box[0]}
        | dict(zip(("x1", "y1", "x2", "y2"), box[1:5], strict=True))
        for each in annotations
        if each.kind == "box"
        for stretch in each.value.get("stretches", ())
        for box in stretch
    ]
    check_places({"clips": tables["clips"], "boxes": schema.from_rows("boxes", rows)}, files, path, known)
