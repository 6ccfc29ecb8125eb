"""What containers say about how and when to show their pictures: one rule, in clips and in every reader of frames."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import VideoError
from microg.formats.video_files import video_columns
from microg.frame_display import Orientation
from microg.models.curation.box_rule import PUBLISHED
from microg.models.video.clip_frames import read_clip_frames
from microg.models.video.trim import HELD, TrimResult, TrimSettings, trim
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.sampling import parse_policy
from microg.pipelines.curate.decide import FilterSettings, decide
from microg.pipelines.curate.observations import SCHEMA
from microg.pipelines.curate.trim_stage import SOURCE, probe_sources, trim_stretches
from microg.validation.videos import check_files, check_videos
from microg.video import count_frames, decode_frames, decode_frames_at, probe, read_rgb
from tests.support.attempts import local_attempts
from tests.support.footage import HEIGHT, WIDTH, number_of, numbered, write_footage

RED, GREEN, BLUE, YELLOW = (220, 39, 39), (38, 198, 38), (39, 39, 219), (219, 198, 38)
PLAIN = [RED, GREEN, BLUE, YELLOW]
QUICK = TrimSettings(preset="ultrafast", height=240)


def corners(picture: np.ndarray) -> np.ndarray:
    """Return the colours of the corners of an RGB picture: top left, top right, bottom left, bottom right."""
    return np.array([picture[y, x] for y in (8, -8) for x in (8, -8)]).astype(int)


def cut(path: Path, folder: Path, settings: TrimSettings = QUICK) -> TrimResult:
    return trim(str(path), "src", str(folder), probe(str(path)), settings)


def tables(footage: list[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """Curate files without observing them; return their rows of table `sources` by name, with their `clips`."""
    rows = [dict.fromkeys(SOURCE.names, "") | {"source_id": path.stem, "uri": str(path), "size": 1} for path in footage]
    probed = probe_sources(pa.Table.from_pylist(rows, schema=SOURCE), settings=QUICK)
    work = trim_stretches(probed, settings=QUICK, folder=str(folder), done=(), attempts=local_attempts())
    observed = pa.Table.from_pylist(work.to_pylist(), schema=SCHEMA)
    made = decide(observed, FilterSettings(), PUBLISHED, str(folder))
    clips = made["clips"].to_pylist()
    return {
        row["source_id"]: row | {"rows": [clip for clip in clips if clip["source_id"] == row["source_id"]]}
        for row in made["sources"].to_pylist()
    }


@pytest.mark.parametrize(
    ("name", "expected", "tail"),
    [
        ("plain.mp4", PLAIN, 1 / 3),
        ("hflip.mp4", [GREEN, RED, YELLOW, BLUE], 1 / 3),
        ("vflip.mp4", [BLUE, YELLOW, RED, GREEN], 1 / 3),
        ("full_range_j.mp4", PLAIN, 1 / 3),
        ("vfr_gap.avi", PLAIN, 7 / 3),
        ("two_streams.mkv", PLAIN, 1 / 3),
        ("wallclock.mkv", PLAIN, 1 / 3),
        ("edit_000.mp4", PLAIN, 1.1),
    ],
)
def test_a_clip_shows_what_the_container_says(tmp_path: Path, cases: Path, name, expected, tail):
    source = cases / "video" / name
    result = cut(source, tmp_path)
    assert [clip.sequence for clip in result.clips] == [0]
    assert result.tail_s == pytest.approx(tail, abs=0.01)
    for uri in (str(source), result.clips[0].uri):
        for picture in (read_rgb(uri, 0), read_clip_frames(uri, [0])[0], next(decode_frames(uri))[..., ::-1]):
            assert np.abs(corners(picture) - expected).max() <= 4


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("wallclock.mkv", 3.333), ("edit_000.mp4", 4.1), ("vfr_gap.avi", 16 / 3), ("slides.mkv", 60.033)],
)
def test_a_duration_is_that_of_the_pictures(cases: Path, name, seconds):
    assert probe(str(cases / "video" / name)).duration_s == pytest.approx(seconds, abs=1e-6)


def test_a_cover_is_no_video(tmp_path: Path, cases: Path):
    with pytest.raises(VideoError, match="no video stream, only an attached picture"):
        probe(str(cases / "video" / "audio_with_cover.mp4"))
    source = tables([cases / "video" / "audio_with_cover.mp4"], tmp_path)["audio_with_cover"]
    assert (source["status"], source["clips"]) == ("rejected", 0)
    assert source["error"].endswith("no video stream, only an attached picture")


def test_clips_in_which_one_picture_is_held_are_rows_with_the_reason(tmp_path: Path, cases: Path):
    names = ("static_15s.mp4", "slides.mkv", "two_streams.mkv")
    made = tables([cases / "video" / name for name in names], tmp_path)
    left_out = {
        name: [row["sequence"] for row in made[name]["rows"] if row["error"] == f"decode: {HELD}"] for name in made
    }
    assert left_out == {"static_15s": [3, 4, 8, 9, 13, 14], "slides": list(range(20)), "two_streams": []}
    static, slides, two = (made[name.split(".")[0]] for name in names)
    assert (len(static["rows"]), static["clips"], static["status"]) == (15, 9, "ok")
    assert static["notes"] == f"6 clips left out: {HELD}"
    assert (slides["clips"], slides["status"], slides["error"]) == (0, "rejected", f"20 clips left out: {HELD}")
    assert two["notes"] == "2 video streams: the largest, of 320 x 240 pixels, is read"


def test_frames_that_an_edit_list_hides_are_counted_and_read_by_nobody(tmp_path: Path, cases: Path):
    path = cases / "video" / "edit_000.mp4"
    assert (probe(str(path)).num_frames, count_frames(str(path)), len(list(decode_frames(str(path))))) == (
        122,
        122,
        122,
    )
    columns = video_columns(str(path))
    assert (columns["num_frames"], columns["duration_s"]) == (122, pytest.approx(122 / 30))
    assert decode_frames_at(str(path), [121, 122], lambda frame: True, count=True)[1] == {121: True}
    last = read_rgb(str(path), 121)
    assert np.array_equal(read_clip_frames(str(path), [121])[121], last)
    with pytest.raises(VideoError, match="ends before frame 123"):
        read_clip_frames(str(path), [122])
    shown = sample_frames(str(path), [parse_policy("uniform:8")])[0]
    assert shown.num_frames == 122

    dataset = Dataset.create(str(tmp_path), "edited")
    (tmp_path / "videos").mkdir(exist_ok=True)
    shutil.copy(path, tmp_path / "videos" / "edit_000.mp4")
    row = {"clip_id": "edit_000", "source_id": "edit", "uri": "videos/edit_000.mp4", "status": "ok"}
    for count, found in ((122, []), (167, ["video_mismatch"])):
        clips = schema.from_rows("clips", [row | columns | {"num_frames": count}])
        findings = check_videos(check_files(dataset, clips)[1], schema.empty("splits"))
        assert [finding.check for finding in findings] == found


def write_oriented(path: Path, orientation: Orientation, *, degrees_off: float = 0.0) -> Path:
    """Write a red, green, blue and yellow picture whose display matrix asks for `orientation`."""
    upright = np.zeros((80, 80, 3), np.uint8)
    for place, colour in zip(((0, 0), (0, 40), (40, 0), (40, 40)), PLAIN, strict=True):
        upright[place[0] : place[0] + 40, place[1] : place[1] + 40] = colour
    stored = np.rot90(upright, -orientation.rotation // 90)
    stored = np.ascontiguousarray(stored[:, ::-1] if orientation.mirrored else stored)
    angle = np.deg2rad(-orientation.rotation + degrees_off)
    flip = -1 if orientation.mirrored else 1
    matrix = [flip * np.cos(angle), flip * np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 80, 80, "yuv420p"
        stream.set_display_matrix([*(round(value * 65536) for value in matrix), 0, 0, 1 << 30])
        for _ in range(31):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("degrees_off", [0.0, 0.002])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_all_eight_orientations_are_made_upright_by_every_reader(tmp_path: Path, rotation, mirrored, degrees_off):
    source = write_oriented(tmp_path / "a.mov", Orientation(rotation, mirrored), degrees_off=degrees_off)
    assert probe(str(source)).orientation == Orientation(rotation, mirrored)
    clip = cut(source, tmp_path / "clips", TrimSettings(seconds=1, height=80, preset="ultrafast", crf=1)).clips[0].uri
    for uri in (str(source), clip):
        for picture in (read_rgb(uri, 0), read_clip_frames(uri, [0])[0], next(decode_frames(uri))[..., ::-1]):
            assert np.abs(corners(picture) - PLAIN).max() <= 6


def test_a_length_that_the_file_does_not_tell_is_null(tmp_path: Path):
    class Pipe:
        """What can be written to in order only: the file never learns its length."""

        def __init__(self, path: Path) -> None:
            self._file = path.open("wb")

        def write(self, data: bytes) -> int:
            return self._file.write(data)

        def close(self) -> None:
            self._file.close()

    pipe: Any = Pipe(tmp_path / "a.mkv")
    with av.open(pipe, "w", format="matroska") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(31):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="bgr24")))
        container.mux(stream.encode())
    pipe.close()
    assert probe(str(tmp_path / "a.mkv")).duration_s is None
    (source,) = tables([tmp_path / "a.mkv"], tmp_path).values()
    assert (source["duration_s"], source["error"]) == (None, "shorter than one clip: 1.03 s")


def telecined(film: bytes) -> bytes:
    """Return MPEG-2 pictures of 29.97 a second, every other one flagged to be shown for a field longer: 23.976."""
    data, shown, top_first = bytearray(film), 0, True
    position = data.find(b"\0\0\1\xb5")
    while position >= 0:
        if data[position + 4] >> 4 == 1:
            data[position + 5] &= ~0x08  # the sequence is not progressive: the flags below count in fields
        if data[position + 4] >> 4 == 8:
            longer = shown % 2 == 0
            data[position + 7] = data[position + 7] & ~0x82 | 0x41 | top_first << 7 | longer << 1
            data[position + 8] |= 0x80
            shown, top_first = shown + 1, top_first != longer
        position = data.find(b"\0\0\1\xb5", position + 4)
    return bytes(data)


def test_film_with_soft_telecine_keeps_its_speed(tmp_path: Path):
    film = tmp_path / "film.m2v"
    write_footage(film, 110, fps=Fraction(30000, 1001), codec="mpeg2video", options={"b": "2M"})
    film.write_bytes(telecined(film.read_bytes()))
    with av.open(str(film)) as source, av.open(str(tmp_path / "film.mpg"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            packet.stream = stream
            if packet.size:
                target.mux(packet)
    for name, stamped in (("film.mpg", True), ("film.m2v", True), ("film.m2v", False)):
        info = probe(str(tmp_path / name))
        info = info if stamped else replace(info, first_pts=None)
        settings = TrimSettings(height=HEIGHT, preset="ultrafast")
        (clip,) = trim(str(tmp_path / name), "film", str(tmp_path / "clips"), info, settings).clips
        numbers = [number_of(frame) for frame in decode_frames(clip.uri)]
        assert numbers[::10] == [0, 8, 16, 24, 32, 40, 48, 56, 64]
    assert probe(str(film)).duration_s is None


def test_an_avi_without_gaps_is_timed_by_its_frames_and_one_with_gaps_by_its_slots(tmp_path: Path):
    even = write_footage(tmp_path / "even.avi", 40, codec="mpeg4", options={"bf": "2", "b": "2M"})
    assert cut(even, tmp_path / "even", TrimSettings(seconds=1, height=HEIGHT)).tail_s == pytest.approx(1 / 3)
    times = [Fraction(number + 20 * (number >= 20), 30) for number in range(40)]
    gaps = write_footage(tmp_path / "gaps.avi", times, codec="mpeg4", options={"b": "2M"})
    assert cut(gaps, tmp_path / "gaps", TrimSettings(seconds=1, height=HEIGHT)).tail_s == pytest.approx(1, abs=0.05)
    assert (probe(str(gaps)).num_frames, count_frames(str(gaps))) == (40, 40)
