"""What `microg data export-sft` does: frames as pictures, and rows in the form of other people's trainers."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field

from microg import storage
from microg.arrow import parse_schema, pc
from microg.config import Config
from microg.console import ProgressDisplay, say, say_aside
from microg.data.dataset import Dataset
from microg.data.ids import check_id
from microg.data.schema import SPLITS
from microg.errors import ConfigError, DatasetError, VideoError
from microg.locks import exclusive
from microg.models.video.decoders.registry import DECODER, DecoderName
from microg.models.vlm.base import Frames
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.prompts import Prompt
from microg.models.vlm.sampling import FramePolicy, Uniform
from microg.pipelines.vlm.questions import key_frames_of
from microg.pipelines.vlm.settings import PromptIds, prompt_for
from microg.pipelines.vlm.train.lessons import texts_of
from microg.runs import Run
from microg.texts.items import TASKS, Task

COMMAND = "data export-sft"
_FRAMES = parse_schema(
    "clip_id split: string, indices: [int32], frame_hash: string, width height: int32, status error: string"
)
_SHOWN = 5


class ExportSftConfig(Config):
    """What decides the rows."""

    volatile: ClassVar[frozenset[str]] = frozenset({"decoder"})
    style: Literal["swift", "llama-factory", "datasets"] = Field(
        default="swift",
        description="Whose form rows have: swift (ms-swift, JSON Lines), llama-factory (JSON Lines with "
        "dataset_info.json) or datasets (Parquet, a row a clip with its pictures).",
    )
    frames: FramePolicy = Field(default=Uniform(count=8), description="How frames of a clip are chosen.")
    tasks: tuple[Task, ...] = Field(default=TASKS, min_length=1, description="What is learnt: caption, vqa.")
    prompts: PromptIds = PromptIds()
    scheme: str = Field(
        default="source", description="Split scheme of the dataset; source shares no video among splits."
    )
    limit: int | None = Field(default=None, ge=1, description="Take only the first N clips of each split.")
    decoder: DecoderName = Field(default="auto", description=DECODER)

    def prompt_of(self, task: Task) -> Prompt:
        """Return the prompt of a task."""
        return prompt_for(self.prompts, task)


def plan(settings: ExportSftConfig, dataset: str, out: str) -> dict[str, Any]:
    """Return what would be written."""
    opened = Dataset.open(dataset)
    texts = texts_of(opened, settings.tasks)
    rows = _clips(opened, texts, settings)
    return {
        "dataset": dataset,
        "out": out,
        "style": settings.style,
        "frames": settings.frames.label(),
        "clips": {split: len(clips) for split, clips in rows.items()},
        "rows": {split: sum(len(texts[clip["clip_id"]]) for clip in clips) for split, clips in rows.items()},
    }


def export(settings: ExportSftConfig, dataset: str, out: str) -> dict[str, Any]:
    """Write the rows and frames and return the report; what is there already is not decoded again.

    Raises:
        ConfigError: `out` is not on this machine.
        DatasetError: The dataset has no texts in any split.
    """
    if not storage.is_local(out):
        raise ConfigError(f"{out} is not on this machine: trainers read files", "give a folder here, and upload it")
    opened = Dataset.open(dataset)
    texts = texts_of(opened, settings.tasks)
    splits = _clips(opened, texts, settings)
    if not any(splits.values()):
        raise DatasetError(
            f"no split of scheme {settings.scheme!r} of {dataset} has {' or '.join(settings.tasks)}",
            f"choose another with --scheme, or make one with 'microg data split {dataset}'",
        )
    keys = key_frames_of(opened) if settings.frames.kind == "key" else {}
    with exclusive(out):
        run = Run.start(out, COMMAND, settings, dataset=opened.fingerprint())
        known = _known(run)
        about: list[dict[str, Any]] = []
        with ProgressDisplay("frames", sum(map(len, splits.values())), unit="clips") as bar:
            for split, clips in splits.items():
                for clip in clips:
                    row = known.get(clip["clip_id"]) or _frames_of(opened, clip, keys, settings, run)
                    about.append({**row, "split": split})
                    bar.advance(1, int(row["status"] == "error"))
        storage.write_parquet(run.path("frames.parquet"), pa.Table.from_pylist(about, schema=_FRAMES))
        good = {row["clip_id"]: row for row in about if row["status"] == "ok"}
        written = {
            split: _write(
                run, split, [clip["clip_id"] for clip in clips if clip["clip_id"] in good], good, texts, settings
            )
            for split, clips in splits.items()
        }
        if settings.style == "llama-factory":
            storage.write_json(run.path("dataset_info.json"), _dataset_info(written))
        failures = [f"{row['clip_id']}: {row['error']}" for row in about if row["status"] == "error"]
        report = {
            "out": run.root,
            "style": settings.style,
            "frames": settings.frames.label(),
            "files": {split: file for split, (file, _) in written.items()},
            "rows": {split: count for split, (_, count) in written.items()},
            "failed": len(failures),
            "errors": failures[:50],
        }
        run.finish(report)
    return report


def _clips(
    dataset: Dataset, texts: dict[str, list[tuple]], settings: ExportSftConfig
) -> dict[str, list[dict[str, Any]]]:
    """Return the clips of each split that have texts and a video."""
    clips = dataset.kept_clips().sort_by("clip_id").select(["clip_id", "uri"])
    assigned = dataset.table("splits")
    assigned = assigned.filter(pc.equal(assigned["scheme"], settings.scheme))
    split_of = dict(zip(assigned["clip_id"].to_pylist(), assigned["split"].to_pylist(), strict=True))
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for row in clips.to_pylist():
        split = split_of.get(row["clip_id"])
        if split is not None and row["uri"] and texts.get(row["clip_id"]):
            found[split].append(row)
    return {split: rows[: settings.limit] for split, rows in found.items()}


def _known(run: Run) -> dict[str, dict[str, Any]]:
    """Return the clips whose frames an earlier invocation wrote whole."""
    folder = run.path("frames")
    found = {}
    for name in storage.names(folder) if storage.exists(folder) else ():
        path = storage.join(folder, name, "frames.json")
        if storage.exists(path):
            found[name] = storage.read_json(path)
    return found


def _frames_of(
    dataset: Dataset, clip: dict[str, Any], keys: dict[str, int], settings: ExportSftConfig, run: Run
) -> dict[str, Any]:
    """Write a clip's frames as PNG files and return what they are, or why there are none."""
    clip_id = check_id(clip["clip_id"], "clip id")
    try:
        uri = dataset.resolve(clip["uri"], clip_id)
        shown = sample_frames(uri, [settings.frames], key_frame=keys.get(clip_id), decoder=settings.decoder)[0]
    except VideoError as error:
        return {"clip_id": clip_id, "status": "error", "error": str(error)}
    for number, pixels in enumerate(shown.pixels):
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "PNG", compress_level=3)
        storage.write_bytes(run.path("frames", clip_id, _name(number)), picture.getvalue())
    row = _about(clip_id, shown)
    storage.write_json(run.path("frames", clip_id, "frames.json"), row)  # last: the clip is whole
    return row


