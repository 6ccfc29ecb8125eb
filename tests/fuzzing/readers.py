"""Everything that reads what others wrote, with small sound files of each kind.

Dataset formats come from their registry, tables from the schemas, video containers and recipes from lists: a new one is
fuzzed without being named. `COVERED` says which functions the readers below stand for; a test finds functions that it
lacks.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save as save_safetensors

from microg import formats, storage
from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.annotations.decision_lists import read_decisions, read_reviewed
from microg.annotations.proposals import read_proposals
from microg.annotations.rows import Item
from microg.annotations.statements import Statement
from microg.config import read_recipe
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.label_space import MICROG_50
from microg.data.qa_kinds import read_kinds
from microg.data.vocabulary import MICROG_VOCABULARY
from microg.data.vocabulary_files import load_vocabulary, vocabulary_text
from microg.formats.key_frame_sources import read_key_frames
from microg.formats.labelmap import check_label_map, label_map_text
from microg.formats.video_files import find_videos, unpack_zip
from microg.jobs.commands.har_score.settings import load_har_score_config
from microg.jobs.commands.har_sweep.run import read_record
from microg.jobs.har_forward import _load_array
from microg.metrics.judge import read_verdict
from microg.models.detection.replay import read_detections
from microg.models.detection.ultralytics_model import load_model
from microg.models.detection.yolox import input_size
from microg.models.har.checkpoints.files import read_weights
from microg.models.video.clip_frames import read_clip_frames
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.cache import ResponseCache
from microg.models.vlm.api.completion import read_completion
from microg.models.vlm.api.response import TornAnswerError
from microg.models.vlm.base import Reply
from microg.models.vlm.cards import _own_facts
from microg.models.vlm.engines.checkpoint import _config
from microg.models.vlm.layouts.convert import opened, read_config
from microg.models.vlm.prompts import names as prompt_names
from microg.models.vlm.prompts import prompt
from microg.models.vlm.sampling import Uniform
from microg.pipelines.curate import observations
from microg.pipelines.har.sweep import Trial
from microg.pipelines.vlm.questions import read_questions
from microg.pipelines.vlm.settings import GenerateSettings
from microg.pipelines.vlm.train.lessons import read_lessons
from microg.pipelines.vlm.train.settings import TuneSettings
from microg.reports.run_folders import read_run
from microg.system.downloads import read_manifest, verify
from microg.texts.files import read_text_predictions, read_text_references
from microg.validation import validate
from microg.video import count_frames, decode_frames, probe, read_rgb
from tests.support.helpers import make_dataset, moving_scene
from tests.support.jhmdb import write_jhmdb

Use = Callable[[], object]


@dataclass(frozen=True)
class Reader:
    """A reader and what it reads.

    Attributes:
        name: How reports call it.
        make: Writes sound input below a folder and returns the files that strangers may change, and what reads them.
        refusals: What the reader raises for unfit input.
    """

    name: str
    make: Callable[[Path], tuple[list[Path], Use]]
    refusals: tuple[type[Exception], ...] = ()


def _file(name: str, content: bytes, read: Callable[[str], object], *refusals: type[Exception], suffix: str) -> Reader:
    def make(folder: Path) -> tuple[list[Path], Use]:
        path = folder / f"file{suffix}"
        path.write_bytes(content)
        return [path], lambda: read(str(path))

    return Reader(name, make, refusals)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    import pyarrow.parquet as pq

    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def all_readers() -> list[Reader]:
    """Return every reader."""
    return [
        reader
        for group in (_formats, _datasets, _har, _texts, _models, _videos, _replies, _folders, _judgements)
        for reader in group()
    ]


def _judgements() -> Iterator[Reader]:
    """What models propose, and lists that people filled in."""

    def proposed(command: str) -> Callable[[Path], tuple[list[Path], Use]]:
        def make(folder: Path) -> tuple[list[Path], Use]:
            dataset, run = make_dataset(folder / "data", videos=False), folder / "run"
            storage.write_json(str(run / "run.json"), {"command": command, "dataset": "0" * 16})
            name = "har_predictions" if command == "har predict" else "generations"
            table = schema.from_rows(name, _predicted()) if command == "har predict" else _generations()
            path = run / ("qa.parquet" if command == "data make-qa" else f"tables/{name}.parquet")
            pairs = [{"clip_id": "tourB_000", "qa_index": n, "question": "Who?", "answer": "One."} for n in range(2)]
            storage.write_parquet(str(path), schema.from_rows("qa", pairs) if path.name == "qa.parquet" else table)
            return [run / "run.json", path], lambda: read_proposals(str(run), dataset)

        return make

    for command in ("har predict", "vlm generate", "data make-qa"):
        yield Reader(f"proposals of {command}", proposed(command))

    def decisions(folder: Path) -> tuple[list[Path], Use]:
        dataset, path = make_dataset(folder / "data", videos=False), folder / "open.csv"
        path.write_text(
            "kind,clip_id,person_id,item,why,said by anna,decision\naction,tourB_000,1,,open,12 stand,12 stand;80\n"
            'screening,filmA_000,,,open,keep,"drop: a title"\nqa,filmA_000,,0,open,a | b,What? | A cup.\n'
        )
        return [path], lambda: read_decisions(path.read_bytes(), "open.csv", dataset, [])

    yield Reader("lists of decisions", decisions)

    def reviewed(folder: Path) -> tuple[list[Path], Use]:
        path = folder / "review.csv"
        path.write_text("clip_id,qa_index,question,answer,review,accept\na_000,0,Who?,One.,odd,yes\n")
        value = {"verdict": "accept", "question": "Who?", "answer": "One."}
        known = {"a_000:0": Statement("a_000:0", Item("qa", "a_000", None, 0), value)}
        return [path], lambda: read_reviewed(path.read_bytes(), "review.csv", known)

    yield Reader("reviewed lists", reviewed)


def _formats() -> Iterator[Reader]:
    def make(name: str) -> Callable[[Path], tuple[list[Path], Use]]:
        def written(folder: Path) -> tuple[list[Path], Use]:
            def label(rows: dict[str, list[dict[str, Any]]]) -> None:
                rows["splits"] += [{**row, "scheme": "published"} for row in list(rows["splits"])]

            source, target = make_dataset(folder / "source", label, videos=False), folder / "target"
            formats.write(name, source, str(target))
            options: dict[str, Any] = {"predictions": True} if name == "labelstudio" else {}
            return sorted(path for path in target.rglob("*") if path.is_file()), lambda: formats.read(
                name, str(target), **options
            )

        return written

    for name in formats.FORMATS:
        if name != "jhmdb":  # which we do not write
            yield Reader(f"format {name}", make(name))
    yield Reader("format jhmdb", _jhmdb)
    yield Reader("format ava, key frames", lambda folder: _key_frames(folder, "ava"))

    def zipped(folder: Path) -> tuple[list[Path], Use]:
        files, _ = make("cvat")(folder)
        path = folder / "task.zip"
        import zipfile

        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files[:1]:
                archive.write(file, "annotations.xml")
        return [path], lambda: formats.read("cvat", str(path))

    yield Reader("CVAT's zip files", zipped)
    yield from _other_peoples_exports()

    def videos(folder: Path) -> tuple[list[Path], Use]:
        import zipfile

        path = folder / "videos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(3):
                archive.writestr(f"videos/real/tourB/tourB_00{number}.mp4", bytes(range(200)) * 20)
        return [path], lambda: (unpack_zip(str(path), str(folder / "out")), find_videos(str(folder / "out")))

    yield Reader("zip files of videos", videos)
    yield _file("label maps", label_map_text().encode(), check_label_map, suffix=".pbtxt")
    changed = MICROG_VOCABULARY.merged([45], 46, "t").split(12, ["stand", "hang"], "t")
    yield _file("vocabularies", vocabulary_text(changed).encode(), load_vocabulary, suffix=".yaml")


def _jhmdb(folder: Path) -> tuple[list[Path], Use]:
    write_jhmdb(folder / "plain", {"run": 1}, frames=3, compressed=False)
    write_jhmdb(folder / "packed", {"run": 1}, pictures=True, frames=3)
    roots = [str(folder / name) for name in ("plain", "packed")]
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".txt", ".mat", ".png")]
    return files, lambda: [formats.read("jhmdb", root, dataset_root=str(folder / "set")) for root in roots]


def _other_peoples_exports() -> Iterator[Reader]:
    """Exports that we do not write ourselves."""

    def key(frame: int, enabled: bool) -> dict[str, Any]:
        return {"frame": frame, "enabled": enabled, "x": 10, "y": 10, "width": 20, "height": 20, "time": frame / 25}

    box = {"sequence": [key(1, True), key(75, False)], "labels": ["Crew"], "framesCount": 75, "duration": 3.0}
    result = [
        {"id": "r1", "type": "videorectangle", "from_name": "box", "value": box},
        {"id": "r2", "type": "choices", "from_name": "what", "value": {"choices": ["stand", "8 sleep"]}},
        {"id": "r1", "type": "rating", "from_name": "stars", "value": {"rating": 4}},
        {"from_id": "r1", "to_id": "r1", "type": "relation"},
    ]
    data = {"film": {"url": "/data/upload/1/3fa2b1c0-a_000.MOV"}, "width": "200", "height": "100", "fps": "30"}
    tasks = json.dumps([{"id": 1, "data": data, "annotations": [{"result": result}]}]).encode()

    def studio(path: str) -> object:
        return formats.read("labelstudio", path, label=["crew=person"])

    yield _file("Label Studio, another project", tasks, studio, suffix=".json")
    boxes = '<box frame="0" outside="0" xtl="1" ytl="2" xbr="30" ybr="40"><attribute name="action">12</attribute></box>'
    job = f"<annotations><meta><job><size>9</size></job></meta><track label='Crew'>{boxes}</track></annotations>"

    def cvat(path: str) -> object:
        return formats.read("cvat", path, label=["crew=person"], clip_id="a_000")

    yield _file("CVAT, a job", job.encode(), cvat, suffix=".xml")
    document = {
        "categories": [{"id": 7, "name": "Person"}],
        "videos": [{"id": 1, "name": "a_000", "num_frames": 2}],
        "images": [{"id": n, "video_id": 1, "frame_id": n, "file_name": f"{n:06d}.jpg"} for n in (1, 2)],
        "annotations": [{"id": 4, "image_id": 1, "category_id": 7, "track_id": 5, "bbox": [1, 2, 3, 4]}],
    }
    coco = json.dumps(document).encode()
    yield _file("COCO, frames from 1", coco, lambda path: formats.read("coco", path), suffix=".json")


def _key_frames(folder: Path, kind: str) -> tuple[list[Path], Use]:
    def label(rows: dict[str, list[dict[str, Any]]]) -> None:
        rows["splits"] += [{**row, "scheme": "published"} for row in list(rows["splits"])]

    source = make_dataset(folder / "source", label, videos=False)
    target = folder / "source"
    if kind == "ava":
        target = folder / "target"
        formats.write("ava", source, str(target))
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return files, lambda: read_key_frames(str(target), "all")


def _datasets() -> Iterator[Reader]:
    def made(use: Callable[[Path], object]) -> Callable[[Path], tuple[list[Path], Use]]:
        def make(folder: Path) -> tuple[list[Path], Use]:
            make_dataset(folder / "data", videos=False)
            return sorted((folder / "data").rglob("*.*")), lambda: use(folder / "data")

        return make

    def tables(root: Path) -> None:
        dataset = Dataset.open(str(root))
        for name in schema.TABLES:
            dataset.table(name)

    yield Reader("dataset tables", made(tables))
    yield Reader("dataset validation", made(lambda root: validate(Dataset.open(str(root)), videos=False)))
    yield Reader("dataset key frames", lambda folder: _key_frames(folder, "dataset"))
    yield Reader("dataset truth", made(lambda root: read_truth(str(root), MICROG_50, split="val", scheme="source")))
    yield Reader("dataset references", made(lambda root: read_text_references(str(root))))
    questions = made(
        lambda root: read_questions(GenerateSettings(model="stub", dataset=str(root), frames=Uniform(count=3)))
    )
    yield Reader("dataset questions", questions)
    tune = TuneSettings(model="stub", frames=Uniform(count=3))
    yield Reader("dataset lessons", made(lambda root: read_lessons(str(root), tune)))


def _har() -> Iterator[Reader]:
    rows = [f"tourB_00{n % 3},{52 + n},0.1,0.2,0.5,0.9,{12 + n % 2 * 5},{n - 3.5}" for n in range(12)]
    text = ("\n".join(rows) + "\n").encode()
    header = b"video_id,frame,x1,y1,x2,y2,action_id,logit\n"
    yield _file("HAR predictions, CSV", text, read_predictions, suffix=".csv")
    yield _file("HAR predictions, CSV with a header", header + text, read_predictions, suffix=".csv")
    yield _file("HAR predictions, CSV packed", gzip.compress(text), read_predictions, suffix=".csv.gz")
    truth = "\n".join(row.rpartition(",")[0] + ",1" for row in rows).encode()
    yield _file("HAR truth, CSV", truth, lambda path: read_truth(path, MICROG_50), suffix=".csv")
    kinetics = truth.replace(b",", b";").replace(b".", b",") + b"\ntourB_000;904,0\ntourB_000;905;;;;;;\n"
    yield _file("HAR truth, CSV of AVA-Kinetics", kinetics, lambda path: read_truth(path, MICROG_50), suffix=".csv")
    long = {
        name: [row.split(",")[place] for row in rows] for place, name in enumerate(header.decode().strip().split(","))
    }
    columns = {
        name: values if name == "video_id" else [float(value) for value in values] for name, values in long.items()
    }
    yield _file("HAR predictions, long Parquet", _parquet(pa.table(columns)), read_predictions, suffix=".parquet")
    table = schema.from_rows("har_predictions", _predicted())
    yield _file("HAR predictions, our table", _parquet(table), read_predictions, suffix=".parquet")

    def detections(folder: Path) -> tuple[list[Path], Use]:
        (folder / "a_000.csv").write_text("frame,x1,y1,x2,y2,conf,cls\n1,2,3,40,50,0.9,0\n2,2,3,41,50,0.8,0\n")
        return [folder / "a_000.csv"], lambda: read_detections(str(folder), "a_000", 90)

    yield Reader("stored detections", detections)
    buffer = io.BytesIO()
    np.save(buffer, np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    yield _file("arrays", buffer.getvalue(), lambda path: np.asarray(_load_array(path)).sum(), suffix=".npy")


def _predicted() -> list[dict[str, Any]]:
    return [
        {
            "sample_id": f"tourB_000:{frame}:1",
            "clip_id": "tourB_000",
            "frame": frame,
            "person_id": 1,
            **dict(zip(("x1", "y1", "x2", "y2"), (0.1, 0.2, 0.5, 0.9), strict=True)),
            "scores": [float(place) for place in range(50)],
            "score_kind": "logit",
            "label_space": "microg50",
            "status": "ok",
        }
        for frame in (52, 53)
    ]


def _texts() -> Iterator[Reader]:
    entries = [
        {"video_id": f"tourB_00{n}.mp4", "caption": "An astronaut floats.", "qa_pairs": [{"Q": "Who?", "A": "One."}]}
        for n in range(3)
    ]
    flat = [{"clip_id": f"tourB_00{n}", "question": "Who?", "qa_index": n, "answer": "One."} for n in range(3)]
    shapes: dict[str, bytes] = {
        "entries.json": json.dumps(entries).encode(),
        "by clip.json": json.dumps({entry["video_id"]: entry["caption"] for entry in entries}).encode(),
        "sections.json": json.dumps({"captions": [{"clip_id": "a_000", "caption": "x"}], "qa": flat}).encode(),
        "lines.jsonl": "\n".join(map(json.dumps, flat)).encode(),
        "packed.json.gz": gzip.compress(json.dumps(entries).encode()),
        "table.csv": b"clip_id,question,qa_index,answer\n"
        + b"".join(b'tourB_00%d,Who?,%d,"One, two."\n' % (n, n) for n in range(3)),
        "table.tsv": b"clip_id\tcaption\n" + b"".join(b"tourB_00%d\tAn astronaut.\n" % n for n in range(3)),
        "table.parquet": _parquet(pa.Table.from_pylist(entries)),
        "generations.parquet": _parquet(_generations()),
    }
    for name, content in shapes.items():
        suffix = name[name.index(".") :]
        yield _file(f"predicted texts, {name}", content, read_text_predictions, suffix=suffix)
        if name != "generations.parquet":
            yield _file(f"reference texts, {name}", content, read_text_references, suffix=suffix)


def _generations() -> pa.Table:
    row = {"task": "vqa", "question": "Who?", "prompt_id": "p", "text": "One.", "model": "m", "status": "ok"}
    return schema.from_rows("generations", [{**row, "clip_id": "tourB_000", "qa_index": n} for n in range(3)])


def _saved(tensors: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _shapes(path: str) -> list[tuple[int, ...]]:
    with opened(Path(path)) as tensors:
        return [tuple((tensors[name] + 0).shape) for name in tensors]


def _models() -> Iterator[Reader]:
    tensors = {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "conv.bias": torch.zeros(2)}
    for name, zipped in (("torch", True), ("torch before 1.6", False)):
        buffer = io.BytesIO()
        torch.save({"model_state": tensors, "epoch": 3}, buffer, _use_new_zipfile_serialization=zipped)
        yield _file(f"weights, {name}", buffer.getvalue(), read_weights, suffix=".pyth")
    yield _file("weights, safetensors", save_safetensors(tensors), read_weights, suffix=".safetensors")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        about = tarfile.TarInfo("a.safetensors")
        about.size = len(save_safetensors(tensors))
        archive.addfile(about, io.BytesIO(save_safetensors(tensors)))
    yield _file("weights, tar", packed.getvalue(), read_weights, suffix=".tar")
    blobs = {"blobs": {"conv1_w": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "pred_b": np.zeros(3)}}
    yield _file("weights, caffe2", pickle.dumps(blobs, protocol=2), read_weights, suffix=".pkl")
    yield _file("weights, detector", _detector(), lambda path: load_model(Path(path)), suffix=".pt")
    yield _file("weights, yolox", _yolox(), lambda path: input_size(Path(path)), suffix=".onnx")
    config = json.dumps({"architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 8}).encode()
    yield _file("checkpoint's config.json", config, lambda path: _config(Path(path)), suffix=".json")

    for name, content, suffix in (
        ("safetensors", save_safetensors(tensors), ".safetensors"),
        ("torch", _saved(tensors), ".bin"),
    ):
        yield _file(f"weights to convert, {name}", content, _shapes, suffix=suffix)
    layout = json.dumps({"architectures": ["TarsierForConditionalGeneration"], "text_config": {"hidden_size": 8}})
    yield _file("config.json to convert", layout.encode(), lambda path: read_config(Path(path)), suffix=".json")

    def trained(folder: Path) -> tuple[list[Path], Use]:
        from microg.models.vlm.layouts import OWN_FACTS

        (folder / OWN_FACTS).write_text(json.dumps({"frames": {"kind": "uniform", "count": 9}}))
        return [folder / OWN_FACTS], lambda: _own_facts(folder)

    yield Reader("facts of a trained checkpoint", trained)
    recipes = Path(storage.__file__).parent / "recipes"
    for place, recipe in enumerate(sorted(recipes.rglob("*.yaml"))):
        if place % 8 == 0:
            yield _file(f"recipe {recipe.stem}", recipe.read_bytes(), read_recipe, suffix=".yaml")
    scoring = b"score:\n  protocol: both\n  resamples: 100\n"
    yield _file("settings", scoring, lambda path: load_har_score_config(path, (), {}), suffix=".yaml")


def _detector() -> bytes:
    """Return a checkpoint of ultralytics with a network of a few layers."""
    from ultralytics.nn.tasks import DetectionModel

    convolutions = [[-1, 1, "Conv", [64, 3, 2]]] * 5
    shape: Any = {"scales": {"n": [0.33, 0.0625, 64]}, "scale": "n", "backbone": convolutions, "nc": 1}
    shape["head"] = [[[2, 3, 4], 1, "Detect", ["nc"]]]
    model = DetectionModel(shape, nc=1, verbose=False)
    model.names = {0: "person"}
    buffer = io.BytesIO()
    torch.save({"model": model}, buffer)
    return buffer.getvalue()


def _yolox() -> bytes:
    """Return an ONNX file with the shapes of a YOLOX network of 32 pixels a side, and a layer."""
    from onnx import TensorProto, helper

    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    given = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 21, 6])
    fill = helper.make_tensor("fill", TensorProto.FLOAT, [126], np.zeros(126, np.float32))
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [1, 21, 6])
    nodes = [helper.make_node("Reshape", ["fill", "shape"], ["output"])]
    graph = helper.make_graph(nodes, "yolox", [taken], [given], [fill, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


def _videos() -> Iterator[Reader]:
    def use(path: str) -> None:
        probe(path)
        for _ in decode_frames(path):
            pass
        count_frames(path)
        read_rgb(path, 1)
        read_clip_frames(path, [0, 3])

    for suffix, codec in (
        (".mp4", "libx264"),
        (".mkv", "libx264"),
        (".avi", "mpeg4"),
        (".webm", "libvpx-vp9"),
        (".ts", "mpeg2video"),
    ):
        buffer = io.BytesIO()
        kind = {".mkv": "matroska", ".ts": "mpegts"}.get(suffix, suffix[1:])
        with av.open(buffer, "w", format=kind) as container:
            stream: Any = container.add_stream(codec, rate=30)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for frame in moving_scene(1, frames=6):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        yield _file(f"video {suffix}", buffer.getvalue(), use, suffix=suffix)


def _replies() -> Iterator[Reader]:
    def text(path: str) -> str:
        return Path(path).read_bytes().decode("utf-8", "replace")

    verdict = b'Sure: {"verdict": "correct", "score": 4, "reason": "same"}'
    yield _file("judges' verdicts", verdict, lambda path: read_verdict(text(path)), ValueError, suffix=".txt")
    completion = {
        "choices": [{"message": {"content": "One."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    }

    def complete(path: str) -> object:
        return read_completion(Path(path).read_bytes(), {})

    yield _file("chat completions", json.dumps(completion).encode(), complete, TornAnswerError, suffix=".json")
    for name in prompt_names():
        if (schema_of_reply := prompt(name).json_schema) is not None:
            kinds = {name: kind.get("type") for name, kind in schema_of_reply["properties"].items()}
            sample = json.dumps({name: kind == "boolean" or "x" for name, kind in kinds.items()}).encode()
            yield _file(
                f"replies to {name}",
                sample,
                lambda path, name=name: prompt(name).read(text(path)),
                ValueError,
                suffix=".txt",
            )
            break


def _folders() -> Iterator[Reader]:
    """Run folders and what is beside them: their own command wrote them, and others pass them on."""

    def run(folder: Path) -> tuple[list[Path], Use]:
        root = folder / "run"
        (root / "tables").mkdir(parents=True)
        (root / "run.json").write_text(json.dumps({"command": "har score", "config": {"row": "x"}, "full_config": {}}))
        (root / "metrics.json").write_text(json.dumps({"finished": "2026", "model": {"name": "m"}}))
        for name, kind in schema.RUN_TABLES.items():
            storage.write_parquet(str(root / "tables" / f"{name}.parquet"), kind.empty_table())
        storage.write_parquet(str(root / "tables" / "generations.parquet"), _generations())

        def use() -> None:
            found = read_run(str(root))
            for name in schema.RUN_TABLES:
                found.table(name)

        return sorted(path for path in root.rglob("*") if path.is_file()), use

    yield Reader("run folders", run)

    def trial(folder: Path) -> tuple[list[Path], Use]:
        path = folder / "trials" / "t_0" / "trial.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"status": "done", "epoch": 3, "error": None}))
        return [path], lambda: read_record(str(folder), Trial("t_0", "tiny", {}, 3))

    yield Reader("records of trials", trial)

    def parts(folder: Path) -> tuple[list[Path], Use]:
        (folder / "tables" / "generations").mkdir(parents=True)
        files = [folder / "tables" / "generations" / f"part-{n}.parquet" for n in range(2)]
        for file in files:
            storage.write_parquet(str(file), _generations())
        return files, lambda: read_text_predictions(str(folder))

    yield Reader("parts of a run's table", parts)

    def kinds(folder: Path) -> tuple[list[Path], Use]:
        path = folder / "tables" / "qa_kinds.parquet"
        row = {"clip_id": "filmA_000", "qa_index": 0, "question": "Why?", "answer": "So.", "kind": "causal"}
        storage.write_parquet(str(path), schema.from_rows("qa_kinds", [{**row, "by_rules": "causal", "status": "ok"}]))
        return [path], lambda: read_kinds(str(folder))

    yield Reader("kinds of questions", kinds)

    def observed(folder: Path) -> tuple[list[Path], Use]:
        storage.write_parquet(str(folder / "observations" / "part-0.parquet"), observations.SCHEMA.empty_table())
        files = list((folder / "observations").iterdir())
        return files, lambda: observations.read(str(folder))

    yield Reader("observations of a curation", observed)

    def download(folder: Path) -> tuple[list[Path], Use]:
        (folder / "a.csv").write_bytes(b"a")
        entry = {"path": "a.csv", "size": 1, "sha256": storage.sha256(str(folder / "a.csv")), "git_sha1": "0"}
        (folder / "download.json").write_text(json.dumps({"repo": "a/b", "files": [entry]}))
        return [folder / "download.json"], lambda: (read_manifest(folder), verify(folder))

    yield Reader("records of downloads", download)

    def cache(folder: Path) -> tuple[list[Path], Use]:
        path = folder / "replies.sqlite"
        with ResponseCache(str(path)) as kept:
            kept.put("key", Reply("key", text="One.", finish_reason="stop"))

        def use() -> object:
            with ResponseCache(str(path)) as again:
                return again.get("key")

        return [path], use

    yield Reader("caches of replies", cache)

    def account(folder: Path) -> tuple[list[Path], Use]:
        path = folder / "account.sqlite"
        with closing(Budget(5.0, journal=path)) as budget:
            budget.settle(budget.hold(0.5), 0.25)

        def use() -> object:
            with closing(Budget(5.0, journal=path)) as again:
                return again.spent

        return [path], use

    yield Reader("accounts of costs", account)
