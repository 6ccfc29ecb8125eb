"""Video-ChatGPT (Maaz et al., 2023) for today's transformers, from its published description and code's behaviour.

CLIP's features of a clip's frames (second last layer, without the class token) are averaged twice: over each frame,
which gives a token a frame, filled up with zeros to 100, and over all frames, which gives a token a patch. A linear
layer makes tokens of LLaMA of them, which stand in the prompt between <vid_start> and <vid_end>.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoVideoProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationMixin,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    VideoLlavaVideoProcessor,
)

BEGIN, PATCH, END = "<vid_start>", "<vid_patch>", "<vid_end>"
# "video-chatgpt_v1" among its conversations, word for word, the missing space too: the model was trained with it.
SYSTEM = (
    "You are Video-ChatGPT, a large vision-language assistant. "
    "You are able to understand the video content that the user provides, and assist the user with a variety of tasks "
    "using natural language."
    "Follow the instructions carefully and explain your answers in detail based on the provided video."
)
# The question comes first, the video after it.
CHAT_TEMPLATE = (
    "{%- set own = messages[0]['role'] == 'system' -%}"
    "{%- if own -%}{%- for part in messages[0]['content'] -%}{{ part['text'] }}{%- endfor -%}"
    f"{{%- else -%}}{SYSTEM}{{%- endif -%}}"
    "{%- for message in messages -%}{%- if message['role'] != 'system' -%}"
    "{{ ' USER: ' if message['role'] == 'user' else ' ASSISTANT: ' }}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'video' -%}"
    f"{{{{ '\\n{BEGIN}{PATCH}{END}' }}}}"
    "{%- endfor -%}"
    "{{ '</s>' if message['role'] == 'assistant' else '' }}"
    "{%- endif -%}{%- endfor -%}"
    "{{ ' ASSISTANT:' if add_generation_prompt else '' }}"
)
_LAYER = -2


class VideoChatGptConfig(PreTrainedConfig):
    """LLaMA's and CLIP's settings, the token that a feature replaces, and how many tokens stand for frames."""

    model_type = "video_chatgpt"
    sub_configs = {"text_config": LlamaConfig, "vision_config": CLIPVisionConfig}  # noqa: RUF012 (transformers' own)

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    video_token_id: int = 0
    frame_tokens: int = 100
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Make configurations of the two parts."""
        for name, kind in self.sub_configs.items():
            if not isinstance(part := getattr(self, name), PreTrainedConfig):
                setattr(self, name, kind(**(part or {})))
        super().__post_init__(**kwargs)


class VideoChatGptForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The model; `pixel_values_videos` are (clips, frames, 3, height, width)."""

    config_class = VideoChatGptConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.mm_projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.language_model: Any = LlamaForCausalLM(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return LLaMA's."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return LLaMA's."""
        return self.language_model.get_output_embeddings()

    def video_features(self, pixels: Tensor) -> Tensor:
        """Return (clips, frame_tokens + patches, hidden) of (clips, frames, 3, height, width)."""
        clips, frames = pixels.shape[:2]
        seen = self.vision_tower(pixels.flatten(0, 1), output_hidden_states=True).hidden_states[_LAYER][:, 1:]
        features = seen.unflatten(0, (clips, frames))
        empty = features.new_zeros(clips, self.config.frame_tokens - frames, features.shape[-1])
        return self.mm_projector(torch.cat([features.mean(2), empty, features.mean(1)], dim=1))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, pixel_values_videos: Tensor | None = None
    ) -> Any:
        """Return what LLaMA does of prompts (clips, tokens)."""
        embeds = self._embeds(input_ids, pixel_values_videos)
        return self.language_model(inputs_embeds=embeds, attention_mask=attention_mask)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Return prompts (clips, tokens) with the tokens that LLaMA goes on with."""
        embeds = self._embeds(input_ids, pixel_values_videos)
        self.language_model.generation_config = self.generation_config
        produced = self.language_model.generate(inputs_embeds=embeds, attention_mask=attention_mask, **options)
        return torch.cat([input_ids, produced], dim=1)

    def _embeds(self, input_ids: Tensor, pixels: Tensor | None) -> Tensor:
        embeds = self.get_input_embeddings()(input_ids)
        if pixels is None:
            return embeds
        place = (input_ids == self.config.video_token_id).unsqueeze(-1)
        return embeds.masked_scatter(place, self.video_features(pixels).to(embeds.dtype))


class VideoChatGptVideoProcessor(VideoLlavaVideoProcessor):
    """Presses frames into a square by the pixel whose corner is nearest, and normalises them as CLIP does."""

    size = {"height": 224, "width": 224}  # noqa: RUF012 (transformers' own)
    do_center_crop = False

    def resize(self, image: Tensor, size: Any, **kwargs: Any) -> Tensor:
        """Return frames (..., 3, height, width) as `torch.nn.functional.interpolate` gives them where told no mode.

        What transformers calls nearest takes the pixel whose middle is nearest instead.
        """
        frames = image.flatten(0, -4).float() if image.ndim > 4 else image.float()
        pressed = nn.functional.interpolate(frames, size=(size.height, size.width)).to(image.dtype)
        return pressed.unflatten(0, image.shape[:-3]) if image.ndim > 4 else pressed


class VideoChatGptProcessor(ProcessorMixin):
    """Prompts and frames; `frame_tokens` and `patches` say how many tokens a video becomes."""

    def __init__(
        self,
        tokenizer: Any = None,
        video_processor: Any = None,
        chat_template: str | None = None,
        frame_tokens: int = 100,
        patches: int = 256,
        **kwargs: Any,
    ) -> None:
        self.video_token = PATCH
        self.video_token_id = None if tokenizer is None else tokenizer.convert_tokens_to_ids(PATCH)
        self.frame_tokens, self.patches = frame_tokens, patches
        super().__init__(tokenizer, video_processor, chat_template=chat_template, **kwargs)

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """Return the placeholders of one video. Raises `ValueError` for more frames than the model has tokens for."""
        frames = len(video_inputs["pixel_values_videos"][video_idx])
        if frames > self.frame_tokens:
            raise ValueError(f"Video-ChatGPT takes {self.frame_tokens} frames at most, not {frames}")
        return PATCH * (self.frame_tokens + self.patches)


def register() -> None:
    """Let transformers' loaders find the classes."""
    AutoConfig.register(VideoChatGptConfig.model_type, VideoChatGptConfig, exist_ok=True)
    AutoModelForImageTextToText.register(VideoChatGptConfig, VideoChatGptForConditionalGeneration, exist_ok=True)
    AutoVideoProcessor.register(VideoChatGptConfig, VideoChatGptVideoProcessor, exist_ok=True)
    AutoProcessor.register(VideoChatGptConfig, VideoChatGptProcessor, exist_ok=True)