def _about(clip_id: str, shown: Frames) -> dict[str, Any]:
    return {
        "clip_id": clip_id,
        "indices": list(shown.indices),
        "frame_hash": shown.sha256,
        "width": shown.width,
        "height": shown.height,
        "status": "ok",
        "error": "",
    }


def _name(number: int) -> str:
    return f"{number:03d}.png"


def _rows(
    clips: list[str], good: dict[str, dict[str, Any]], texts: dict[str, list[tuple]], settings: ExportSftConfig
) -> Iterator[dict[str, Any]]:
    for clip_id in clips:
        pictures = [f"frames/{clip_id}/{_name(number)}" for number in range(len(good[clip_id]["indices"]))]
        for task, index, question, answer in texts[clip_id]:
            prompt = settings.prompt_of(task)
            asked = prompt.render(**({} if question is None else {"question": question}))
            turns = [
                {"role": "user", "content": "<image>" * len(pictures) + asked},
                {"role": "assistant", "content": answer},
            ]
            if prompt.system:
                turns.insert(0, {"role": "system", "content": prompt.system})
            yield {"clip_id": clip_id, "task": task, "qa_index": index, "messages": turns, "images": pictures}


def _write(
    run: Run,
    split: str,
    clips: list[str],
    good: dict[str, dict[str, Any]],
    texts: dict[str, list[tuple]],
    settings: ExportSftConfig,
) -> tuple[str, int]:
    """Write the rows of a split; return the file's name and how many captions and answers it has."""
    rows = _rows(clips, good, texts, settings)
    if settings.style == "datasets":
        return _write_parquet(run, f"{split}.parquet", rows)
    lines = [
        json.dumps({"messages": row["messages"], "images": row["images"]}, ensure_ascii=False) + "\n" for row in rows
    ]
    name = f"{split}.jsonl"
    storage.write_bytes(run.path(name), "".join(lines).encode())
    return name, len(lines)


