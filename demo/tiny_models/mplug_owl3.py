"""mPLUG-Owl3: SigLIP on squares of 384 pixels, as its processor makes them, and a Qwen2 that looks at them."""

from __future__ import annotations

from collections.abc import Sequence

from microg.demo.tiny_models.own_code import OwnCode
from microg.demo.tiny_models.save import language_model
from microg.demo.tiny_models.size import Size
from microg.demo.tiny_models.tokenizer import train

_IMAGE = "<|image|>"


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> OwnCode:
    """Return the parts of a tiny mPLUG-Owl3; a frame is one token in the text and 729 patches beside it."""
    tokenizer = train(texts, [_IMAGE], size.vocabulary, size.context, phrases=phrases)
    model = "modeling_mplugowl3.mPLUGOwl3Model"
    text = language_model("mplugowl3", tokenizer, size)
    del text["pad_token_id"]  # as the published file
    config = {
        **text,
        "architectures": ["mPLUGOwl3Model"],
        "auto_map": {
            "AutoConfig": "configuration_mplugowl3.mPLUGOwl3Config",
            "AutoModel": model,
            "AutoModelForCausalLM": model,
        },
        "hidden_act": "silu",
        "hyper_layers": [1, size.layers],
        "rope_theta": 1000000.0,
        "torch_dtype": "float32",
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": size.vision_hidden,
            "image_size": 384,
            "intermediate_size": 2 * size.vision_hidden,
            "num_attention_heads": size.vision_heads,
            "num_hidden_layers": size.vision_layers,
            "patch_size": 14,
        },
    }
    return OwnCode("mplug_owl3", config, tokenizer)
