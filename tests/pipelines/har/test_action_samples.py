"""Action samples from videos and frame folders: the right pixels, in the right order, whatever decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from microg import formats
from microg.data.dataset import Dataset
from microg.data.key_frames import key_frame_rows
from microg.data.label_space import MICROG_50
from microg.errors import DatasetError
from microg.formats.key_frame_sources import read_key_frames
from microg.models.har import clip_geometry
from microg.pipelines.har import samples
from microg.pipelines.har.samples import View, collate, decode_rows, from_table, to_table
from tests.support.clips import FRAMES, SMALL_SPEC, make_clips
from tests.support.footage import damage_packet, number_of

SPEC = SMALL_SPEC


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_clips(tmp_path_factory.mktemp("clips"), 7, key_frames=(3, 15))


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> pa.Table:
    return key_frame_rows(dataset, "test")


def view(mode: samples.Mode, seed: int = 0) -> View:
    return View(spec=SPEC, mode=mode, seed=seed)


def test_the_reference_frames_are_shown_in_order(rows: pa.Table) -> None:
    found = decode_rows(rows.slice(0, 2).to_pylist(), view("test"))
    for sample, frame in zip(found, (3, 15), strict=True):
        expected = clip_geometry.frame_indices(frame, SPEC.frames, SPEC.sampling_rate, FRAMES)
        assert [number_of(picture) for picture in sample.clip] == expected.tolist()
        assert sample.error == ""
    assert found[0].clip.shape == (4, 32, 53, 3)


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    from tests.support.helpers import write_video

    red = np.zeros((48, 80, 3), np.uint8)
    red[..., 0] = 220
    write_video(tmp_path / "red.mp4", [red] * 12)
    row = {
        "key": "a_000:6",
        "clip_id": "a_000",
        "frame": 6,
        "uri": str(tmp_path / "red.mp4"),
        "num_frames": None,
        "person_id": [1],
        "boxes": [0.1, 0.1, 0.9, 0.9],
        "labels": [[12]],
    }
    sample = decode_rows([row], view("val"))[0]
    assert sample.clip[..., 0].min() > 180
    assert sample.clip[..., 1:].max() < 60


def test_a_frame_folder_gives_the_same_clips_up_to_jpeg_noise(dataset: Dataset, tmp_path: Path) -> None:
    formats.write("ava", dataset, str(tmp_path), frames=True)
    from_jpegs = decode_rows(read_key_frames(str(tmp_path), "test").rows.to_pylist(), view("test"))
    from_videos = decode_rows(key_frame_rows(dataset, "test").to_pylist(), view("test"))
    assert [sample.key for sample in from_jpegs] == [sample.key for sample in from_videos]
    for one, other in zip(from_jpegs, from_videos, strict=True):
        assert one.error == ""
        assert np.abs(one.clip.astype(int) - other.clip).mean() < 3
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_unknown_lengths_are_counted(rows: pa.Table, dataset: Dataset, tmp_path: Path) -> None:
    known = rows.slice(1, 1).to_pylist()
    found = decode_rows([{**known[0], "num_frames": None}], view("test"))
    np.testing.assert_array_equal(found[0].clip, decode_rows(known, view("test"))[0].clip)
    formats.write("ava", dataset, str(tmp_path), frames=True)
    folder = {**known[0], "num_frames": None, "uri": f"{tmp_path}/frames/{known[0]['clip_id']}/"}
    assert decode_rows([folder], view("test"))[0].error == ""


def test_key_frames_of_one_video_are_decoded_once(rows: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    from microg.models.video import clip_frames

    read, real = [], clip_frames.read_clip_frames
    monkeypatch.setattr(clip_frames, "read_clip_frames", lambda uri, *more: read.append(uri) or real(uri, *more))
    together = decode_rows(rows.to_pylist(), view("test"))
    assert len(read) == 7
    alone = [decode_rows([row], view("test"))[0] for row in rows.to_pylist()]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.clip, other.clip)


@pytest.mark.parametrize("fault", ["missing", "damaged", "short", "no video"])
def test_a_sample_that_cannot_be_decoded_says_why_and_spares_the_others(tmp_path: Path, fault: str) -> None:
    made = make_clips(tmp_path, 2, key_frames=(3, 28))
    rows = key_frame_rows(made, "test").to_pylist()
    video = tmp_path / "videos/src0_000.mp4"
    if fault == "missing":
        video.unlink()
    elif fault == "damaged":
        damage_packet(video, 20)  # the first key frame's clip ends before it
    else:
        rows = [row | ({"num_frames": 40} if fault == "short" else {"uri": None}) for row in rows[:2]] + rows[2:]
    found = decode_rows(rows, view("test"))
    assert [sample.key for sample in found] == [row["key"] for row in rows]
    reasons = {"missing": "VideoAccessError", "damaged": "VideoError", "short": "ends before", "no video": "no video"}
    assert reasons[fault] in found[1].error
    assert found[0].error == "" if fault in ("damaged", "short") else found[0].error
    assert all(sample.error == "" for sample in found[2:])
    batch = collate(found, view("test"), MICROG_50)
    assert batch.errors[-1] == (found[1].key, found[1].error)
    assert len(batch.keys) == len(found) - len(batch.errors)


def test_a_batch_holds_clips_boxes_and_labels_in_order(rows: pa.Table) -> None:
    decoded = decode_rows(rows.slice(0, 3).to_pylist(), view("val"))
    batch = collate(decoded, view("val"), MICROG_50)
    assert batch.clips.shape == (3, 3, 4, 32, 32)
    assert batch.clips.dtype == torch.uint8
    assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)
    np.testing.assert_array_equal(batch.clips[1].permute(1, 2, 3, 0).numpy(), decoded[1].clip)
    assert batch.boxes[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(batch.boxes[2:4, 1:].numpy(), decoded[1].boxes)
    assert batch.sample_ids[2:4] == (f"{decoded[1].key}:1", f"{decoded[1].key}:2")
    assert [np.flatnonzero(row).tolist() for row in batch.labels.numpy()[:2]] == [[9, 11], [9]]


def test_a_batch_without_samples_has_the_shapes_of_one() -> None:
    batch = collate([], view("train"), MICROG_50)
    assert batch.clips.shape == (0, 3, 4, 32, 32)
    assert batch.boxes.shape == (0, 5)
    assert batch.labels.shape == (0, 50)


def test_clips_of_different_sizes_are_no_batch(tmp_path: Path) -> None:
    made = make_clips(tmp_path, 2, sizes=((80, 48), (80, 80)))
    decoded = decode_rows(key_frame_rows(made, "test").to_pylist(), view("test"))
    with pytest.raises(DatasetError, match="different sizes"):
        collate(decoded, view("test"), MICROG_50)


def test_samples_survive_the_way_through_arrow(rows: pa.Table) -> None:
    decoded = decode_rows(
        [*rows.slice(0, 3).to_pylist(), {**rows.slice(4, 1).to_pylist()[0], "uri": None}], view("test")
    )
    table = to_table(decoded)
    for part in (table, table.slice(1)):
        expected = decoded[len(decoded) - part.num_rows :]
        for one, other in zip(from_table(part), expected, strict=True):
            np.testing.assert_array_equal(one.clip, other.clip)
            np.testing.assert_array_equal(one.boxes, other.boxes)
            np.testing.assert_array_equal(one.normalised, other.normalised)
            assert (one.key, one.person_id, one.labels, one.error) == (
                other.key,
                other.person_id,
                other.labels,
                other.error,
            )
    assert from_table(to_table([])) == []
