"""The conversation's template: ChatML with a system message of the model's own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass
class Conversation:
    """Messages and how they are written; `None` is what is still to be said."""

    name: str
    system_message: str
    sep: str = "<|im_end|>\n"
    roles: tuple[str, str] = ("<|im_start|>user\n", "<|im_start|>assistant\n")
    messages: list[tuple[str, str | None]] = field(default_factory=list)

    def append_message(self, role: str, message: str | None) -> None:
        self.messages.append((role, message))

    def get_prompt(self) -> str:
        turns = (role + (f"{message}{self.sep}" if message else "") for role, message in self.messages)
        return f"<|im_start|>system\n{self.system_message}{self.sep}" + "".join(turns)


_TEMPLATES = {"internvl2_5": Conversation("internvl2_5", "You are a tiny stand-in for InternVideo2.5.")}


def get_conv_template(name: str) -> Conversation:
    """Return a new conversation."""
    return replace(_TEMPLATES[name], messages=[])
