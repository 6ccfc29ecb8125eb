"""The interface of vision-language engines: requests in, exactly one reply each out.

What happens to one row, whatever the engine:

    clip uri --models.vlm.frames.sample_frames(policy)--> Frames --+
    question --models.vlm.prompts.Prompt.render---> text ------+--> Request --Engine.generate(sampling)--> Reply

Engines are shown `Frames` that were already sampled and never see the video, so that no engine, processor or server
samples a second time: which frames, at which size and of which pixels is known before and written beside the answer.
An engine may be asked without frames, as a judge of answers is. Engines hold no Ray: pipelines put them into actors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

Status = Literal["ok", "error"]


@dataclass(frozen=True)
class Sampling:
    """How text is drawn; the default is greedy. `json_schema` asks for an answer of that shape where an engine can."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of a clip: pixels (t, h, w, 3) uint8 RGB, their indices from 0 (t,), and the clip's rate and length.

    `fps` and `num_frames` are the whole clip's, not the sample's. Several requests may share one object.
    """

    pixels: np.ndarray
    indices: tuple[int, ...]
    fps: float
    num_frames: int

    @property
    def width(self) -> int:
        """Width in pixels of what the model is shown."""
        return int(self.pixels.shape[2])

    @property
    def height(self) -> int:
        """Height in pixels of what the model is shown."""
        return int(self.pixels.shape[1])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the pixels and their shape, in hexadecimal: what the column `frame_hash` holds."""
        found = hashlib.sha256(repr((self.pixels.shape, str(self.pixels.dtype))).encode())
        found.update(np.ascontiguousarray(self.pixels).data)
        return found.hexdigest()

    def video_metadata(self) -> dict[str, Any]:
        """Return what Hugging Face processors and vLLM call a video's metadata; it forbids sampling again."""
        return {
            "total_num_frames": self.num_frames,
            "fps": self.fps,
            "frames_indices": list(self.indices),
            "duration": self.num_frames / self.fps,
            "width": self.width,
            "height": self.height,
            "video_backend": "pyav",
            "do_sample_frames": False,
        }


@dataclass(frozen=True)
class Request:
    """One thing to answer. `key` names it for the caller and says nothing to the model."""

    key: str
    prompt: str
    system: str = ""
    frames: Frames | None = None

    def content(self) -> dict[str, Any]:
        """Return what the model is shown, with frames as their hash."""
        shown = None
        if self.frames is not None:
            about = {"indices": list(self.frames.indices), "fps": self.frames.fps, "num_frames": self.frames.num_frames}
            shown = {"pixels": self.frames.sha256, **about}
        return {"system": self.system, "prompt": self.prompt, "frames": shown}


@dataclass(frozen=True)
class Reply:
    """What came back for one request. `error` is null where status is ok; `text` is null where it is error.

    attempts: requests that were sent; 0 for a reply from a cache. latency_s: seconds from the first one to the reply.
    prompt_tokens and completion_tokens as the engine counts them, null where it does not. cost: US dollars that this
    request cost now, all its attempts together: 0 for a reply from a cache, null where no price is known.
    """

    key: str
    text: str | None = None
    status: Status = "ok"
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float = 0.0
    attempts: int = 1
    cached: bool = False
    cost: float | None = None


class Engine(Protocol):
    """A model that answers requests. `name` is the engine's, as in a model card; `model` is the model's."""

    name: str
    model: str

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides answers besides request and sampling: model, server, picture encoding. No secrets."""
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply a request, in the order they finish.

        A request that fails is a reply with status error. Raises `ConfigError` where none can succeed: no key, a key
        that is refused, a model that is not there.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


def content_key(engine: Engine, request: Request, sampling: Sampling) -> str:
    """Return a hash of everything that decides a reply: engine, request and sampling."""
    about = {"engine": engine.fingerprint(), "request": request.content(), "sampling": vars(sampling)}
    text = json.dumps(about, sort_keys=True, ensure_ascii=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()
