"""The chat of Qwen's models: roles between marks, and a system prompt where none is given."""

from __future__ import annotations

_CHAT = """{%- if messages[0]['role'] != 'system' -%}
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] -%}
{%- if part['type'] == 'text' %}{{ part['text'] }}
{%- elif part['type'] == 'image' %}{{ 'IMAGE' }}
{%- elif part['type'] == 'video' %}{{ 'VIDEO' }}{% endif -%}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""


def chat_template(image: str, video: str) -> str:
    """Return the template, which writes `image` or `video` where a message shows one."""
    return _CHAT.replace("IMAGE", image).replace("VIDEO", video)
