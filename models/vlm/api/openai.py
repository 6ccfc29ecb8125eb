"""Any OpenAI-compatible server: OpenAI itself, `vllm serve`, and others that speak chat completions.

Frames go as a list of pictures, or as one video of exactly these frames to a `vllm serve` that was started with
`--trust-request-mm-kwargs` (without it vLLM would sample the video again).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from microg.errors import describe
from microg.models.vlm.api.completion import read_completion
from microg.models.vlm.api.engine import ApiEngine
from microg.models.vlm.api.response import Answer, Verdict, retry_after_s, status_verdict
from microg.models.vlm.base import Frames, Request, Sampling

_OPENAI = "https://api.openai.com/v1"
# Of a video's metadata, what vLLM takes with `data:video/jpeg`.
_VIDEO_KEYS = ("fps", "frames_indices", "total_num_frames", "duration", "do_sample_frames")
# vLLM fills in what a request leaves out from the checkpoint's generation_config.json, with which greedy is not greedy.
_VLLM_NEUTRAL = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}


@dataclass
class OpenAiEngine(ApiEngine):
    """A model behind an OpenAI-compatible server (see `ApiEngine`).

    `base_url` None means the variable OPENAI_BASE_URL, or OpenAI. `frames_as`: `images`, or `video` for vLLM.
    `detail` is OpenAI's low | high | auto. `leave_out` names parameters that the model refuses; what it then does
    instead is its own. `extra_body` is sent with every request.
    """

    batch_mode: ClassVar[str] = "microg.models.vlm.api.openai_batch:OpenAiBatch"
    key_variable: str = "OPENAI_API_KEY"
    name: str = "openai"
    frames_as: Literal["images", "video"] = "images"
    detail: str | None = None
    leave_out: tuple[str, ...] = ()
    extra_body: Mapping[str, Any] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return engine, model, server, how frames are sent, and what is left out or added."""
        about = {**super().fingerprint(), "frames_as": self.frames_as}
        optional = {"detail": self.detail, "leave_out": sorted(self.leave_out), "extra_body": self.extra_body}
        return about | {name: value for name, value in optional.items() if value}

    def _default_url(self) -> str:
        return os.environ.get("OPENAI_BASE_URL") or _OPENAI

    def _client(self, key: str) -> AbstractAsyncContextManager[Any]:
        from openai import AsyncOpenAI

        # retries are ours: the client's own know no deadline over all attempts and do not repeat a torn answer
        return AsyncOpenAI(api_key=key, base_url=self.base_url, max_retries=0)

    def body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        content: Any = request.prompt
        extra = dict(self.extra_body or {})
        if request.frames is not None:
            parts, more = self._parts(request.frames)
            extra = {**more, **extra}
            content = [*parts, {"type": "text", "text": request.prompt}]
        system = [{"role": "system", "content": request.system}] if request.system else []
        own = urlsplit(str(self.base_url)).hostname == "api.openai.com"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": content}],
            "max_completion_tokens" if own else "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.json_schema is not None:
            shape = {"name": "answer", "strict": True, "schema": dict(sampling.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        body = {name: value for name, value in body.items() if name not in self.leave_out}
        return {**body, "extra_body": extra} if extra else body

    def _parts(self, frames: Frames) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the parts of a message that show frames, and what goes beside the messages."""
        files = [base64.b64encode(data).decode() for data in self.picture_files(frames)]
        if self.frames_as == "images":
            more = {"detail": self.detail} if self.detail else {}
            urls = ({"url": f"data:image/{self.picture_format};base64,{data}", **more} for data in files)
            return [{"type": "image_url", "image_url": url} for url in urls], {}
        about = frames.video_metadata()
        options = {"num_frames": -1, **{name: about[name] for name in _VIDEO_KEYS}}
        # always called video/jpeg: that is how vLLM knows a list of pictures; its loader reads PNG in it exactly (0.32)
        video = {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + ",".join(files)}}
        return [video], {"media_io_kwargs": {"video": options}, **_VLLM_NEUTRAL}

    async def _send(self, client: Any, body: Any) -> Answer:
        response = await client.chat.completions.with_raw_response.create(**body)
        return read_completion(response.content, response.headers)

    def _judge(self, error: Exception) -> Verdict:
        import openai

        if isinstance(error, openai.APIStatusError):
            code = error.status_code
            text = f"HTTP {code}: {' '.join(str(error.message).split())}"[:500]
            if error.code == "insufficient_quota":  # a 429 that no waiting heals
                return Verdict("run_error", text, unbilled=True)
            return status_verdict(code, text, retry_after_s(error.response.headers))
        if isinstance(error, openai.APITimeoutError):
            return Verdict("retry", "the server did not answer in time", refused=True)
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            never_sent = type(cause).__name__ in ("ConnectError", "ConnectTimeout")
            return Verdict("retry", f"connection failed: {describe(cause)}", unbilled=never_sent)
        # a body cut off in transit and the like: the transport's own errors, which differ between its versions
        return Verdict("retry", describe(error))
