"""Tarsier2 as omni-research published it: Qwen2-VL's parts under LLaVA's names, in several files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from microg.demo.tiny_models import build
from microg.demo.tiny_models.published import write_json


def write(folder: Path, seed: int, **changes: Any) -> None:
    """Write config.json, two files of weights with their index, tokenizer and processor to `folder`."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        native = build("qwen2_vl", Path(scratch) / "native", seed=seed, **changes)
        config = json.loads((native / "config.json").read_text())
        processor = json.loads((native / "processor_config.json").read_text())
        weights = load_file(native / "model.safetensors")
        tokenizer = AutoTokenizer.from_pretrained(native)
        tokenizer.chat_template = None
        tokenizer.save_pretrained(folder)
    towers = {}
    for name, tensor in weights.items():
        seen = name.startswith("visual.")
        towers[f"vision_tower.{name.removeprefix('visual.')}" if seen else f"language_model.{name}"] = tensor
    files = {"vision_tower": "model-00001-of-00002.safetensors", "language_model": "model-00002-of-00002.safetensors"}
    index = {name: files[name.partition(".")[0]] for name in towers}
    for file in files.values():
        held = {name: tensor for name, tensor in towers.items() if index[name] == file}
        save_file(held, folder / file, metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in towers.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})
    write_json(folder / "config.json", _config(config))
    write_json(folder / "preprocessor_config.json", _pictures(processor["image_processor"]))
    named = {"processor_class": "TarsierProcessor", "image_token": "<|image_pad|>", "merge_size": 2}
    write_json(folder / "processor_config.json", {**named, "patch_size": 14, "temporal_patch_size": 2})


def _config(native: dict[str, Any]) -> dict[str, Any]:
    """Return a config.json in the form of transformers 4: the language model's settings beside each other."""
    text, vision = dict(native["text_config"]), dict(native["vision_config"])
    rope = text.pop("rope_parameters")
    flat = {
        **{name: value for name, value in text.items() if name != "layer_types"},
        "model_type": "qwen2_vl",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        **{name: native[name] for name in native if name.endswith("_token_id")},
        "torch_dtype": "float32",
    }
    return {
        "architectures": ["TarsierForConditionalGeneration"],
        "model_type": "llava",
        "projection_head": None,
        "image_token_index": native["image_token_id"],
        "image_newline_idx": native["vision_start_token_id"],
        "image_new_idx": native["vision_end_token_id"],
        "text_config": flat,
        "vision_config": {**vision, "model_type": "qwen2_vl"},
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.46.3",
    }


def _pictures(native: dict[str, Any]) -> dict[str, Any]:
    size = native["size"]
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": size["shortest_edge"],
        "max_pixels": size["longest_edge"],
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
