"""Decoders of clips: the same pixels of ordinary clips, and a refusal by name of what one would show wrongly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from microg.config import load_config
from microg.errors import ConfigError, VideoError
from microg.models.video.decoders.base import ClipDecoder
from microg.models.video.decoders.registry import BEST, DECODERS, decoder_of, open_decoder, require_decoder
from microg.models.video.decoders.torchcodec_reader import TorchCodec
from microg.pipelines.curate.pipeline import CurateSettings
from microg.video import decode_frames, read_rgb
from tests.support.footage import damage_packet, number_of, write_footage

OTHERS = [name for name in DECODERS if name not in (BEST, "nvdec")]  # nvdec needs a GPU, and its last digits differ


# torchcodec takes long to find that there is no FFmpeg
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name == "torchcodec" else ()) for name in OTHERS])
def decoder(request: pytest.FixtureRequest) -> ClipDecoder:
    """Each decoder that loads here."""
    try:
        return open_decoder(request.param)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"options": {"bf": "3", "preset": "veryfast"}}),
        ("a.mkv", {}),
        ("a.mov", {"size": (98, 54), "fps": 25}),
        ("a.mp4", {"pix_fmt": "yuvj420p"}),
        ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ],
)
def test_pixels_of_an_ordinary_clip_do_not_depend_on_the_decoder(tmp_path: Path, decoder: ClipDecoder, name, options):
    path = str(write_footage(tmp_path / name, 40, **options))
    frames = list(decoder.frames(path))
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert all(np.array_equal(*pair) for pair in zip(frames, decode_frames(path), strict=True))
    found = decoder.frames_at(path, [39, 3, 17, 40])
    assert sorted(found) == [3, 17, 39]
    assert all(np.array_equal(picture, read_rgb(path, number)) for number, picture in found.items())


@pytest.mark.parametrize("name", ["bikes_cuts_000", "carphone_000", "bbb_noperson_000"])
def test_pixels_of_real_clips_do_not_depend_on_the_decoder(oracles: Path, decoder: ClipDecoder, name):
    path = str(oracles / "curation" / "clips" / f"{name}.mp4")
    assert all(np.array_equal(*pair) for pair in zip(decoder.frames(path), decode_frames(path), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("a.avi", {"codec": "mpeg4"}, "its container is avi"),
        ("a.mkv", {"codec": "ffv1", "pix_fmt": "yuv444p"}, "its pixels are yuv444p"),
        ("a.mkv", {"times": [1.7e9 + number / 30 for number in range(20)]}, "its stamps begin at 1700000000 s"),
    ],
)
def test_what_a_decoder_would_show_wrongly_is_refused_by_name(tmp_path: Path, decoder, name, options, reason):
    path = write_footage(tmp_path / name, options.pop("times", 20), **options)
    for read in (lambda: next(decoder.frames(str(path))), lambda: decoder.frames_at(str(path), [0])):
        with pytest.raises(VideoError, match=rf"is not read by \w+: {re.escape(reason)} \(use --decoder pyav\)"):
            read()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hflip.mp4", "its picture is turned or mirrored"),
        ("edit_000.mp4", "an edit list hides frames"),
        ("two_streams.mkv", "it has several video streams"),
        ("wallclock.mkv", "its stamps begin at"),
    ],
)
def test_what_containers_say_is_refused_where_a_decoder_does_not_hear_it(cases: Path, decoder, name, reason):
    with pytest.raises(VideoError, match=f"is not read by .*: {reason}"):
        next(decoder.frames(str(cases / "video" / name)))


def test_a_damaged_clip_is_an_error_with_every_decoder(tmp_path: Path, decoder: ClipDecoder):
    path = write_footage(tmp_path / "a.mp4", 30)
    damage_packet(path, 10)
    with pytest.raises(VideoError, match=r"a\.mp4 is damaged"):
        list(decoder.frames(str(path)))


def test_auto_is_the_best_and_unknown_names_are_refused():
    assert decoder_of("auto") == require_decoder("auto") == BEST
    assert load_config(CurateSettings, None, ["decoder=decord"]).decoder == "decord"
    with pytest.raises(ConfigError, match="no decoder 'opencv'"):
        load_config(CurateSettings, None, ["decoder=opencv"])
    with pytest.raises(ConfigError, match="beside the detector"):
        require_decoder("nvdec")


@pytest.mark.parametrize("name", OTHERS)
def test_a_decoder_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, name):
    for module in (name, f"{name}.decoders"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{name} is not installed.*uv sync --extra {name}"):
        DECODERS.load(name)().check()


def test_a_torchcodec_without_ffmpeg_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    def reader(self: Any, source: Any) -> None:
        raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    monkeypatch.setattr(TorchCodec, "_reader", reader)
    with pytest.raises(ConfigError, match="finds no shared libraries of FFmpeg"):
        TorchCodec().check()


@pytest.mark.slow
def test_torchcodec_with_the_libraries_that_pyav_brings_passes_here(tmp_path: Path):
    pytest.importorskip("torchcodec", reason="uv sync --extra torchcodec")
    bundled = Path(av.__file__).parent.parent / "av.libs"
    if not bundled.is_dir():
        pytest.skip("this PyAV brings no libraries of its own")
    # libavutil-5809ad29.so.60.26.102 stands for libavutil.so.60
    for library in [*bundled.glob("libav*.so.*"), *bundled.glob("libsw*.so.*")]:
        parts = library.name.split(".so.")
        name, version = parts[0].split("-")[0], parts[1].split(".")[0]
        (tmp_path / f"{name}.so.{version}").symlink_to(library)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "", "-k", "torchcodec and not brings", __file__],
        env={**os.environ, "LD_LIBRARY_PATH": f"{tmp_path}:{bundled}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "finds no shared libraries" not in done.stdout
