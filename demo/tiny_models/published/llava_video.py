"""LLaVA-Video as lmms-lab published it: Qwen2's config.json with settings mm_*, SigLIP inside the weights."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from microg.demo.tiny_models import build
from microg.demo.tiny_models.published import write_json

# Of SigLIP so400m, whose number of heads no file of a checkpoint tells.
_HEADS = 16
_SPARE_ROWS = 4
_NAMES = {
    r"^language_model\.lm_head": "lm_head",
    r"^language_model\.model": "model",
    r"^vision_tower": "model.vision_tower.vision_tower",
    r"^multi_modal_projector\.linear_1": "model.mm_projector.0",
    r"^multi_modal_projector\.linear_2": "model.mm_projector.2",
    r"^image_newline": "model.image_newline",
}


def write(folder: Path, seed: int, **changes: Any) -> None:
    """Write config.json, two files of weights with their index, and the tokenizer to `folder`."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    size = {"vision_heads": _HEADS, "vision_hidden": 8 * _HEADS, **changes}
    with tempfile.TemporaryDirectory() as scratch:
        native = build("llava_onevision", Path(scratch) / "native", seed=seed, **size)
        config = json.loads((native / "config.json").read_text())
        weights = load_file(native / "model.safetensors")
        written = json.loads((native / "tokenizer.json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(native)
        tokenizer.chat_template = None
        tokenizer.save_pretrained(folder)
    # the published tokenizer knows nothing of the placeholders, and the embeddings have rows to spare
    placeholders = [token for token in written["added_tokens"] if token["content"] in ("<image>", "<video>")]
    written["added_tokens"] = [token for token in written["added_tokens"] if token not in placeholders]
    write_json(folder / "tokenizer.json", written)
    renamed = {}
    for name, tensor in weights.items():
        found = next((re.sub(old, new, name) for old, new in _NAMES.items() if re.match(old, name)), name)
        if found.endswith(("embed_tokens.weight", "lm_head.weight")):
            tensor = torch.cat([tensor, torch.zeros(_SPARE_ROWS, tensor.shape[1])])
        renamed[found] = tensor
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {name: files["vision_tower" in name] for name in renamed}
    for file in files:
        save_file({name: tensor for name, tensor in renamed.items() if index[name] == file}, folder / file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    write_json(folder / "config.json", _config(config))


def _config(native: dict[str, Any]) -> dict[str, Any]:
    text, side = native["text_config"], native["vision_config"]["image_size"]
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    more = ("max_position_embeddings", "rms_norm_eps", "initializer_range", "hidden_act", "eos_token_id")
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        **{name: text[name] for name in (*names, *more)},
        "pad_token_id": text["pad_token_id"],
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "vocab_size": text["vocab_size"] + _SPARE_ROWS,
        "image_aspect_ratio": "anyres_max_9",
        "mm_hidden_size": native["vision_config"]["hidden_size"],
        "mm_newline_position": "grid",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_spatial_pool_mode": "bilinear",
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"google/siglip-so400m-patch14-{side}",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_mm_proj": True,
        "transformers_version": "4.40.0.dev0",
    }
