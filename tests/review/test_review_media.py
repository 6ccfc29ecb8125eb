"""Videos and frames: by ranges, from a disk or an object store, in a form that browsers play, in a bounded cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import VideoError
from microg.formats.base import new_clips
from microg.review.material import Clip, read_material
from microg.review.media import DiskCache, Media, frames_to_show
from microg.review.store import Store
from tests.support.footage import number_of, write_footage
from tests.support.reviews import client_of, desk_of
from tests.support.s3_server import object_store, upload

FRAMES = 24


def write_dataset(root: Path, **footage: dict) -> Dataset:
    """Make a dataset with one video for each clip id: its file's ending and how it is encoded."""
    dataset = Dataset.create(str(root), "videos")
    uris = []
    for clip_id, about in footage.items():
        about = {"ending": "mp4", **about}
        uris.append(f"videos/{clip_id}.{about.pop('ending')}")
        write_footage(root / uris[-1], FRAMES, **about)
    count = len(uris)
    sizes = {"fps": [30.0] * count, "num_frames": [FRAMES] * count, "width": [80] * count, "height": [48] * count}
    dataset.write("clips", new_clips(list(footage), uri=uris, **sizes))
    return dataset


def clips_of(dataset: Dataset) -> dict[str, Clip]:
    clips = read_material(dataset).clips
    return {clip_id: clips.clip(number) for number, clip_id in enumerate(clips.ids)}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    dataset = write_dataset(tmp_path / "ds", tour_000={})
    store = Store(tmp_path / "review.sqlite")
    yield client_of(desk_of(dataset, store), store, tmp_path / "ds")
    store.close()


def test_a_video_is_served_by_ranges(client: TestClient, tmp_path: Path):
    data = (tmp_path / "ds/videos/tour_000.mp4").read_bytes()
    whole = client.get("/video/tour_000")
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(data)
    for asked, first, last in [
        ("bytes=0-9", 0, 9),
        ("bytes=100-", 100, size - 1),
        ("bytes=-50", size - 50, size - 1),
        (f"bytes=10-{size + 1000}", 10, size - 1),
    ]:
        part = client.get("/video/tour_000", headers={"Range": asked})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.content == data[first : last + 1]


