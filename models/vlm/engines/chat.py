"""From a request to the text that a local model reads: the model's own chat template, applied by its own processor.

Both local engines write prompts with this, so that the same request is the same tokens in each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from microg.errors import ConfigError, describe
from microg.models.vlm.base import Frames, Request
from microg.models.vlm.engines.checkpoint import Checkpoint

FramesAs = Literal["auto", "video", "images"]
# What transformers' metadata of a video has no field for.
_NOT_METADATA = ("do_sample_frames",)


@dataclass
class Chat:
    """A processor and how frames are shown to it: `video`, one video of all frames, or `images`, one by one."""

    processor: Any
    frames_as: Literal["video", "images"]
    template: str | None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return getattr(self.processor, "tokenizer", self.processor)

    def text(self, request: Request) -> str:
        """Return the prompt with one placeholder for a video or for each image, as the chat template writes it."""
        shown: list[dict[str, str]] = []
        if request.frames is not None:
            count = 1 if self.frames_as == "video" else len(request.frames.pixels)
            shown = [{"type": self.frames_as.removesuffix("s")}] * count
        said = {"type": "text", "text": request.prompt}
        messages: list[dict[str, Any]] = [{"role": "user", "content": [*shown, said]}]
        if request.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": request.system}]})
        more = {} if self.template is None else {"chat_template": self.template}
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **more)

    def special_tokens(self, text: str) -> bool:
        """Tell whether the tokenizer still has to add its own, because the template did not write them."""
        begin = self.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def ids(self, text: str) -> list[int]:
        """Return a prompt's tokens, placeholders not yet widened to the size of what they stand for."""
        return self.tokenizer(text, add_special_tokens=self.special_tokens(text))["input_ids"]

    def inputs(self, requests: Sequence[Request], options: Mapping[str, Any]) -> Any:
        """Return the processor's output, padded on the left, for requests whose frames are all alike or none.

        `options` are the processor's own, for frames.
        """
        texts = [self.text(request) for request in requests]
        frames = [request.frames for request in requests if request.frames is not None]
        visual = {**shown_to_processor(frames, self.frames_as), **options} if frames else {}
        special = all(self.special_tokens(text) for text in texts)
        return self.processor(
            text=texts, padding=True, padding_side="left", add_special_tokens=special, return_tensors="pt", **visual
        )

    def count(self, request: Request, options: Mapping[str, Any]) -> int:
        """Return the tokens of a request's prompt, what stands for frames included."""
        return int(self.inputs([request], options)["attention_mask"].sum())


def load_chat(
    checkpoint: Checkpoint, frames_as: FramesAs = "auto", template: str | None = None, trust_remote_code: bool = False
) -> Chat:
    """Load the checkpoint's processor. Raises `ConfigError` when it has none that takes frames, or no chat template."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(
            checkpoint.source, revision=checkpoint.revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise ConfigError(
            f"the processor of {checkpoint.source} cannot be loaded: {describe(error)[:300]}", remote_code(error)
        ) from None
    takes_video = getattr(processor, "video_processor", None) is not None
    if frames_as == "auto":
        frames_as = "video" if takes_video else "images"
    if frames_as == "video" and not takes_video:
        raise ConfigError(f"{checkpoint.source} takes no video", "show frames one by one: settings frames_as=images")
    if template is None and not (getattr(processor, "chat_template", None) or _of_tokenizer(processor)):
        raise ConfigError(
            f"{checkpoint.source} has no chat template",
            "give one in Jinja: settings chat_template, see video-llava's card",
        )
    chat = Chat(processor, frames_as, template)
    if chat.tokenizer.pad_token is None:
        chat.tokenizer.pad_token = chat.tokenizer.eos_token
    return chat


def shown_to_processor(frames: Sequence[Frames], frames_as: str) -> dict[str, Any]:
    """Return the arguments with which a transformers processor takes frames as they are, one clip a prompt."""
    if frames_as == "images":
        return {"images": [pictures(clip) for clip in frames]}
    metadata = [
        {name: value for name, value in clip.video_metadata().items() if name not in _NOT_METADATA} for clip in frames
    ]
    return {
        "videos": [clip.pixels for clip in frames],
        "video_metadata": metadata,
        "do_sample_frames": False,
        "input_data_format": "channels_last",  # of a picture 1 or 3 pixels high it would be guessed otherwise
    }


def pictures(frames: Frames) -> list[Any]:
    """Return frames one by one, as the Pillow images that processors take."""
    from PIL import Image

    return [Image.fromarray(pixels) for pixels in frames.pixels]


def remote_code(error: Exception) -> str | None:
    """Return what to do about an error that means the repository has code of its own to run."""
    if "trust_remote_code" in str(error):
        return "read the repository's code, then allow it with settings trust_remote_code=true"
    return None


def _of_tokenizer(processor: Any) -> Any:
    return getattr(getattr(processor, "tokenizer", None), "chat_template", None)
