"""LLaVA-Video-7B-Qwen2 and its kin: Qwen2 and SigLIP under the names of the LLaVA-NeXT repository.

Its config.json names model type `llava_qwen` and is Qwen2's with settings `mm_*`; the picture encoder's own are those
of the SigLIP that `mm_vision_tower` names, without its last layer. Source: LLaVA-VL/LLaVA-NeXT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from microg.errors import ConfigError
from microg.models.vlm.layouts.chatml import chat_template
from microg.models.vlm.layouts.convert import Plan, Source, opened, read_config, weight_files

_TOWER = "model.vision_tower.vision_tower.vision_model."
_RENAME = {
    _TOWER: "model.vision_tower.",
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.image_newline": "model.image_newline",
    "model.": "model.language_model.",
    "lm_head.": "lm_head.",
}
_IMAGE, _VIDEO = "<image>", "<video>"
# SigLIP so400m; all its other sizes are told by the tensors.
_HEADS = 16
_HALF = [0.5, 0.5, 0.5]


def plan(folder: Path, parts: Mapping[str, Path]) -> Plan:
    """Return how a LLaVA-Video becomes a model of transformers. Raises `ConfigError` for another LLaVA on Qwen2."""
    import torch
    from transformers import AutoTokenizer, LlavaOnevisionImageProcessor, LlavaOnevisionVideoProcessor, Qwen2Config

    from microg.models.vlm.architectures import llava_video as ported

    if parts:
        raise ConfigError(f"LLaVA-Video has no parts besides its folder: {', '.join(parts)}")
    held = read_config(folder / "config.json")
    _check(held, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.add_tokens([_IMAGE, _VIDEO], special_tokens=True)
    image, video = tokenizer.convert_tokens_to_ids([_IMAGE, _VIDEO])
    if max(image, video) >= held.get("vocab_size", 0):
        raise ConfigError(f"the model in {folder} has no embeddings to spare for {_IMAGE} and {_VIDEO}")
    left_out = ("model_type", "architectures", "auto_map", "torch_dtype", "dtype", "image_token_index")
    qwen = {name: value for name, value in held.items() if name not in left_out and not name.startswith("mm_")}
    files = weight_files(folder)
    mode = held.get("mm_spatial_pool_mode", "bilinear")
    config: Any = ported.LlavaVideoConfig(
        text_config=Qwen2Config(**qwen),
        vision_config=_vision(held, files),
        image_token_index=image,
        video_token_index=video,
        spatial_pool_mode=mode,
        tie_word_embeddings=bool(held.get("tie_word_embeddings", False)),
        dtype=held.get("torch_dtype") or held.get("dtype") or "bfloat16",
    )
    with torch.device("meta"):
        model = ported.LlavaVideoForConditionalGeneration(config)
    side = config.vision_config.image_size
    resize: dict[str, Any] = {"size": {"height": side, "width": side}, "image_mean": _HALF, "image_std": _HALF}
    processor = ported.LlavaVideoProcessor(
        LlavaOnevisionImageProcessor(**resize),
        tokenizer,
        LlavaOnevisionVideoProcessor(**resize),
        num_image_tokens=(side // config.vision_config.patch_size) ** 2,
        vision_feature_select_strategy="full",
        spatial_pool_mode=mode,
        chat_template=chat_template(f"{_IMAGE}\\n", f"{_VIDEO}\\n"),
    )
    return Plan("llava-video-7b", model, processor, tuple(Source(file, _RENAME) for file in files))


def _check(held: Mapping[str, Any], folder: Path) -> None:
    """Refuse what computes otherwise than the model here."""
    from microg.models.vlm.architectures.llava_video import Pooling

    wanted = {
        "mm_newline_position": ("grid",),
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_spatial_pool_mode": (*get_args(Pooling), None),
        "mm_vision_select_layer": (-2, None),
        "add_faster_video": (False, None),
    }
    for name, known in wanted.items():
        if held.get(name) not in known:
            raise ConfigError(
                f"{folder} is no LLaVA-Video as it is known here: {name} is {held.get(name)!r} instead of {known[0]!r}",
                "LLaVA-OneVision and LLaVA-NeXT-Interleave are on the hub in transformers' layout: llava-hf",
            )


def _vision(held: Mapping[str, Any], files: list[Path]) -> dict[str, Any]:
    """Return SigLIP's configuration, from its name and the shapes of its tensors."""
    named = re.search(r"siglip-so400m-patch(\d+)-(\d+)$", str(held.get("mm_vision_tower")))
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with opened(file) as tensors:
            shapes |= {name: tuple(tensors[name].shape) for name in tensors if name.startswith(_TOWER)}
    patches = shapes.get(f"{_TOWER}embeddings.patch_embedding.weight")
    inner = shapes.get(f"{_TOWER}encoder.layers.0.mlp.fc1.weight")
    if named is None or patches is None or inner is None:
        raise ConfigError(
            f"the picture encoder {held.get('mm_vision_tower')} is not SigLIP so400m, or its weights are missing",
            "LLaVA-Video's own files hold them",
        )
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": patches[0],
        "intermediate_size": inner[0],
        "num_hidden_layers": len({name.split(".layers.")[1].split(".")[0] for name in shapes if ".layers." in name}),
        "num_attention_heads": _HEADS,
        "patch_size": int(named[1]),
        "image_size": int(named[2]),
        "vision_use_head": False,
    }
