"""`microg data export-sft`: other trainers get exactly our frames, prompts and answers, each clip once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.prompts import prompt
from microg.models.vlm.sampling import Uniform
from tests.support.helpers import make_dataset
from tests.support.processes import microg


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = make_dataset(tmp_path_factory.mktemp("sft") / "data")
    clips = made.table("clips")["clip_id"].to_pylist()
    rows = [{"clip_id": clip, "split": "val" if clip == clips[0] else "train", "scheme": "source"} for clip in clips]
    made.write("splits", schema.from_rows("splits", rows))
    return made


def frames_of(dataset: Dataset, clip_id: str) -> np.ndarray:
    return sample_frames(dataset.video_uri(clip_id), [Uniform(count=3)])[0].pixels


def test_rows_for_swift_hold_the_frames_prompts_and_answers_of_generation(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert microg("data", "export-sft", dataset.root, out, "--frames", "uniform:3") == 0
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 7
    clip = rows[0]["images"][0].split("/")[1]
    captions = {row["clip_id"]: row["caption"] for row in dataset.table("captions").to_pylist()}
    assert rows[0]["messages"] == [
        {"role": "user", "content": "<image>" * 3 + prompt("caption-v1").render()},
        {"role": "assistant", "content": captions[clip]},
    ]
    shown = np.stack([np.asarray(Image.open(out / path)) for path in rows[0]["images"]])
    np.testing.assert_array_equal(shown, frames_of(dataset, clip))
    about = {row["clip_id"]: row for row in storage.read_parquet(str(out / "frames.parquet")).to_pylist()}
    assert about[clip]["frame_hash"] == sample_frames(dataset.video_uri(clip), [Uniform(count=3)])[0].sha256
    assert about[clip]["indices"] == list(sample_frames(dataset.video_uri(clip), [Uniform(count=3)])[0].indices)
    assert len((out / "val.jsonl").read_text().splitlines()) == 7


def test_the_second_run_decodes_nothing_again_and_other_settings_are_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["data", "export-sft", dataset.root, out, "--frames", "uniform:3"]
    assert microg(*words, "--limit", 1) == 0
    assert microg(*words, "--limit", 1, "--task", "vqa") == 2
    assert "was made with other settings" in capsys.readouterr().err
    monkeypatch.setattr("microg.jobs.commands.data_export_sft.sample_frames", None)
    assert microg(*words, "--limit", 1) == 0


def test_llama_factory_gets_a_description_of_the_files(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert microg("data", "export-sft", dataset.root, out, "--style", "llama-factory", "--task", "vqa") == 0
    info = json.loads((out / "dataset_info.json").read_text())
    assert set(info) == {"microg_train", "microg_val"}
    assert info["microg_train"]["file_name"] == "train.jsonl"
    row = json.loads((out / "train.jsonl").read_text().splitlines()[0])
    columns, tags = info["microg_train"]["columns"], info["microg_train"]["tags"]
    assert [turn[tags["role_tag"]] for turn in row[columns["messages"]]] == [tags["user_tag"], tags["assistant_tag"]]
    assert row["messages"][0]["content"].count("<image>") == len(row[columns["images"]]) == 8


def test_parquet_holds_a_row_a_clip_whose_pictures_the_library_datasets_decodes(
    dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert microg("data", "export-sft", dataset.root, out, "--style", "datasets", "--frames", "uniform:3") == 0
    table = pq.read_table(out / "train.parquet")
    described = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(described) == table.column_names
    assert described["images"] == {"feature": {"_type": "Image"}, "_type": "List"}
    rows = table.to_pylist()
    assert [len(row["texts"]) for row in rows] == [7, 7, 7]
    pictures = [np.asarray(Image.open(io.BytesIO(picture["bytes"]))) for picture in rows[0]["images"]]
    np.testing.assert_array_equal(np.stack(pictures), frames_of(dataset, rows[0]["clip_id"]))
    assert "<image>" not in rows[0]["texts"][0]["prompt"]


def test_a_clip_that_cannot_be_read_is_left_out_with_its_reason(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = make_dataset(tmp_path / "data")
    broken.write("splits", dataset.table("splits"))
    clip = broken.table("clips")["clip_id"][1].as_py()
    (tmp_path / "data" / "videos" / f"{clip}.mp4").write_bytes(b"no video")
    assert microg("data", "export-sft", broken.root, tmp_path / "out") == 1
    assert clip in capsys.readouterr().err
    assert len((tmp_path / "out" / "train.jsonl").read_text().splitlines()) == 2 * 7


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--scheme", "published"), "no split of scheme 'published'"),
        (("--style", "trl"), "'swift', 'llama-factory' or 'datasets'"),
        (("--frames", "every"), "is no way to choose frames"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    words: tuple[str, ...], says: str, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert microg("data", "export-sft", dataset.root, tmp_path / "out", *words) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
