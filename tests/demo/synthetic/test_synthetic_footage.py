"""Synthetic footage: files, cuts, truth, and labels carried over to a curated dataset."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.ids import make_clip_id, source_ids
from microg.demo.synthetic import annotate, generate_footage, truth
from microg.demo.synthetic.annotate import iou
from microg.demo.synthetic.encoding import encode
from microg.demo.synthetic.footage import FORMATS, Format, plan_takes, shot_lengths
from microg.demo.synthetic.render import ShotRenderer
from microg.demo.synthetic.scenes import draw_module
from microg.errors import ConfigError, DatasetError

SECONDS, FPS = 12.0, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    generate_footage(str(folder), 4, seed=1, seconds=SECONDS, fps=FPS, width=160, height=120)
    return folder


def rows(folder: Path, name: str) -> list[dict]:
    return truth.read(str(folder / "truth"), name).to_pylist()


def test_files_are_of_several_containers_and_codecs_and_decode_as_the_truth_says(folder: Path):
    files = rows(folder, "files")
    assert {(f["container"], f["codec"]) for f in files} == {(f.extension, f.codec) for f in FORMATS}
    for file in files:
        with av.open(str(folder / file["file"])) as container:
            stream = container.streams.video[0]
            assert float(stream.average_rate or 0) == FPS
            frames = list(container.decode(stream))
            assert [(f.width, f.height) for f in frames] == [(160, 120)] * int(SECONDS * FPS)
            assert [round(float(f.time or 0) * FPS) for f in frames] == list(range(len(frames)))


def test_encoding_the_same_frames_gives_the_same_bytes_every_time():
    # these frames gave three different files in eight runs while the encoder used B-frames
    form = Format("mp4", "libx264", 5, 96, 64)
    take = plan_takes(4, 0, 2.0, 0.85, form)[0]
    background = draw_module(take.shot.module, np.random.default_rng(take.module_seed), 96, 64)
    renderer = ShotRenderer(take.shot, background, 96, 64)
    frames = [renderer.frame(number / 5).image for number in range(10)]
    assert len({encode(frames, fps=5, width=96, height=64) for _ in range(12)}) == 1


def test_default_formats_differ_in_rate_and_size():
    assert {f.fps for f in FORMATS} == {24, 25, 30, 60}
    assert len({(f.width, f.height) for f in FORMATS}) == 4


def test_content_detection_at_forty_finds_every_cut_and_no_other(folder: Path):
    from scenedetect import ContentDetector, detect

    for file in rows(folder, "files"):
        shots = [s for s in rows(folder, "shots") if s["file"] == file["file"]]
        found = detect(str(folder / file["file"]), ContentDetector(threshold=40))
        starts = [scene[0].frame_num + 1 for scene in found] or [1]
        assert starts == [s["first_frame"] for s in shots]


def test_shots_fill_the_file_and_those_of_even_files_are_multiples_of_three_seconds(folder: Path):
    shots = rows(folder, "shots")
    for index, file in enumerate(rows(folder, "files")):
        own = [s for s in shots if s["file"] == file["file"]]
        assert own[0]["start_s"] == 0.0
        assert own[-1]["end_s"] == SECONDS
        assert [s["last_frame"] + 1 for s in own[:-1]] == [s["first_frame"] for s in own[1:]]
        if index % 2 == 0:
            assert all(s["start_s"] % 3.0 == 0.0 for s in own)
    for seed in range(30):
        lengths = shot_lengths(np.random.default_rng(seed), 20.0, aligned=bool(seed % 2))
        assert sum(lengths) == pytest.approx(20.0)
        assert min(lengths) >= 2.0


def test_most_shots_show_people_some_are_empty_and_modules_change_at_cuts():
    form = Format("mp4", "libx264", 30, 854, 480)
    files = [plan_takes(0, index, 24.0, 0.85, form) for index in range(4)]
    empty = [take for takes in files for take in takes if not take.shot.people]
    assert all(takes[0].shot.people for takes in files)
    assert 0.05 < len(empty) / sum(map(len, files)) < 0.4
    for takes in files:
        assert all(one.shot.module != other.shot.module for one, other in pairwise(takes))


def test_truth_boxes_are_normalised_and_belong_to_people_of_their_shot(folder: Path):
    labelled = {(r["file"], r["shot"], r["person_id"]) for r in rows(folder, "actions")}
    boxes = rows(folder, "boxes")
    assert {(r["file"], r["shot"], r["person_id"]) for r in boxes} == labelled
    assert all(0 <= r["x1"] < r["x2"] <= 1 and 0 <= r["y1"] < r["y2"] <= 1 for r in boxes)
    assert all(r["time_s"] == (r["frame"] - 1) / FPS for r in boxes)


def test_the_same_seed_gives_the_same_bytes_and_a_second_run_keeps_what_is_there(folder: Path, tmp_path: Path):
    small: dict[str, Any] = {"seed": 4, "seconds": 2.0, "fps": 5, "width": 96, "height": 64}
    for name in ("a", "b"):
        generate_footage(str(tmp_path / name), 2, **small)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 2 + 2 + 5
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    kept = (tmp_path / "a" / "footage_00.mp4").stat().st_mtime_ns
    (tmp_path / "a" / "footage_01.mkv").unlink()
    generate_footage(str(tmp_path / "a"), 2, **small)
    assert (tmp_path / "a" / "footage_00.mp4").stat().st_mtime_ns == kept
    assert (tmp_path / "a" / "footage_01.mkv").read_bytes() == (tmp_path / "b" / "footage_01.mkv").read_bytes()
    with pytest.raises(DatasetError, match="other settings"):
        generate_footage(str(tmp_path / "a"), 2, **{**small, "seed": 5})


@pytest.mark.parametrize(
    "bad", [{"videos": 0}, {"seconds": 1.0}, {"fps": 0}, {"width": 33}, {"upright": -0.1}, {"zoom": 3}]
)
def test_bad_values_are_refused(tmp_path: Path, bad: dict):
    with pytest.raises(ConfigError):
        generate_footage(str(tmp_path), **{"videos": 1, **bad})


def curated(folder: Path, root: Path, *, shift: float = 0.0) -> Dataset:
    """A dataset as curation would make it from the footage: 3 s clips at 30 fps, 640x480, tracked boxes.

    Tracked ids are the true ones plus 10; boxes are moved by `shift` of their width.
    """
    dataset = Dataset.create(str(root), "curated")
    ids = source_ids(f["file"] for f in rows(folder, "files"))
    by_frame: dict[tuple[str, int], list[dict]] = {}
    for row in rows(folder, "boxes"):
        by_frame.setdefault((row["file"], row["frame"]), []).append(row)
    clips, boxes = [], []
    for file in rows(folder, "files"):
        for sequence in range(int(SECONDS // 3)):
            clip_id = make_clip_id(ids[file["file"]], sequence)
            clips.append(
                {
                    "clip_id": clip_id,
                    "source_id": ids[file["file"]],
                    "sequence": sequence,
                    "fps": 30.0,
                    "width": 640,
                    "height": 480,
                    "duration_s": 3.0,
                    "num_frames": 90,
                    "status": "ok",
                    "uri": f"videos/{clip_id}.mp4",
                }
            )
            for frame in range(1, 91):
                native = int((sequence * 3.0 + (frame - 1) / 30.0) * FPS + 1e-9) + 1
                for row in by_frame.get((file["file"], native), []):
                    moved = shift * (row["x2"] - row["x1"])
                    boxes.append(
                        {
                            "clip_id": clip_id,
                            "frame": frame,
                            "person_id": row["person_id"] + 10,
                            "x1": (row["x1"] + moved) * 640,
                            "x2": (row["x2"] + moved) * 640,
                            "y1": row["y1"] * 480,
                            "y2": row["y2"] * 480,
                            "confidence": 0.8,
                        }
                    )
    dataset.write("clips", schema.from_rows("clips", clips))
    dataset.write("boxes", schema.from_rows("boxes", boxes))
    return dataset


def covering(folder: Path, source: str, sequence: int) -> dict | None:
    ids = {value: key for key, value in source_ids(f["file"] for f in rows(folder, "files")).items()}
    for shot in rows(folder, "shots"):
        if shot["file"] == ids[source] and shot["start_s"] <= 3 * sequence and shot["end_s"] >= 3 * sequence + 3:
            return shot
    return None


def test_annotate_gives_tracked_people_their_true_labels_and_each_clip_its_words(folder: Path, tmp_path: Path):
    dataset = curated(folder, tmp_path / "set")
    counts = annotate(dataset, str(folder))
    labels: dict[tuple, set[int]] = {}
    for row in rows(folder, "actions"):
        labels.setdefault((row["file"], row["shot"], row["person_id"] + 10), set()).add(row["action_id"])
    given: dict[tuple, set[int]] = {}
    for row in dataset.table("actions").to_pylist():
        given.setdefault((row["clip_id"], row["person_id"]), set()).add(row["action_id"])
    captions = {r["clip_id"]: r["caption"] for r in dataset.table("captions").to_pylist()}
    whole = 0
    for clip in dataset.kept_clips().to_pylist():
        shot = covering(folder, clip["source_id"], clip["sequence"])
        if shot is None:
            assert clip["clip_id"] not in captions
            assert not any(clip_id == clip["clip_id"] for clip_id, _ in given)
            continue
        whole += 1
        assert captions[clip["clip_id"]] == shot["caption"]
        people = {person: ids for (clip_id, person), ids in given.items() if clip_id == clip["clip_id"]}
        assert people == {p: ids for (f, s, p), ids in labels.items() if (f, s) == (shot["file"], shot["shot"])}
    assert 0 < whole < dataset.kept_clips().num_rows
    assert counts["clips"] == whole
    assert counts["clips_across_cuts"] == dataset.kept_clips().num_rows - whole
    assert dataset.table("qa").num_rows == 6 * whole
    assert counts["people_matched"] == len(given)


def test_annotate_leaves_people_unmatched_whose_boxes_are_elsewhere(folder: Path, tmp_path: Path):
    dataset = curated(folder, tmp_path / "set", shift=0.8)
    counts = annotate(dataset, str(folder / "truth"))
    assert counts["people_unmatched"] > 5
    assert counts["people_matched"] < counts["people_unmatched"]
    near = annotate(curated(folder, tmp_path / "near", shift=0.1), str(folder))
    assert near["people_unmatched"] == 0


def test_annotate_keeps_rows_of_other_sources_and_may_be_repeated(folder: Path, tmp_path: Path):
    dataset = curated(folder, tmp_path / "set")
    other = {
        "clip_id": "other_000",
        "source_id": "other",
        "sequence": 0,
        "fps": 30.0,
        "width": 640,
        "height": 480,
        "duration_s": 3.0,
        "num_frames": 90,
        "status": "ok",
        "uri": "videos/other_000.mp4",
    }
    dataset.write("clips", pa.concat_tables([dataset.table("clips"), schema.from_rows("clips", [other])]))
    dataset.write("captions", schema.from_rows("captions", [{"clip_id": "other_000", "caption": "Mine."}]))
    first = annotate(dataset, str(folder))
    once = dataset.fingerprint()
    assert annotate(dataset, str(folder)) == first
    assert dataset.fingerprint() == once
    assert first["clips_of_other_sources"] == 1
    assert {"clip_id": "other_000", "caption": "Mine."} in dataset.table("captions").to_pylist()


def test_a_folder_without_truth_is_refused_with_the_way_to_make_it(tmp_path: Path):
    dataset = Dataset.create(str(tmp_path / "set"), "empty")
    with pytest.raises(DatasetError, match="no truth tables") as caught:
        annotate(dataset, str(tmp_path))
    assert "microg data synth" in (caught.value.fix or "")


def test_iou_of_known_boxes():
    box = np.array((0.0, 0.0, 2.0, 2.0))
    others = np.array(((0, 0, 2, 2), (1, 0, 3, 2), (2, 2, 3, 3)), dtype=float)
    assert iou(box, others).tolist() == pytest.approx([1.0, 1 / 3, 0.0])