def test_a_range_beyond_the_end_is_refused_with_the_size(client: TestClient, tmp_path: Path):
    size = (tmp_path / "ds/videos/tour_000.mp4").stat().st_size
    answer = client.get("/video/tour_000", headers={"Range": f"bytes={size}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_a_range_of_another_version_gets_the_whole_file(client: TestClient):
    tag = client.get("/video/tour_000").headers["etag"]
    same = client.get("/video/tour_000", headers={"Range": "bytes=0-9", "If-Range": tag})
    other = client.get("/video/tour_000", headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert (same.status_code, other.status_code) == (206, 200)


def test_frames_and_thumbnails_are_jpegs_of_the_right_frame(client: TestClient):
    for path, number in [("/frame/tour_000/5.jpg", 4), ("/frame/tour_000/24.jpg", 23), ("/thumb/tour_000.jpg", 11)]:
        answer = client.get(path)
        assert answer.headers["content-type"] == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert number_of(picture) == number
    small = client.get("/frame/tour_000/5.jpg?width=40").content
    assert cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape == (24, 40, 3)  # pyright: ignore
    assert client.get("/frame/tour_000/5.jpg?width=9999").status_code == 422


def test_what_browsers_do_not_play_is_converted_once_frame_for_frame(tmp_path: Path):
    dataset = write_dataset(
        tmp_path / "ds",
        plain_000={},
        old_000={"ending": "avi", "codec": "mpeg4"},
        deep_000={"pix_fmt": "yuv444p"},
        mkv_000={"ending": "mkv"},
    )
    clips, media = clips_of(dataset), Media(dataset, tmp_path / "cache", 10**8)
    assert media.video(clips["plain_000"]) == tmp_path / "ds/videos/plain_000.mp4"
    for clip_id in ("old_000", "deep_000"):
        made = media.video(clips[clip_id])
        written = made.stat().st_mtime_ns
        with av.open(str(made)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
            frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        assert [number_of(frame) for frame in frames] == list(range(FRAMES))
        assert media.video(clips[clip_id]) == made
        assert made.stat().st_mtime_ns >= written
    assert media.video(clips["mkv_000"]).suffix in (".mkv", ".mp4")


def test_a_folder_of_pictures_becomes_a_video(tmp_path: Path):
    folder = tmp_path / "ds/frames/tour_000"
    folder.mkdir(parents=True)
    for number in range(6):
        picture = np.full((48, 80, 3), 30 * number, np.uint8)
        cv2.imwrite(str(folder / f"tour_000_{number + 1:06d}.jpg"), picture)
    dataset = Dataset.create(str(tmp_path / "ds"), "pictures")
    rows = [{"clip_id": "tour_000", "uri": "frames/tour_000/", "fps": 10.0, "num_frames": 6, "status": "ok"}]
    dataset.write("clips", schema.from_rows("clips", rows))
    media = Media(dataset, tmp_path / "cache", 10**8)
    clip = clips_of(dataset)["tour_000"]
    with av.open(str(media.video(clip))) as container:
        means = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert np.allclose(means, [30 * number for number in range(6)], atol=4)
    assert media.picture(clip, 3, 80)[:2] == b"\xff\xd8"


def test_a_video_that_is_gone_or_broken_is_an_error_of_the_clip(tmp_path: Path):
    dataset = write_dataset(tmp_path / "ds", gone_000={}, torn_000={})
    (tmp_path / "ds/videos/gone_000.mp4").unlink()
    (tmp_path / "ds/videos/torn_000.mp4").write_bytes(b"no video")
    media = Media(dataset, tmp_path / "cache", 10**8)
    for clip in clips_of(dataset).values():
        with pytest.raises(VideoError):
            media.video(clip)
        with pytest.raises(VideoError):
            media.picture(clip, 1, 80)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_changed_video_is_read_anew(tmp_path: Path):
    dataset = write_dataset(tmp_path / "ds", old_000={"ending": "avi", "codec": "mpeg4"})
    media, clip = Media(dataset, tmp_path / "cache", 10**8), clips_of(dataset)["old_000"]
    before, picture = media.video(clip), media.picture(clip, 1, 80)
    write_footage(tmp_path / "ds/videos/old_000.avi", FRAMES, codec="mpeg4", first_number=7)
    assert media.video(clip) != before
    assert media.picture(clip, 1, 80) != picture


def test_the_cache_keeps_what_was_used_last_within_its_limit(tmp_path: Path):
    def make(path: Path) -> None:
        path.write_bytes(b"x" * 40)

    cache = DiskCache(tmp_path / "cache", 100)
    first, second = cache.get("one", ".bin", make), cache.get("two", ".bin", make)
    cache.get("one", ".bin", make)
    third = cache.get("three", ".bin", make)
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    (tmp_path / "cache" / "left.tmp").write_bytes(b"half")
    again = DiskCache(tmp_path / "cache", 100)  # a later process counts what is there
    again.get("four", ".bin", make)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) == 80


def test_what_cannot_be_made_leaves_nothing_in_the_cache(tmp_path: Path):
    def make(path: Path) -> None:
        path.write_bytes(b"half")
        raise VideoError("broken")

    cache = DiskCache(tmp_path / "cache", 100)
    with pytest.raises(VideoError):
        cache.get("one", ".bin", make)
    assert list((tmp_path / "cache").iterdir()) == []


def test_clips_of_an_object_store_are_fetched_once(tmp_path: Path):
    write_dataset(tmp_path / "ds", tour_000={}, tour_001={})
    with object_store() as store:
        root = upload(tmp_path / "ds", f"{store.bucket()}/ds")
        dataset = Dataset.open(root)
        media, clips = Media(dataset, tmp_path / "cache", 10**8), clips_of(dataset)
        path = media.video(clips["tour_000"])
        assert path.read_bytes() == (tmp_path / "ds/videos/tour_000.mp4").read_bytes()
        assert media.video(clips["tour_000"]) == path
        picture = cv2.imdecode(np.frombuffer(media.picture(clips["tour_001"], 4, 80), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert number_of(picture) == 3
        assert len(list((tmp_path / "cache/videos").iterdir())) == 2
        storage.remove(f"{root}/videos/tour_001.mp4")
        fresh = Media(dataset, tmp_path / "other", 10**8)
        with pytest.raises(VideoError, match="not there"):
            fresh.video(clips["tour_001"])


def test_the_frames_to_show_are_in_the_clip_whatever_its_length():
    for count in (0, 1, 2, 7, 90, 18_000):
        clip = Clip("a_000", "a", 0, "", "", 30.0, count, 0, 0, 0.0)
        frames = frames_to_show(clip)
        assert frames == sorted(set(frames))
        assert 1 <= frames[0] <= frames[-1] <= max(count, 1)
