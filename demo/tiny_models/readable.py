"""What a tiny model may say."""

from __future__ import annotations

from typing import Any


def is_readable(tokenizer: Any, token: int) -> bool:
    """Return whether a token may be said: printable ASCII, which leaves out special tokens, padding and part bytes."""
    if token >= len(tokenizer) or token in tokenizer.all_special_ids or token in tokenizer.added_tokens_decoder:
        return False
    text = tokenizer.decode([token])
    return text.isascii() and text.isprintable()
