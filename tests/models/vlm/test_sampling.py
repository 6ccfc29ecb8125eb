"""Frame sampling: the exact rules, short clips, and the pixels that come of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from microg.errors import ConfigError, VideoError
from microg.models.video.decoders import pyav
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.sampling import AroundKey, Dense, Explicit, Rate, Resize, Uniform, parse_policy
from microg.video import read_rgb
from tests.support.helpers import moving_scene, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_scene(7), crf=5))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [0]),
        (3, [0, 44, 89]),
        (6, [0, 17, 35, 53, 71, 89]),
        (8, [0, 12, 25, 38, 50, 63, 76, 89]),
        (9, [0, 11, 22, 33, 44, 55, 66, 77, 89]),
        (16, [0, 5, 11, 17, 23, 29, 35, 41, 47, 53, 59, 65, 71, 77, 83, 89]),
        (90, list(range(90))),
    ],
)
def test_the_numbers_of_frames_in_the_paper_fall_on_these_of_90(count: int, expected: list[int]):
    assert Uniform(count=count).indices(90, 30) == expected


def test_uniform_is_the_linspace_of_public_code_on_published_clips():
    for count in range(2, 91):
        assert Uniform(count=count).indices(90, 30) == np.linspace(0, 89, count, dtype=int).tolist()


@pytest.mark.parametrize("rule", ["ends", "middles"])
def test_uniform_never_repeats_never_leaves_the_clip_and_is_even(rule):
    for num_frames in range(1, 40):
        for count in range(1, 45):
            found = Uniform(count=count, rule=rule).indices(num_frames, 30)
            assert len(found) == min(count, num_frames)
            assert sorted(set(found)) == found
            assert 0 <= found[0] <= found[-1] < num_frames
            gaps = np.diff(found)
            assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_a_clip_shorter_than_asked_shows_fewer_repeats_or_is_refused():
    assert Uniform(count=8).indices(3, 30) == [0, 1, 2]
    assert Uniform(count=8, short="repeat").indices(3, 30) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert Uniform(count=4, short="repeat").indices(1, 30) == [0, 0, 0, 0]
    with pytest.raises(VideoError, match="3 frames, 8 are asked"):
        Uniform(count=8, short="error").indices(3, 30)


@pytest.mark.parametrize(
    ("fps", "clip_fps", "num_frames", "expected"),
    [
        (1, 30, 90, [0, 30, 60]),
        (1, 29.97, 90, [0, 30, 60]),
        (7, 30, 12, [0, 4, 9]),
        (60, 30, 4, [0, 1, 2, 3]),
        (0.1, 30, 90, [0]),
        (12, 30, 12, [0, 2, 5, 7, 10]),
    ],
)
def test_a_rate_takes_the_frames_at_these_times(fps, clip_fps, num_frames, expected):
    assert Rate(fps=fps).indices(num_frames, clip_fps) == expected


def test_a_rate_with_a_limit_is_thinned_evenly():
    assert Rate(fps=30, limit=3).indices(90, 30) == [0, 44, 89]


def test_frames_around_a_key_frame_stay_in_the_clip():
    assert AroundKey(count=5, step=2).indices(90, 30, 10) == [6, 8, 10, 12, 14]
    assert AroundKey(count=5, step=2).indices(90, 30, 1) == [1, 3, 5]
    assert AroundKey(count=5, step=2, short="repeat").indices(90, 30, 1) == [0, 0, 1, 3, 5]
    with pytest.raises(VideoError, match="do not fit"):
        AroundKey(count=5, step=2, short="error").indices(90, 30, 89)
    with pytest.raises(VideoError, match="key frame 91 is not in the clip"):
        AroundKey(count=1).indices(90, 30, 90)


def test_dense_takes_all_but_not_a_whole_film():
    assert Dense().indices(90, 30) == list(range(90))
    with pytest.raises(VideoError, match="the limit is 1024"):
        Dense().indices(5000, 30)


@pytest.mark.parametrize("text", ["", "uniform", "uniform:0", "uniform:x", "fps:-1", "explicit:1,-2", "dense:4", "odd"])
def test_a_bad_short_form_is_told_with_the_good_ones(text):
    with pytest.raises(ConfigError, match="forms: uniform:8"):
        parse_policy(text)


@pytest.mark.parametrize(
    "text", ["uniform:8", "uniform:8:middles", "fps:2", "fps:2:64", "key:5:6", "dense", "explicit:5,0,89"]
)
def test_a_short_form_reads_as_itself(text):
    assert parse_policy(text).label() == text


def test_pixels_are_those_of_the_frames_asked_for_in_that_order(clip: str):
    (shown,) = sample_frames(clip, [Explicit(at=(7, 0, 11))])
    assert shown.indices == (7, 0, 11)
    assert (shown.num_frames, shown.fps, shown.width, shown.height) == (12, 30.0, 96, 64)
    for place, index in enumerate(shown.indices):
        assert np.array_equal(shown.pixels[place], read_rgb(clip, index))


def test_policies_share_one_decode_and_only_wanted_frames_become_pixels(clip: str, monkeypatch: pytest.MonkeyPatch):
    converted: list[int] = []
    monkeypatch.setattr(pyav, "upright_rgb", lambda frame: converted.append(1) or frame.to_ndarray(format="rgb24"))
    first, second, third = sample_frames(clip, [Uniform(count=3), AroundKey(count=3), Uniform(count=3)])
    assert (first.indices, second.indices) == ((0, 5, 11), (5, 6, 7))
    assert len(converted) == 5
    assert first.sha256 == third.sha256 != second.sha256


def test_the_hash_tells_pixels_and_their_order_apart(clip: str):
    policies = [Explicit(at=(0, 5)), Explicit(at=(5, 0)), Explicit(at=(0,)), Explicit(at=(0, 5))]
    one, turned, part, again = sample_frames(clip, policies)
    assert one.sha256 == again.sha256
    assert len({one.sha256, turned.sha256, part.sha256}) == 3


def test_a_clip_with_fewer_frames_than_asked_shows_each_once(clip: str):
    (shown,) = sample_frames(clip, [Uniform(count=90)])
    assert shown.indices == tuple(range(12))


def test_the_key_frame_counts_from_one_as_the_tables_do(clip: str):
    (shown,) = sample_frames(clip, [AroundKey(count=1)], key_frame=4)
    assert shown.indices == (3,)
    with pytest.raises(VideoError, match="key frame 0 is not"):
        sample_frames(clip, [AroundKey(count=1)], key_frame=0)


def test_resizing_keeps_the_aspect_never_enlarges_and_is_in_the_hash(clip: str):
    plain, small, same, exact = sample_frames(
        clip,
        [
            Uniform(count=2),
            Uniform(count=2, resize=Resize(longest=48)),
            Uniform(count=2, resize=Resize(longest=500)),
            Uniform(count=2, resize=Resize(size=(30, 50))),
        ],
    )
    assert (small.width, small.height) == (48, 32)
    assert (exact.width, exact.height) == (30, 50)
    assert same.sha256 == plain.sha256 != small.sha256
    assert Resize(max_pixels=1000).target(1920, 1080) == (41, 23)
    assert Resize(max_pixels=1).target(1920, 1080) == (1, 1)


def test_metadata_forbids_a_processor_to_sample_again(clip: str):
    (shown,) = sample_frames(clip, [Uniform(count=3)])
    about = shown.video_metadata()
    assert about["do_sample_frames"] is False
    assert (about["total_num_frames"], about["frames_indices"], about["duration"]) == (12, [0, 5, 11], 0.4)


def test_a_damaged_clip_is_an_error_and_not_fewer_frames(tmp_path: Path, clip: str):
    data = Path(clip).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    (tmp_path / "text.mp4").write_bytes(b"no video")
    for name in ("cut.mp4", "text.mp4", "missing.mp4"):
        with pytest.raises(VideoError):
            sample_frames(str(tmp_path / name), [Uniform(count=3)])


def test_real_footage_is_sampled_to_its_last_frame(videos: Path):
    for name in ("made_portrait_rot.mp4", "ucf_makeup.avi", "made_vfr.mp4"):
        (shown,) = sample_frames(str(videos / name), [Uniform(count=4)])
        assert len(set(shown.indices)) == 4
        assert shown.indices[-1] == shown.num_frames - 1
    with pytest.raises(VideoError):
        sample_frames(str(videos / "made_truncated_60pct.mp4"), [Uniform(count=4)])
