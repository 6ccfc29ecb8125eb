"""Video-ChatGPT as its authors have it: a LLaVA of two torch files, CLIP, and the file that was trained on videos.

The tokenizer is a SentencePiece model, as LLaMA's is; the CLIP folder has the text half that nobody uses here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from microg.demo.tiny_models.published import write_json
from microg.demo.tiny_models.save import language_model_sizes
from microg.demo.tiny_models.size import Size

BASE, VISION, PROJECTOR = "LLaVA-7B-Lightening-v1-1", "clip-vit-large-patch14", "video_chatgpt-7B.bin"
_TEXTS = (
    "An astronaut floats through the module and reaches for a handrail.",
    "Two astronauts in blue shirts drift beside the hatch, one of them upside down.",
    "Describe the video in one or two sentences. How many people are there? Yes or no.",
)
_PATCH, _NEW_TOKENS = 14, 3


def write(folder: Path, seed: int, **changes: Any) -> None:
    """Write the three parts to `folder`."""
    import torch
    from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM

    size = Size(**changes)
    base, vision = folder / BASE, folder / VISION
    base.mkdir()
    rows = _write_tokenizer(base, size)
    llama: Any = LlamaConfig(**language_model_sizes(size), vocab_size=rows, initializer_range=size.spread or 0.02)
    towers: Any = CLIPConfig(vision_config=_vision(size), text_config=_text(size), projection_dim=size.vision_hidden)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language, clip = LlamaForCausalLM(llama), CLIPModel(towers)
        projector = torch.nn.Linear(size.vision_hidden, size.hidden)
        new_rows = torch.randn(_NEW_TOKENS, size.hidden) * llama.initializer_range
    clip.save_pretrained(vision)
    write_json(vision / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", "size": size.side})
    # only what is printable is said, so that nobody's screen suffers from noise
    head = language.lm_head.weight.detach()
    head[: _first_readable(base)] = 0.0
    held = language.state_dict()
    trained = {
        "model.embed_tokens.weight": torch.cat([held["model.embed_tokens.weight"], new_rows]),
        **{f"model.mm_projector.{name}": tensor.half() for name, tensor in projector.state_dict().items()},
    }
    torch.save({name: tensor.half() for name, tensor in trained.items()}, folder / PROJECTOR)
    held |= {f"model.mm_projector.{name}": torch.zeros_like(value) for name, value in projector.state_dict().items()}
    for layer in range(size.layers):
        held[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(size.hidden // size.heads // 2)
    files = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    index = {name: files[".layers." in name] for name in held}
    for file in files:
        torch.save({name: tensor.half() for name, tensor in held.items() if index[name] == file}, base / file)
    write_json(base / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": index})
    write_json(base / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    write_json(base / "config.json", _config(llama.to_dict(), size))


def _config(llama: dict[str, Any], size: Size) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    more = ("max_position_embeddings", "rms_norm_eps", "initializer_range", "hidden_act", "vocab_size")
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        **{name: llama[name] for name in (*names, *more)},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "mm_hidden_size": size.vision_hidden,
        "mm_use_im_start_end": True,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.28.0.dev0",
    }


def _vision(size: Size) -> dict[str, Any]:
    return {
        "hidden_size": size.vision_hidden,
        "intermediate_size": 2 * size.vision_hidden,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
        "image_size": size.side,
        "patch_size": _PATCH,
        "initializer_factor": 4.0 if size.spread else 1.0,
    }


def _text(size: Size) -> dict[str, Any]:
    width = size.vision_hidden
    return {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 1} | {
        "vocab_size": 99,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _write_tokenizer(folder: Path, size: Size) -> int:
    """Write a SentencePiece model as LLaMA has it and return how many tokens it has."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS),
        model_writer=model,
        vocab_size=size.vocabulary,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "model_max_length": size.context,
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
        },
    )
    return _pieces(folder).GetPieceSize()


def _pieces(folder: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def _first_readable(folder: Path) -> int:
    """Return the first token that is no control token and no single byte; those come before."""
    pieces = _pieces(folder)
    count = pieces.GetPieceSize()
    return next(at for at in range(count) if not (pieces.IsControl(at) or pieces.IsByte(at) or pieces.IsUnknown(at)))