_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TEXT = pa.struct([("task", pa.string()), ("qa_index", pa.int32()), ("prompt", pa.string()), ("answer", pa.string())])
_STRING, _NUMBER = {"dtype": "string", "_type": "Value"}, {"dtype": "int32", "_type": "Value"}
# How the library datasets reads the columns: it decodes pictures by this.
_FEATURES = {
    "clip_id": _STRING,
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "texts": {
        "feature": {"task": _STRING, "qa_index": _NUMBER, "prompt": _STRING, "answer": _STRING},
        "_type": "List",
    },
}
_PARQUET = pa.schema(
    [("clip_id", pa.string()), ("images", pa.list_(_PICTURE)), ("texts", pa.list_(_TEXT))],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def _write_parquet(run: Run, name: str, rows: Iterator[dict[str, Any]]) -> tuple[str, int]:
    """Write one row a clip, its pictures with all its texts, clip after clip; return the name and count the texts."""
    target = storage.local_path(run.path(name))
    temporary, count = target.with_name(f".{name}.tmp"), 0
    with pq.ParquetWriter(temporary, _PARQUET) as writer:
        for clip_id, group in itertools.groupby(rows, key=lambda row: row["clip_id"]):
            mine = list(group)
            texts = [
                {
                    "task": row["task"],
                    "qa_index": row["qa_index"],
                    "prompt": row["messages"][-2]["content"].removeprefix("<image>" * len(row["images"])),
                    "answer": row["messages"][-1]["content"],
                }
                for row in mine
            ]
            pictures = [
                {"bytes": storage.read_bytes(run.path(*path.split("/"))), "path": path} for path in mine[0]["images"]
            ]
            row = {"clip_id": clip_id, "images": pictures, "texts": texts}
            writer.write_table(pa.Table.from_pylist([row], schema=_PARQUET))
            count += len(texts)
    temporary.replace(target)
    return name, count


def _dataset_info(written: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """Return LLaMA-Factory's description of the files."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    return {
        f"microg_{split}": {
            "file_name": file,
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {**tags, "system_tag": "system"},
        }
        for split, (file, count) in written.items()
        if count
    }


def show(report: dict[str, Any]) -> None:
    """Print what was written."""
    for split, count in report["rows"].items():
        say(f"{split:>6}  {count:>8,} rows  {report['files'][split]}")
    for failure in report["errors"][:_SHOWN]:
        say_aside(f"failed: {failure}")
    if report["failed"]:
        say(f"{report['failed']} clips failed; run the same command to try them again")
    say(f"wrote {report['style']} with frames {report['frames']} to {report['out']}")
