from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microg.data.ids import check_id, clip_id_of, clip_name, make_clip_id, source_ids, split_clip_id
from microg.errors import IdError

LETTERS = "ABCXYZabcxyz0189_-"
VALID = st.text(LETTERS, min_size=1, max_size=190)


@given(VALID, st.integers(0, 999_999))
def test_clip_id_splits_into_what_made_it(source: str, sequence: int):
    clip_id = make_clip_id(source, sequence)
    assert split_clip_id(clip_id) == (source, sequence)
    assert check_id(clip_id) == clip_id


@given(st.text(max_size=30))
def test_id_with_any_other_character_is_refused(text: str):
    if text and all(
        character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-" for character in text
    ):
        assert check_id(text) == text
    else:
        with pytest.raises(IdError):
            check_id(text)


@pytest.mark.parametrize(
    "value", ["", "a/b", "..", "a.mp4", "a b", "a\n", "é", "a\0", "x" * 201, None, 7, "C:\\x", "\u0663"]
)
def test_value_that_could_leave_its_folder_is_refused(value: object):
    with pytest.raises(IdError, match="not allowed"):
        check_id(value)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "clip_id", ["", "a", "a_", "a_12", "_001", "a_0000001", "a-001", "a_\u0661\u0662\u0663", "a_001\n", "a/b_001", None]
)
def test_malformed_clip_id_is_refused(clip_id: object):
    with pytest.raises(IdError, match="clip id"):
        split_clip_id(clip_id)  # pyright: ignore[reportArgumentType]


def test_published_clip_ids_are_understood():
    assert split_clip_id("SE4HsMi3KoU_359") == ("SE4HsMi3KoU", 359)
    assert split_clip_id("a_b-c_007") == ("a_b-c", 7)
    assert split_clip_id("-dash_first_1234") == ("-dash_first", 1234)


@pytest.mark.parametrize(("source", "sequence"), [("a", -1), ("a", 1_000_000), ("x" * 191, 0), ("a/b", 0)])
def test_clip_id_that_could_not_be_split_again_is_not_made(source: str, sequence: int):
    with pytest.raises(IdError):
        make_clip_id(source, sequence)


def test_extension_of_a_published_video_id_is_dropped_once():
    assert clip_name("a_001.mp4") == "a_001"
    assert clip_name("a_001.MP4") == "a_001"
    assert clip_name("a.mp4.mp4") == "a.mp4"
    assert clip_name("a_001") == "a_001"


@pytest.mark.parametrize(
    "name", ["a_001.MOV", "clips/a_001.mp4", "../a_001", r"D:\clips\a_001.m2ts", "s3://b/a_001.webm", " a_001 "]
)
def test_a_clip_is_known_by_its_file_wherever_and_whatever_kind_it_is(name: str):
    assert clip_id_of(name, "here") == "a_001"


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20), max_size=12))
def test_source_ids_are_valid_unique_and_independent_of_order(names: list[str]):
    paths = [f"{index % 3}/{name}.mp4" for index, name in enumerate(names)]
    result = source_ids(paths)
    assert set(result) == set(paths)
    assert len({value.lower() for value in result.values()}) == len(result)
    assert all(make_clip_id(check_id(value), 0) for value in result.values())
    assert source_ids(reversed(paths)) == result


def test_clean_unique_stem_is_the_source_id():
    assert source_ids(["x/Apollo13.mkv", "b-2.mp4"]) == {"x/Apollo13.mkv": "Apollo13", "b-2.mp4": "b-2"}


def test_stems_that_differ_in_case_only_get_different_ids():
    first, second = source_ids(["a/Tour.mp4", "b/tour.mp4"]).values()
    assert first.lower() != second.lower()


def test_file_name_of_stray_bytes_gets_an_id():
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    assert source_ids([name])[name].startswith("caf-")


def test_two_files_that_would_share_an_id_are_refused():
    taken = source_ids(["a b.mp4"])["a b.mp4"]
    with pytest.raises(IdError, match="would both be source"):
        source_ids(["a b.mp4", f"{taken}.mp4"])
