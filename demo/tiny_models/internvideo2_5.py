"""InternVideo2.5: InternViT, the patches of four frames merged into 64 tokens, an InternLM2.5 with SentencePiece."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

from microg.demo.tiny_models.own_code import OwnCode
from microg.demo.tiny_models.size import Size

# The code merges down to 16 tokens a frame, so a frame needs more: squares of two patches a side.
_PATCH, _LEAST_SIDE = 14, 140
_BASIC = ("<unk>", "<s>", "</s>")
_ADDED = ("<|im_end|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>")


def make(texts: Sequence[str], size: Size, phrases: Sequence[str] = ()) -> OwnCode:
    """Return the parts of a tiny InternVideo2.5; a frame is 16 tokens between two that mark it."""
    pieces = _pieces(texts, size.vocabulary)
    model = "modeling_internvl_chat_hico2.InternVLChatModel"
    side = max(size.side, _LEAST_SIDE)
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": model,
            "AutoModelForCausalLM": model,
        },
        "downsample_ratio": 0.5,
        "force_image_size": side,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "float32",
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "model_type": "internlm2",
            "bias": False,
            "vocab_size": len(pieces[1]) + len(_ADDED) + len(phrases),
            "hidden_size": size.hidden,
            "intermediate_size": 2 * size.hidden,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": size.context,
            "rope_theta": 1000000,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
        },
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_size": size.vision_hidden,
            "image_size": side,
            "intermediate_size": 2 * size.vision_hidden,
            "num_attention_heads": size.vision_heads,
            "num_hidden_layers": size.vision_layers,
            "patch_size": _PATCH,
            "qkv_bias": True,
            "norm_type": "layer_norm",
            "qk_normalization": False,
        },
    }
    settings = _tokenizer_settings(len(pieces[1]), phrases, size.context)
    files = {"tokenizer.model": pieces[0], "tokenizer_config.json": json.dumps(settings, indent=2).encode()}
    return OwnCode("internvideo2_5", config, files=files)


def _pieces(texts: Sequence[str], vocabulary: int) -> tuple[bytes, range]:
    """Return a SentencePiece model with all bytes as pieces, and the numbers of its pieces."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        byte_fallback=True,
        pad_id=-1,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    data = model.getvalue()
    return data, range(sentencepiece.SentencePieceProcessor(model_proto=data).get_piece_size())  # pyright: ignore[reportCallIssue]


def _tokenizer_settings(pieces: int, phrases: Sequence[str], context: int) -> dict[str, object]:
    """Return tokenizer_config.json: which class of the repository reads the pieces, and the tokens beside them."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    tokens = dict(enumerate(_BASIC)) | dict(enumerate((*_ADDED, *phrases), start=pieces))
    return {
        "added_tokens_decoder": {
            str(at): {"content": text, "special": text not in phrases, **plain} for at, text in tokens.items()
        },
        "additional_special_tokens": list(_ADDED),
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "tokenizer_class": "InternLM2Tokenizer",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
