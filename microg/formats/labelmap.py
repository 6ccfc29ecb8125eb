"""Names of actions in other people's files: AVA's `label_map.pbtxt` and the labels of annotation tools."""

from __future__ import annotations

import re

from microg import storage
from microg.data.vocabulary import MICROG_VOCABULARY, OwnAction, Vocabulary
from microg.errors import DatasetError, FormatError

_ITEM = re.compile(r"(?:item|label)\s{0,99}\{([^{}]*)\}")
_NAME = re.compile(r'name:\s*"((?:[^"\\]|\\.)*)"')
_ID = re.compile(r"(?:label_)?id:\s*([0-9]{1,9})(?![0-9])")
_ESCAPED = re.compile(r"\\([0-7]{3}|.)")
_UNWRITTEN = re.compile(r"[\\\"{}]")


def label_map_text(vocabulary: Vocabulary = MICROG_VOCABULARY) -> str:
    """Return a `label_map.pbtxt`: an item an action in order of id, without a line end after the last.

    Of MicroG-4M's actions it is the published file.
    """
    return "\n\n".join(map(_item, vocabulary.actions))


def _item(action: OwnAction) -> str:
    name = _UNWRITTEN.sub(lambda found: f"\\{ord(found[0]):03o}", action.name)
    kind = re.sub(r"[^A-Z0-9]+", "_", action.group.upper()).strip("_")  # a name of protobuf's kind
    lines = [f'  name: "{name}"', f"  id: {action.id}", *([f"  label_type: {kind}"] if kind else [])]
    return "\n".join(["item {", *lines, "}"])


def parse_label_map(text: str, where: str) -> dict[int, str]:
    """Return action names by id. Raises `FormatError` when an item lacks its name or id."""
    result = {}
    for number, item in enumerate(_ITEM.findall(text), 1):
        name, action_id = _NAME.search(item), _ID.search(_NAME.sub("", item))
        if name is None or action_id is None:
            raise FormatError(f"{where}: item {number} has no name or no id")
        result[int(action_id[1])] = _ESCAPED.sub(
            lambda found: chr(int(found[1], 8)) if len(found[1]) == 3 else found[1], name[1]
        )
    if not result:
        raise FormatError(f"{where} has no items", "a label map looks like 'item { name: \"stand\" id: 12 }'")
    return result


def check_label_map(path: str, vocabulary: Vocabulary = MICROG_VOCABULARY) -> list[str]:
    """Compare a label map with a vocabulary and return a note for each difference that changes a label's meaning.

    Raises `FormatError` for an id of another name where the vocabulary is not MicroG-4M's: labels of such files are ids
    alone, and nothing else tells that they are of another vocabulary.
    """
    found = parse_label_map(storage.read_bytes(path).decode("utf-8", "replace"), path)
    notes = []
    unknown = sorted(set(found) - set(vocabulary.by_id))
    if unknown:
        number = len(vocabulary.actions)
        notes.append(f"{path}: ids {unknown} are not among the {number} actions")
    for action_id, name in found.items():
        action = vocabulary.by_id.get(action_id)
        if action is not None and action.name != name:
            notes.append(f"{path}: id {action_id} is called {name!r} there and {action.name!r} here")
            if vocabulary.name != MICROG_VOCABULARY.name:
                raise FormatError(notes[-1], "give the vocabulary that it was written with to --vocabulary")
    return notes


def parse_action(text: str, where: str, vocabulary: Vocabulary = MICROG_VOCABULARY) -> int:
    """Return the action id for a label of an annotation tool: `12 stand`, `12` or `stand`.

    Raises `FormatError` for anything else, saying `where` it stands.
    """
    try:
        return vocabulary.parse(text)
    except DatasetError as error:
        own = "actions of your own: --vocabulary FILE.yaml, or 'microg data vocabulary' for a dataset that is there"
        raise FormatError(f"{where}: {error.what}", f"{error.fix}; {own}") from None
