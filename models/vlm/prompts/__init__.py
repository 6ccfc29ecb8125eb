"""Prompts: versioned files with ids, rendered by a pure function.

One YAML file a prompt, named by its id. A released prompt never changes, not by a space: its hash is written beside
every answer and listed in a test; a better wording is a new file with the next version.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from microg.config import Config
from microg.errors import ConfigError
from microg.escaping import well_formed
from microg.models.vlm.base import Frames, Request
from microg.texts.items import Task

# What annotators wrote where a clip does not tell; about 7% of the published answers.
UNANSWERABLE = "Not mentioned."


class Prompt(Config):
    """What a model is asked."""

    id: str = Field(
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*-v[1-9][0-9]*$", description="Name of the prompt with its version."
    )
    task: Task | Literal["text"] = Field(description="What the prompt asks for; text is about no clip.")
    about: str = Field(description="What the prompt does, for people; it does not count in the hash.")
    system: str = Field(default="", description="System message.")
    user: str = Field(description="User's message, in which `{name}` is replaced by the field of that name.")
    fields: tuple[str, ...] = Field(default=(), description="Names of the fields that a caller must give.")
    json_schema: dict[str, Any] | None = Field(default=None, description="Shape of a structured answer.")
    answer_field: str | None = Field(
        default=None, description="Field of the structured answer that is the text to score."
    )

    @model_validator(mode="after")
    def _fields_are_in_the_text(self) -> Prompt:
        missing = [name for name in self.fields if f"{{{name}}}" not in self.user]
        if missing:
            raise ValueError(f"user has no place for {missing}")
        if self.answer_field is not None and self.answer_field not in (self.json_schema or {}).get("properties", {}):
            raise ValueError(f"json_schema has no property {self.answer_field!r}")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of everything that reaches the model or decides how its answer is read; 16 hexadecimal digits."""
        decides = self.model_dump(mode="json", exclude={"about"})
        text = json.dumps(decides, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def render(self, **fields: str) -> str:
        """Return the user's message. Raises `ConfigError` when a field is missing or not of this prompt.

        What is filled in is never read as a template: a question may hold braces.

        >>> prompt("vqa-v1").render(question="Is {it} open?").endswith("Question: Is {it} open?")
        True
        """
        if set(fields) != set(self.fields):
            raise ConfigError(f"prompt {self.id} takes the fields {list(self.fields)}, not {sorted(fields)}")
        parts, rest = [], self.user
        while rest:
            places = [(rest.find(f"{{{name}}}"), name) for name in fields]
            at, name = min((place for place in places if place[0] >= 0), default=(-1, ""))
            if at < 0:
                break
            parts += [rest[:at], fields[name]]
            rest = rest[at + len(name) + 2 :]
        return "".join([*parts, rest])

    def request(self, key: str, frames: Frames | None = None, **fields: str) -> Request:
        """Return what an engine is asked; `key` names it for the caller."""
        return Request(key, self.render(**fields), self.system, frames)

    def read(self, text: str) -> str:
        """Return the answer in a model's reply: the reply without surrounding space, or its `answer_field`.

        An answer that says it is not answerable becomes `UNANSWERABLE`. Raises `ValueError` when a structured reply
        is not of the shape asked for.
        """
        if self.json_schema is None:
            return text.strip()
        value = read_json(text)
        problem = _misfit(value, self.json_schema)
        if problem:
            raise ValueError(f"the reply is not of the shape asked for: {problem}")
        if self.answer_field is None:
            return well_formed(json.dumps(value, ensure_ascii=False))
        if value.get("answerable") is False:
            return UNANSWERABLE
        return well_formed(str(value[self.answer_field])).strip()


def read_json(text: str) -> Any:
    """Return the JSON value in a reply, also where a model put it into a Markdown fence. Raises `ValueError`."""
    stripped = text.strip()
    if stripped.startswith("```"):
        stripped = stripped.partition("\n")[2].rpartition("```")[0]
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or error
        raise ValueError(f"the reply is not JSON ({reason}): {stripped[:80]!r}") from None


def names() -> list[str]:
    """Return the ids of all prompts."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@cache
def prompt(name: str) -> Prompt:
    """Return the prompt with this id. Raises `ConfigError` that lists those there are."""
    if name not in names():
        raise ConfigError(f"there is no prompt {name!r}", f"prompts: {', '.join(names())}")
    return parse(name, resources.files(__name__).joinpath(f"{name}.yaml").read_text("utf-8"))


def parse(name: str, text: str) -> Prompt:
    """Read a prompt file called `name`. Raises `ConfigError` when it is not one, or its id is not its name."""
    try:
        result = Prompt.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"prompt {name} is not valid: {error}") from None
    if result.id != name:
        raise ConfigError(f"the file {name}.yaml holds the prompt {result.id}")
    return result


def _misfit(value: Any, shape: dict[str, Any]) -> str | None:
    """Return why `value` is not of a JSON schema, or None."""
    import jsonschema  # lazily: most prompts need it never

    first = next(iter(jsonschema.Draft202012Validator(shape).iter_errors(value)), None)
    return None if first is None else f"{first.message[:200]} at {first.json_path}"
