"""The tokenizer of the tiny models: byte-level BPE learnt from a few texts, so that nothing is out of vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML, as Qwen's and InternVL's checkpoints have it, less the system prompt that they put where none is given.
_CHAT = """{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] -%}
{%- if part['type'] == 'text' %}{{ part['text'] }}
{%- elif part['type'] == 'image' %}IMAGE
{%- elif part['type'] == 'video' %}VIDEO{% endif -%}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""


def chat_template(image: str, video: str) -> str:
    """Return a chat template that writes `image` and `video` where a message shows one."""
    return _CHAT.replace("IMAGE", image).replace("VIDEO", video)


def train(
    texts: Sequence[str],
    special: Sequence[str],
    vocabulary: int,
    context: int,
    names: Mapping[str, str] | None = None,
    phrases: Sequence[str] = (),
) -> Any:
    """Return a `PreTrainedTokenizerFast`: learnt tokens first, then PAD, START, END and `special`.

    vocabulary: learnt tokens at most, the 256 bytes included. names: attribute -> special token, as in `image_token`.
    phrases: what becomes one token each, after the special ones.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=sorted(alphabet), show_progress=False)  # pyright: ignore[reportCallIssue]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([PAD, START, END, *special])
    tokenizer.add_tokens(list(phrases))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=context,
        padding_side="left",
        extra_special_tokens=dict(names or {}),
        clean_up_tokenization_spaces=False,
    )
