"""From a request to the text that a local model reads: the model's own chat template, applied by its own processor.

Both local engines write prompts with this, so that the same request is the same tokens in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from microg.errors import ConfigError, describe
from models.vlm.base import Request
from models.vlm.checkpoint import Checkpoint

FramesAs = Literal["auto", "video", "images"]


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


def remote_code(error: Exception) -> str | None:
    """Return what to do about an error that means the repository has code of its own to run."""
    if "trust_remote_code" in str(error):
        return "read the repository's code, then allow it with settings trust_remote_code=true"
    return None


def _of_tokenizer(processor: Any) -> Any:
    return getattr(getattr(processor, "tokenizer", None), "chat_template", None)
