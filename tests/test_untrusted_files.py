"""Files made to hang a reader, to fill memory or to make it open other files: each is refused, with what to do."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from microg import formats, storage
from microg.actions.predictions import read_predictions
from microg.config import read_recipe
from microg.errors import ConfigError, DatasetError, FormatError, StorageError, VideoError, WeightsError
from microg.escaping import csv_text
from microg.formats import keyframes, xmltree
from microg.formats.cvat import read as read_cvat
from microg.formats.labelmap import check_label_map
from microg.formats.video_files import unpack_zip
from microg.jobs.har_forward import _load_array
from microg.metrics.judge import read_verdict
from microg.models.har.checkpoints.files import read_weights
from microg.models.video.clip_frames import read_clip_frames
from microg.reading import gunzip, parse_json, reads
from microg.texts.files import read_text_predictions
from microg.video import MAX_PIXELS, decode_frames, probe
from tests.support.helpers import make_dataset, moving_scene, write_video

_TASK = """<annotations><meta><task><name>a_000</name><size>{size}</size>
<stop_frame>{stop}</stop_frame><original_size><width>96</width><height>64</height></original_size></task></meta>
<track id="0" label="person"><box frame="0" outside="0" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9"/>{more}</track>
</annotations>"""


@pytest.mark.parametrize(
    ("size", "more"),
    [
        (2_000_000_000, ""),
        (90, '<box frame="199999999" outside="0" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9"/>'),
        ("9" * 5000, ""),
    ],
)
def test_a_cvat_file_of_billions_of_frames_is_refused(size: object, more: str, tmp_path: Path) -> None:
    stop = int(str(size)[:10]) - 1
    (tmp_path / "a.xml").write_text(_TASK.format(size=size, stop=stop if len(str(size)) < 20 else size, more=more))
    with pytest.raises(FormatError, match=r"a\.xml.*(at most|not a number)"):
        formats.read("cvat", str(tmp_path / "a.xml"))


def test_tracks_that_multiply_boxes_are_refused_and_an_hour_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = '<track id="0" label="person"><box frame="0" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"/></track>'
    (tmp_path / "hour.xml").write_text(_TASK.format(size=108_000, stop=107_999, more=""))
    assert read_cvat(str(tmp_path / "hour.xml")).tables["boxes"].num_rows == 108_000
    monkeypatch.setattr(keyframes, "MAX_BOXES", 1000)
    whole = _TASK.format(size=400, stop=399, more="")
    (tmp_path / "many.xml").write_text(whole.replace("</annotations>", track * 3 + "</annotations>"))
    with pytest.raises(FormatError, match="over 1,000 boxes"):
        read_cvat(str(tmp_path / "many.xml"))
    (tmp_path / "many.xml").write_text(whole.replace("</annotations>", track + "</annotations>"))
    assert read_cvat(str(tmp_path / "many.xml")).tables["boxes"].num_rows == 800


def test_a_label_studio_track_of_billions_of_frames_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", videos=False)
    formats.write("labelstudio", dataset, str(tmp_path / "out"))
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    tasks[0]["data"]["num_frames"] = 2_000_000_000
    region = next(item for item in tasks[0]["predictions"][0]["result"] if item["type"] == "videorectangle")
    region["value"]["sequence"][-1]["enabled"] = True
    (tmp_path / "out" / "tasks.json").write_text(json.dumps(tasks))
    with pytest.raises(FormatError, match="at most"):
        formats.read("labelstudio", str(tmp_path / "out"), predictions=True)


def test_many_regions_without_a_number_are_numbered_in_one_pass(tmp_path: Path) -> None:
    track = '<track id="0" label="person"><box frame="0" outside="1" xtl="1" ytl="1" xbr="9" ybr="9"/></track>'
    text = _TASK.format(size=90, stop=89, more="").replace("</annotations>", track * 20_000 + "</annotations>")
    (tmp_path / "many.xml").write_text(text)
    assert read_cvat(str(tmp_path / "many.xml")).tables["boxes"].num_rows == 90


def _deflated(path: Path, name: str, megabytes: int) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as member,
    ):
        for _ in range(megabytes):
            member.write(bytes(1 << 20))
    return path


def test_archives_that_grow_out_of_proportion_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    videos = _deflated(tmp_path / "videos.zip", "videos/real/a/a_000.mp4", 300)
    with pytest.raises(FormatError, match=r"a_000\.mp4.* out of proportion"):
        unpack_zip(str(videos), str(tmp_path / "out"))
    with pytest.raises(FormatError, match="out of proportion"):
        formats.read("cvat", str(_deflated(tmp_path / "task.zip", "annotations.xml", 300)))
    with pytest.raises(WeightsError, match="out of proportion"):
        read_weights(str(_deflated(tmp_path / "model.pth", "archive/data.pkl", 300)))
    assert not list((tmp_path / "out").glob("*"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 << 10  # KiB


@pytest.mark.parametrize("name", ["a.json.gz", "a.csv.gz"])
def test_gzip_that_grows_out_of_proportion_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(bytes(200 << 20), 1))
    with pytest.raises(FormatError, match="out of proportion"):
        read_text_predictions(str(tmp_path / name))
    if name.endswith("csv.gz"):
        with pytest.raises(FormatError, match="out of proportion"):
            read_predictions(str(tmp_path / name))


def test_gzip_in_several_parts_is_read_whole_and_damage_is_told() -> None:
    data = os.urandom(5 << 20)
    assert gunzip(gzip.compress(data[:100]) + gzip.compress(data[100:]) + bytes(64), "it") == data
    assert gunzip(gzip.compress(b""), "it") == b""
    for damaged in (
        gzip.compress(data)[:-9],
        gzip.compress(data)[:1000],
        b"\x1f\x8bnothing",
        gzip.compress(data) + b"x",
    ):
        with pytest.raises(FormatError, match="cannot unpack it"):
            gunzip(damaged, "it")


def test_a_table_of_a_billion_equal_rows_is_refused_and_a_large_honest_one_is_not(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    values = pa.array(np.zeros(50_000_000, np.int8)).dictionary_encode()
    pq.write_table(pa.table({"a": values}), tmp_path / "bomb.parquet", compression="zstd")
    with pytest.raises(DatasetError, match=r"claims 50,000,000 rows of 1 columns in [\d,]+ bytes"):
        storage.read_parquet(tmp_path / "bomb.parquet")
    pq.write_table(
        pa.table({"a": np.arange(300_000), "b": np.random.default_rng(0).random(300_000)}), tmp_path / "a.parquet"
    )
    assert storage.read_parquet(tmp_path / "a.parquet").num_rows == 300_000


_PAIRS = zip("abcdef", "bcdefg", strict=True)
_ALIASES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in _PAIRS
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (_ALIASES, "values"),
        ("a: " + "[" * 300 + "]" * 300, "nested"),
        ("a: " + "9" * 5000, "cannot be read"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("? [a]\n: 1", "found unhashable key|cannot be read|not valid"),
        ("a: 2026-99-99", "cannot be read"),
        ("\0", "not valid YAML"),
    ],
)
def test_yaml_that_grows_nests_or_makes_objects_is_refused(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match=what):
        read_recipe(str(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "9" * 5000, '{"a": 1', "\ud800"])
def test_json_that_python_cannot_read_is_one_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^here is not valid JSON"):
        parse_json(text.encode("utf-8", "surrogatepass"), "here")
    (tmp_path / "a.json").write_text(text, "utf-8", "surrogatepass")
    with pytest.raises(DatasetError, match="is not valid JSON"):
        storage.read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="no verdict"):
        read_verdict(f"Sure {text}")


@pytest.mark.parametrize(
    "text",
    [
        "<a>" * 500,
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        '<?xml version="1.0" encoding="utf-99"?><a/>',
        "<a><b></a>",
    ],
)
def test_xml_that_nests_or_declares_entities_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"^here"):
        xmltree.parse(text.encode(), "here")


def test_a_pickle_that_makes_the_unpickler_take_gigabytes_is_refused(tmp_path: Path) -> None:
    huge = b"\x80\x02]r" + (2**31 - 1).to_bytes(4, "little") + b"."
    (tmp_path / "a.pkl").write_bytes(huge)
    with pytest.raises(WeightsError, match="keeps a value under number 2147483647"):
        read_weights(str(tmp_path / "a.pkl"))
    blob = {"blobs": {"conv1_w": np.lib.stride_tricks.as_strided(np.zeros(1), (4,), (0,))}}
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(blob, protocol=2))
    assert read_weights(str(tmp_path / "b.pkl")).tensors["conv1_w"].shape == (4,)


def test_an_array_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 3), np.float32))
    (tmp_path / "a.npy").write_bytes(buffer.getvalue().replace(b"(2, 3)", b"(2000000000, 3000000)"[:6]))
    with pytest.raises(FormatError, match=r"a\.npy"):
        _load_array(str(tmp_path / "a.npy"))
    (tmp_path / "b.npy").write_bytes(buffer.getvalue().replace(b"'shape': (2, 3)", b"'shape': (2,999"))
    with pytest.raises(FormatError, match=r"b\.npy"):
        _load_array(str(tmp_path / "b.npy"))


def test_a_file_that_lists_other_files_is_no_video_whatever_it_is_called(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4", moving_scene(1))
    lists = {
        "concat.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
        "playlist.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
        "remote.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        for read in (probe, lambda uri: list(decode_frames(uri)), lambda uri: read_clip_frames(uri, [0])):
            with pytest.raises(VideoError, match="cannot be read"):
                read(str(tmp_path / name))
    assert probe(str(tmp_path / "secret.mp4")).width == 96


def test_frames_too_large_for_memory_are_refused_by_their_header(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_scene(1))
    data = bytearray(path.read_bytes())
    side = (16_000).to_bytes(2, "big")
    place = data.index(b"avc1") + 4 + 24
    data[place : place + 4] = side + side
    path.write_bytes(data)
    try:  # the decoder may know better by the stream's own header, and then the frames are small
        assert probe(str(path)).width == 96
    except VideoError as error:
        assert f"{MAX_PIXELS:,} are read" in str(error)  # noqa: PT017
    wide = tmp_path / "wide.png"
    import cv2

    cv2.imwrite(str(wide), np.zeros((2, 20_000, 3), np.uint8))
    with pytest.raises(VideoError, match="has frames of 20000 x 2 pixels"):
        probe(str(wide))


def test_a_pipe_in_place_of_a_video_or_table_does_not_block(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    for path in ("videos/filmA_000.mp4", "tables/clips.parquet"):
        (tmp_path / "data" / path).unlink()
        os.mkfifo(tmp_path / "data" / path)
    with pytest.raises(VideoError, match="it is no file"):
        probe(dataset.video_uri("filmA_000"))
    with pytest.raises(DatasetError, match="is no file"):
        dataset.table("clips")


def test_what_a_library_raises_from_inside_names_the_file_and_store_errors_stay(tmp_path: Path) -> None:
    @reads(WeightsError)
    def read(path: str, problem: Exception) -> None:
        raise problem

    for problem in (KeyError("a"), RecursionError(), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), OverflowError("b")):
        with pytest.raises(WeightsError, match=r"^a/b\.bin cannot be read: "):
            read("a/b.bin", problem)
    with pytest.raises(WeightsError, match="does not fit in memory"):
        read("a/b.bin", MemoryError())
    with pytest.raises(WeightsError, match="is not there"):
        read("a/b.bin", FileNotFoundError(2, "no", "a/b.bin"))
    with pytest.raises(PermissionError):
        read("a/b.bin", PermissionError("no"))
    with pytest.raises(DatasetError, match="mine"):
        read("a/b.bin", DatasetError("mine"))
    unreachable = type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})("denied")
    with pytest.raises(StorageError, match="object store: ClientError: denied"):
        read("a/b.bin", unreachable)


@pytest.mark.slow
def test_three_gigabytes_in_a_small_zip_take_little_memory(tmp_path: Path) -> None:
    archive = _deflated(tmp_path / "videos.zip", "videos/real/a/a_000.mp4", 3000)
    code = (
        "import resource, sys\nfrom microg.errors import FormatError\n"
        "from microg.formats.video_files import unpack_zip\n"
        "try:\n    unpack_zip(sys.argv[1], sys.argv[2])\nexcept FormatError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(archive), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    *said, peak = done.stdout.splitlines()
    assert "out of proportion" in said[0]
    assert int(peak) < 1 << 20  # a GiB in KiB
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_texts_that_make_patterns_search_again_and_again_end_soon(tmp_path: Path) -> None:
    (tmp_path / "map.pbtxt").write_text("item { " * 200_000)
    with pytest.raises(FormatError, match="has no items"):
        check_label_map(str(tmp_path / "map.pbtxt"))
    assert csv_text(["a"], [["\n" * 200_000 + "=1"]]).count("'") == 1
    name = b"torch\n" + b"x" * 200_000
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c" + name + b"\n.")
    with pytest.raises(WeightsError, match="asks for torch"):
        read_weights(str(tmp_path / "a.pkl"))
