"""Which clips any decoder reads right: the others say things about their pictures that only PyAV is told here."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from microg import storage
from microg.errors import MicrogError, VideoAccessError, VideoError
from microg.frame_display import UPRIGHT, orientation_of, to_array
from microg.video import decode_stream, is_indexed, open_video

_PIXELS = ("yuv420p", "yuvj420p")
# Decoders count stamps from zero; a recorder's clock would make them wait, or die.
_LATEST_START_S = 60


def require_ordinary(uri: str, decoder: str) -> None:
    """Raise `VideoError` where `decoder` would show a clip wrongly, with the reason; and where nothing can read it."""
    with open_video(uri) as (container, stream):
        first = next(decode_stream(container, stream, errors=[]), None)
        if first is None:
            raise VideoError(f"{uri} has no frame that can be decoded")
        to_array(first, "rgb24")  # what has colours that nobody converts is refused for that
        start = float((first.pts or 0) * (stream.time_base or 0))
        reasons = {
            f"its container is {container.format.name}": not is_indexed(container),
            "it has several video streams": len(container.streams.video) > 1,
            "its picture is turned or mirrored": orientation_of(first) != UPRIGHT,
            f"its pixels are {first.format.name}": first.format.name not in _PIXELS,
            "an edit list hides frames": any(entry.is_discard for entry in stream.index_entries),
            f"its stamps begin at {start:.0f} s": not 0 <= start <= _LATEST_START_S,
        }
    for reason, holds in reasons.items():
        if holds:
            raise VideoError(f"{uri} is not read by {decoder}: {reason}", "use --decoder pyav")


@contextmanager
def source_of(uri: str, decoder: str) -> Iterator[Any]:
    """Yield an ordinary clip as `decoder` takes it: a path, or what holds its bytes. Its errors become `VideoError`."""
    require_ordinary(uri, decoder)
    try:
        yield str(storage.local_path(uri)) if storage.is_local(uri) else io.BytesIO(storage.read_bytes(uri))
    except MicrogError:
        raise
    except OSError as error:
        raise VideoAccessError(f"{uri} cannot be read: {error}") from error
    except Exception as error:  # what these libraries raise has no common parent
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VideoError(f"{uri} is damaged: {decoder} says {reason}") from error
