"""Video-ChatGPT 7B: three parts that its authors' code puts together when it starts.

LLaVA-7B-Lightening-v1-1 is a LLaMA with a projector of its own (`model.mm_projector`); the published file
video_chatgpt-7B.bin holds the projector and the input embeddings that were trained on videos, three tokens longer; the
picture encoder is openai/clip-vit-large-patch14. Source: mbzuai-oryx/Video-ChatGPT.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microg.errors import ConfigError
from microg.models.vlm.layouts.convert import Plan, Source, read_config, weight_files

if TYPE_CHECKING:
    from torch import Tensor

_BASE = {
    "model.mm_projector.": "mm_projector.",
    "model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}
_UNUSED_OF_BASE = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
_UNUSED_OF_CLIP = (
    r"text_model\..*",
    r"(text|visual)_projection\.weight",
    "logit_scale",
    r".*\.position_ids",
)
_PARTS = {
    "vision": "the folder of openai/clip-vit-large-patch14",
    "projector": "the file video_chatgpt-7B.bin of MBZUAI/Video-ChatGPT-7B",
}
# Of the output layer its authors' file has no rows for the three new tokens: in training they stood at the mean of the
# others, where their code starts the model for use they are random.
_HEAD = "language_model.lm_head.weight"
_NOT_LLAMA = ("model_type", "architectures", "auto_map", "torch_dtype", "dtype", "vocab_size", "transformers_version")


def plan(folder: Path, parts: Mapping[str, Path]) -> Plan:
    """Return how the three parts become one model. Raises `ConfigError` when one is not given or not there."""
    import torch
    from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig

    from microg.models.vlm.architectures import video_chatgpt as ported

    for name, meaning in _PARTS.items():
        if name not in parts:
            raise ConfigError(f"Video-ChatGPT needs --part {name}=PATH as well", meaning)
        if not parts[name].exists():
            raise ConfigError(f"there is no {parts[name]}", f"--part {name}: {meaning}")
    if unknown := parts.keys() - _PARTS.keys():
        raise ConfigError(f"Video-ChatGPT has no part {', '.join(unknown)}", f"it has {', '.join(_PARTS)}")
    held, seen = read_config(folder / "config.json"), read_config(parts["vision"] / "config.json")
    vision: Any = CLIPVisionConfig(**_without(seen.get("vision_config", seen), ("model_type", "architectures")))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.add_tokens([ported.PATCH], special_tokens=True)
    tokenizer.add_tokens([ported.BEGIN, ported.END], special_tokens=True)
    rows = len(tokenizer)
    llama = {name: value for name, value in _without(held, _NOT_LLAMA).items() if not name.startswith(("mm_", "tune_"))}
    text: Any = LlamaConfig(**llama, vocab_size=rows)
    dtype = held.get("torch_dtype") or held.get("dtype") or "float16"
    patch = tokenizer.convert_tokens_to_ids(ported.PATCH)
    config = ported.VideoChatGptConfig(text_config=text, vision_config=vision, video_token_id=patch, dtype=dtype)
    with torch.device("meta"):
        model = ported.VideoChatGptForConditionalGeneration(config)
    square = {"height": vision.image_size, "width": vision.image_size}
    videos = ported.VideoChatGptVideoProcessor(size=square)
    patches = (vision.image_size // vision.patch_size) ** 2
    processor = ported.VideoChatGptProcessor(
        tokenizer, videos, ported.CHAT_TEMPLATE, frame_tokens=config.frame_tokens, patches=patches
    )

    def change(name: str, tensor: Tensor) -> Tensor:
        """Bring a tensor into one format; the output layer's rows for the new tokens are the others' mean."""
        tensor = tensor.to(config.dtype)
        if name != _HEAD or len(tensor) >= rows:
            return tensor
        return torch.cat([tensor, tensor.mean(0, keepdim=True).expand(rows - len(tensor), -1)])

    learnt = Source(parts["projector"], {**_BASE})
    base = [Source(file, _BASE, _UNUSED_OF_BASE) for file in weight_files(folder)]
    clip = {"vision_model.": "vision_tower."}
    tower = [Source(file, clip, _UNUSED_OF_CLIP) for file in weight_files(parts["vision"])]
    return Plan("video-chatgpt", model, processor, (learnt, *base, *tower), change)


def _without(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
