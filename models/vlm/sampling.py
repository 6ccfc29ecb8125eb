"""Which frames of a clip a model is shown: policies, and the exact rule of each.

Frames count from 0 here. All rules are integer arithmetic, so that they are the same on every machine. No policy shows
a frame twice unless it is told to (`short: repeat`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from microg.config import Config
from microg.errors import ConfigError, VideoError

Rule = Literal["ends", "middles"]
Short = Literal["fewer", "repeat", "error"]
# What dense sampling takes before it asks whether that was meant: 34 s at 30 fps.
_DENSE_LIMIT = 1024


class Resize(Config):
    """Size of the frames that a model is shown; exactly one of the three is set.

    Smaller pictures are made by pixel area, larger ones by bicubic interpolation (OpenCV).
    """

    longest: int | None = Field(
        default=None, ge=1, description="Most pixels of the longer side; the aspect ratio is kept, nothing is enlarged."
    )
    max_pixels: int | None = Field(
        default=None, ge=1, description="Most pixels of a frame (width times height); the aspect ratio is kept."
    )
    size: tuple[int, int] | None = Field(
        default=None, description="Exact width and height in pixels, whatever the aspect ratio."
    )

    @model_validator(mode="after")
    def _one_of_three(self) -> Resize:
        given = [value for value in (self.longest, self.max_pixels, self.size) if value is not None]
        if len(given) != 1 or (self.size is not None and min(self.size) < 1):
            raise ValueError("give exactly one of longest, max_pixels and size (positive width and height)")
        return self

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after the resize.

        >>> Resize(longest=64).target(96, 54), Resize(longest=640).target(96, 54)
        ((64, 36), (96, 54))
        """
        if self.size is not None:
            return self.size
        if self.longest is not None:
            longer = max(width, height)
            if longer <= self.longest:
                return width, height
            return tuple(max(1, (2 * side * self.longest + longer) // (2 * longer)) for side in (width, height))  # pyright: ignore[reportReturnType]
        limit = self.max_pixels or 0
        if width * height <= limit:
            return width, height
        # the widest width whose height, rounded half up, still fits
        for wide in range(min(width, limit), 0, -1):
            high = max(1, (2 * wide * height + width) // (2 * width))
            if wide * high <= limit:
                return wide, high
        return 1, 1


# Descriptions of keys that several kinds have.
_KIND = "Way of choosing frames: uniform, fps, key, dense or explicit."
_COUNT = "Kinds uniform and key: number of frames."
_SHORT = "What happens where a clip has too few frames: show fewer, repeat some, or refuse the clip with an error."
_LIMIT = "Most frames; kind fps is thinned evenly, kind dense refuses longer clips."


class _Policy(Config):
    """How frames are chosen, and at which size they are shown."""

    resize: Resize | None = Field(default=None, description="Size of the frames; without it as decoded.")


class Uniform(_Policy):
    """`count` frames spread evenly over the clip.

    rule `ends` (first and last frame included): frame i is i * (N - 1) // (count - 1) of N; one frame is frame 0. This
    is numpy's `linspace(0, N - 1, count, dtype=int)`, which LLaVA's code and vLLM use, without its rounding errors.
    rule `middles`: frame i is (2 * i + 1) * N // (2 * count), the middle of each of `count` equal parts.
    `short` says what happens when the clip has fewer frames than asked: `fewer` shows each frame once, `repeat` shows
    some again by the same rule (for models that take a fixed number), `error` refuses the clip.
    """

    kind: Literal["uniform"] = Field(default="uniform", description=_KIND)
    count: int = Field(ge=1, description=_COUNT)
    rule: Rule = Field(
        default="ends", description="Kind uniform: spread from end to end, or take the middles of equal parts."
    )
    short: Short = Field(default="fewer", description=_SHORT)

    def indices(self, num_frames: int, fps: float, key_frame: int | None = None) -> list[int]:
        """Return the indices of the frames to show.

        >>> Uniform(count=9).indices(90, 30)
        [0, 11, 22, 33, 44, 55, 66, 77, 89]
        >>> Uniform(count=3, rule="middles").indices(90, 30), Uniform(count=1).indices(90, 30)
        ([15, 45, 75], [0])
        """
        count = _count(self.count, num_frames, self.short)
        if self.rule == "middles":
            return [(2 * i + 1) * num_frames // (2 * count) for i in range(count)]
        return [i * (num_frames - 1) // (count - 1) for i in range(count)] if count > 1 else [0]

    def label(self) -> str:
        """Return the short form that `parse_policy` reads."""
        return f"uniform:{self.count}" + (":middles" if self.rule == "middles" else "")


class Rate(_Policy):
    """`fps` frames a second of the clip, the first one included, at most `limit` (evenly thinned by rule `ends`).

    Frame k is k * (clip fps) / fps, rounded half down; a rate at or above the clip's shows every frame once.
    """

    kind: Literal["fps"] = Field(default="fps", description=_KIND)
    fps: float = Field(gt=0, description="Kind fps: frames a second of the clip.")
    limit: int | None = Field(default=None, ge=1, description=_LIMIT)

    def indices(self, num_frames: int, fps: float, key_frame: int | None = None) -> list[int]:
        """Return the indices of the frames to show.

        >>> Rate(fps=2).indices(90, 30)
        [0, 15, 30, 45, 60, 75]
        """
        step = max(Fraction(fps).limit_denominator(1_000_000) / Fraction(self.fps).limit_denominator(1_000_000), 1)
        chosen = []
        while (index := -((1 - 2 * step * len(chosen)) // 2)) < num_frames:  # ceil(x - 1/2)
            chosen.append(int(index))
        if self.limit is not None and len(chosen) > self.limit:
            return [chosen[i] for i in Uniform(count=self.limit).indices(len(chosen), 1.0)]
        return chosen

    def label(self) -> str:
        """Return the short form that `parse_policy` reads."""
        return f"fps:{self.fps:g}" + (f":{self.limit}" if self.limit else "")


class AroundKey(_Policy):
    """`count` frames, `step` apart, around the clip's key frame: key + (i - count // 2) * step.

    The key frame is the one given for the clip, or N // 2. `short` says what happens where that leaves the clip:
    `fewer` drops those frames, `repeat` shows the nearest frame instead (as PySlowFast does), `error` refuses the clip.
    """

    kind: Literal["key"] = Field(default="key", description=_KIND)
    count: int = Field(ge=1, description=_COUNT)
    step: int = Field(default=1, ge=1, description="Kind key: distance of two frames.")
    short: Short = Field(default="fewer", description=_SHORT)

    def indices(self, num_frames: int, fps: float, key_frame: int | None = None) -> list[int]:
        """Return the indices of the frames to show; `key_frame` counts from 0.

        >>> AroundKey(count=5, step=10).indices(90, 30)
        [25, 35, 45, 55, 65]
        """
        key = num_frames // 2 if key_frame is None else key_frame
        if not 0 <= key < num_frames:
            raise VideoError(f"key frame {key + 1} is not in the clip, which has {num_frames} frames")
        wanted = [key + (i - self.count // 2) * self.step for i in range(self.count)]
        inside = [index for index in wanted if 0 <= index < num_frames]
        if len(inside) == len(wanted) or self.short == "fewer":
            return inside
        if self.short == "error":
            raise VideoError(f"{self.count} frames {self.step} apart around frame {key + 1} of {num_frames} do not fit")
        return [min(max(index, 0), num_frames - 1) for index in wanted]

    def label(self) -> str:
        """Return the short form that `parse_policy` reads."""
        return f"key:{self.count}:{self.step}"


class Dense(_Policy):
    """Every frame: 90 of a published clip. Raises `VideoError` for clips with more frames than `limit`."""

    kind: Literal["dense"] = Field(default="dense", description=_KIND)
    limit: int = Field(default=_DENSE_LIMIT, ge=1, description=_LIMIT)

    def indices(self, num_frames: int, fps: float, key_frame: int | None = None) -> list[int]:
        """Return the indices of the frames to show."""
        if num_frames > self.limit:
            raise VideoError(f"dense sampling of a clip with {num_frames} frames; the limit is {self.limit}")
        return list(range(num_frames))

    def label(self) -> str:
        """Return the short form that `parse_policy` reads."""
        return "dense"


class Explicit(_Policy):
    """The frames listed in `at`, in that order. Raises `VideoError` for a clip that lacks one."""

    kind: Literal["explicit"] = Field(default="explicit", description=_KIND)
    at: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="Kind explicit: frames to show, counted from 0."
    )

    def indices(self, num_frames: int, fps: float, key_frame: int | None = None) -> list[int]:
        """Return the indices of the frames to show."""
        missing = [index for index in self.at if index >= num_frames]
        if missing:
            raise VideoError(f"the clip has {num_frames} frames and no frame {missing[0]} (counted from 0)")
        return list(self.at)

    def label(self) -> str:
        """Return the short form that `parse_policy` reads."""
        return "explicit:" + ",".join(map(str, self.at))


FramePolicy = Annotated[Uniform | Rate | AroundKey | Dense | Explicit, Field(discriminator="kind")]
_POLICIES: TypeAdapter[Any] = TypeAdapter(cast(Any, FramePolicy))
_FORMS = "uniform:8, uniform:8:middles, fps:2, fps:2:64, key:5:6, dense, explicit:0,44,89"


def parse_policy(text: str) -> Uniform | Rate | AroundKey | Dense | Explicit:
    """Read a policy's short form: one of `uniform:8`, `uniform:8:middles`, `fps:2`, `key:5:6` (count:step), `dense`,
    `explicit:0,44,89`. Raises `ConfigError`.

    >>> parse_policy("key:5:6").label()
    'key:5:6'
    """
    kind, *values = text.strip().split(":")
    names = {"uniform": ("count", "rule"), "fps": ("fps", "limit"), "key": ("count", "step"), "explicit": ("at",)}
    if kind not in names | {"dense": ()} or len(values) > len(names.get(kind, ())):
        raise ConfigError(f"{text!r} is no way to choose frames", f"forms: {_FORMS}")
    given: dict[str, object] = {"kind": kind, **dict(zip(names.get(kind, ()), values, strict=False))}
    if kind == "explicit":
        given["at"] = values[0].split(",") if values else ()
    try:
        return _POLICIES.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{text!r} is no way to choose frames: {first['msg']}", f"forms: {_FORMS}") from None


def _count(wanted: int, num_frames: int, short: Short) -> int:
    if wanted <= num_frames or short == "repeat":
        return wanted
    if short == "error":
        raise VideoError(f"the clip has {num_frames} frames, {wanted} are asked for")
    return num_frames
