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
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from microg.escaping import well_formed
from microg.models.vlm.gpu_memory import GpuMemory
from microg.models.vlm.prices import Picture, Price

# Text is at most one token a byte; what a message adds around it, and a request around its messages.
_PER_MESSAGE, _PER_REQUEST = 16, 32
_BYTES_PER_TOKEN = 4
_PICTURE = Picture(rule="tiles", base=85, tile=170)

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
        digest = hashlib.sha256(repr((self.pixels.shape, str(self.pixels.dtype))).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()

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
        frames = None
        if self.frames is not None:
            about = {"indices": list(self.frames.indices), "fps": self.frames.fps, "num_frames": self.frames.num_frames}
            frames = {"pixels": self.frames.sha256, **about}
        return {"system": self.system, "prompt": self.prompt, "frames": frames}


@dataclass(frozen=True)
class Reply:
    """What came back for one request. `error` is null where status is ok; `text` is null where it is error.

    attempts: requests that were sent; 0 for a reply from a cache. latency_s: seconds from the first one to the reply.
    prompt_tokens and completion_tokens as the engine counts them, null where it does not. cost: US dollars that this
    request cost now, all its attempts together: 0 for a reply from a cache, null where no price is known.
    Half characters, which servers send and no table can hold, become U+FFFD.
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

    def __post_init__(self) -> None:
        for name in ("text", "error", "finish_reason"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, well_formed(value))


@dataclass(frozen=True)
class Estimate:
    """A request before it is sent.

    Attributes:
        tokens: Tokens that are likely, of prompt and answer.
        cost: US dollars that it costs at most: 0 where a model runs here, None where no price is known.
    """

    tokens: int
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where one copy of a model runs.

    Attributes:
        device: auto, cpu or cuda; the engine's name where a server has the model.
        gpus: GPUs that it takes; below 1 a part of one.
        tensor_parallel: GPUs that share each layer.
        pipeline_parallel: Groups of such GPUs that share the layers out.
        over_nodes: Whether its GPUs may lie on several nodes: then they are those of its actor's placement group.
    """

    device: str = "auto"
    gpus: float = 0.0
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    over_nodes: bool = False


class Engine(ABC):
    """A model that answers requests, and what has to be known of it before it is asked.

    An engine is made with the model's id as `model` and the settings of a model card as its other arguments.

    Attributes:
        runs_here: Whether this machine does the work; else a server does, and a request may cost money.
        calls_at_once: Calls of `generate` that may run at once, each in a thread: above 1 for an engine that joins what
            they ask, or makes one ready while it answers another.
        answers_text: Whether it answers requests that show no frames, such as what is asked about texts.
        batch_mode: `module:class` of the provider's batch mode (see `microg.models.vlm.api.openai_batch`), or "".
        name: The engine's name as answers record it.
        model: The model's id.
        price: What tokens cost, None where nothing is known or nothing is paid.
    """

    runs_here: ClassVar[bool] = True
    calls_at_once: ClassVar[int] = 1
    answers_text: ClassVar[bool] = True
    batch_mode: ClassVar[str] = ""
    name: str
    model: str
    price: Price | None = None

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return what decides answers besides request and sampling: model, server, picture encoding. No secrets."""

    @abstractmethod
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply a request, in the order they finish.

        A request that fails is a reply with status error.

        Raises:
            ConfigError: No request can succeed: no key, a key that is refused, a model that does not exist.
        """

    def close(self) -> None:
        """Free what the engine holds."""
        return

    def check_ready(self) -> None:
        """Check what can be checked in no time, before anything is written or decoded.

        Raises:
            ConfigError: No request can succeed: the key is not set, a package or the model is missing.
        """
        return

    def check_consent(self) -> str:
        """Return what identifies the code of strangers that the model runs, "" where it runs none.

        Raises:
            ConfigError: It runs such code, and nobody allowed it.
        """
        return ""

    def worker_notes(self) -> list[str]:
        """Return what a user has to know whose run works on other machines of a cluster."""
        return []

    @property
    def can_cap_costs(self) -> bool:
        """Whether a cap on costs can be held: nothing is paid, or the price is known."""
        return self.runs_here or self.price is not None

    @property
    def counting(self) -> str:
        """How `estimate` counts tokens, in words."""
        return "about, by OpenAI's rule for pictures" if self.runs_here else "by the provider's rule"

    @property
    def counts_slowly(self) -> bool:
        """Whether `estimate` processes frames, so that callers should ask once for each size of them."""
        return False

    def estimate(self, request: Request, sampling: Sampling, batch: bool = False) -> Estimate:
        """Return what a request takes: pictures by the provider's rule, else OpenAI's, four bytes of text a token.

        The bound on costs counts every byte of text as a token, and the longest answer.
        """
        shape = json.dumps(dict(sampling.json_schema)) if sampling.json_schema else ""
        text = sum(len(part.encode()) for part in (request.system, request.prompt, shape))
        pictures = 0
        if request.frames is not None:
            rule = self.price.picture if self.price is not None else _PICTURE
            pictures = rule.count(request.frames.width, request.frames.height) * len(request.frames.indices)
        likely = text // _BYTES_PER_TOKEN + pictures + sampling.max_tokens + _PER_REQUEST
        if self.price is None:
            return Estimate(likely, 0.0 if self.runs_here else None)
        most = text + pictures + 2 * _PER_MESSAGE + _PER_REQUEST
        return Estimate(likely, self.price.cost(most, sampling.max_tokens, batch=batch))

    def gpu_memory(self, tokens: int, frames: tuple[int, int, int], place: Placement) -> GpuMemory | None:
        """Return what a copy needs of each of its GPUs.

        None where that is not known: the model's files are not on this machine, or a server has them. `tokens` are
        those of the longest request, `frames` the number, width and height of what it is shown.
        """
        return None

    @classmethod
    def settings_on(cls, place: Placement) -> dict[str, Any]:
        """Return the settings of a copy of the model that runs there."""
        spread = {"tensor_parallel": place.tensor_parallel, "pipeline_parallel": place.pipeline_parallel}
        return {name: count for name, count in spread.items() if count > 1}


def content_key(engine: Engine, request: Request, sampling: Sampling) -> str:
    """Return a hash of everything that decides a reply: engine, request and sampling."""
    about = {"engine": engine.fingerprint(), "request": request.content(), "sampling": vars(sampling)}
    text = json.dumps(about, sort_keys=True, ensure_ascii=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()
