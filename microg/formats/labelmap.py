"""Names of the 50 actions in other people's files: AVA's `label_map.pbtxt` and the labels of annotation tools."""

from __future__ import annotations

import re

from microg import storage
from microg.data import taxonomy
from microg.errors import FormatError

_ITEM = re.compile(r"(?:item|label)\s{0,99}\{([^{}]*)\}")
_NAME = re.compile(r'name:\s*"((?:[^"\\]|\\.)*)"')
_ID = re.compile(r"(?:label_)?id:\s*([0-9]{1,9})(?![0-9])")


def label_map_text() -> str:
    """Return the published `label_map.pbtxt`: 50 items in order of id, without a line end after the last."""
    return "\n\n".join(
        f'item {{\n  name: "{action.name}"\n  id: {action.id}\n  label_type: {action.group}\n}}'
        for action in taxonomy.ACTIONS
    )


def parse_label_map(text: str, where: str) -> dict[int, str]:
    """Return action names by id. Raises `FormatError` when an item lacks its name or id."""
    result = {}
    for number, item in enumerate(_ITEM.findall(text), 1):
        name, action_id = _NAME.search(item), _ID.search(item)
        if name is None or action_id is None:
            raise FormatError(f"{where}: item {number} has no name or no id")
        result[int(action_id[1])] = name[1]
    if not result:
        raise FormatError(f"{where} has no items", "a label map looks like 'item { name: \"stand\" id: 12 }'")
    return result


def check_label_map(path: str) -> list[str]:
    """Compare a label map with the taxonomy and return a note for each difference that changes a label's meaning."""
    found = parse_label_map(storage.read_bytes(path).decode("utf-8", "replace"), path)
    notes = []
    unknown = sorted(set(found) - set(taxonomy.BY_ID))
    if unknown:
        notes.append(f"{path}: ids {unknown} are not among the 50 actions")
    for action_id, name in found.items():
        action = taxonomy.BY_ID.get(action_id)
        if action is not None and action.name != name:
            notes.append(f"{path}: id {action_id} is called {name!r} there and {action.name!r} here")
    return notes


def action_label(action_id: int) -> str:
    """Return how an action is shown to annotators; `parse_action` undoes it.

    >>> action_label(12)
    '12 stand'
    """
    return f"{action_id} {taxonomy.action(action_id).name}"


def parse_action(text: str, where: str) -> int:
    """Return the action id for a label of an annotation tool: `12 stand`, `12` or `stand`.

    Raises `FormatError` for anything else, saying `where` it stands.
    """
    first = text.strip().split(" ", 1)[0]
    if first.isdecimal() and int(first) in taxonomy.BY_ID:
        return int(first)
    by_name = {action.name.casefold(): action.id for action in taxonomy.ACTIONS}
    try:
        return by_name[text.strip().casefold()]
    except KeyError:
        raise FormatError(f"{where}: {text!r} is not one of the 50 actions", "write it as '12 stand' or '12'") from None
