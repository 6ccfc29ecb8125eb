"""The vocabulary of a dataset: which actions its people are labelled with, and what became of them.

`dataset.json` holds it under `vocabulary`; a dataset without one uses MicroG-4M's 50 actions. Actions are renamed,
merged and split with a written trace, so that labels given before keep a meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

from microg.data.label_space import AVA_80_SPACE, JHMDB_21_SPACE, LABEL_SPACES, MICROG_50, LabelSpace, label_space
from microg.data.taxonomy import AVA_80, TO_AVA_80, TO_JHMDB_21, group_name
from microg.errors import DatasetError

Change = Literal["set", "rename", "merge", "split", "map"]
# Other sets of actions that an action may have a counterpart in.
COUNTERPARTS: dict[str, LabelSpace] = {space.name: space for space in (MICROG_50, AVA_80_SPACE, JHMDB_21_SPACE)}
_MAX_ID, _MAX_ACTIONS, _MAX_TEXT = 9_999, 1_000, 2_000


@dataclass(frozen=True, kw_only=True)
class OwnAction:
    """An action of a dataset's vocabulary.

    Attributes:
        id: Its number, from 1; never given to another action.
        name: What people call it.
        group: Group that reports put it in.
        definition: What counts as this action.
        note: How it differs from the actions it is confused with.
        counterparts: Its id in other sets of actions (`microg50`, `ava80`, `jhmdb21`), where there is one.
    """

    id: int
    name: str
    group: str = ""
    definition: str = ""
    note: str = ""
    counterparts: Mapping[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How annotators see it: `12 stand`."""
        return f"{self.id} {self.name}"

    @property
    def group_name(self) -> str:
        """How people read the name of its group, "" where it has none."""
        return group_name(self.group)

    @property
    def help(self) -> str:
        """What annotators are told of it: its definition and how it differs from others, "" where nobody said so."""
        return " ".join(text for text in (self.definition, self.note) if text)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One change of a vocabulary.

    Attributes:
        change: What was done.
        before: The ids that it was done to.
        after: The ids that stand for them now.
        note: What changed, in words.
        time: When, as ISO 8601 in UTC.
    """

    change: Change
    before: tuple[int, ...]
    after: tuple[int, ...]
    note: str
    time: str


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of actions with the trace of its changes.

    Attributes:
        name: What people call it.
        actions: The actions in use, by rising id.
        history: What was changed, oldest first.
        origin: Digest of the actions it began with; renaming keeps it.
    """

    name: str
    actions: tuple[OwnAction, ...]
    history: tuple[Trace, ...] = ()
    origin: str = ""

    @cached_property
    def by_id(self) -> dict[int, OwnAction]:
        """The actions in use by id."""
        return {action.id: action for action in self.actions}

    @property
    def published(self) -> bool:
        """Whether it is a published set of actions, which everybody knows by its name."""
        return self.name in LABEL_SPACES

    @property
    def document(self) -> dict[str, Any] | None:
        """What stands beside the label space's name wherever that is stored; None for a published set."""
        return None if self.published else self.to_dict()

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups of its actions, in the order of the actions; "" where some have none."""
        return tuple(dict.fromkeys(action.group for action in self.actions))

    @cached_property
    def space(self) -> LabelSpace:
        """The label space that scores of a model of this vocabulary are given in.

        Its name tells vocabularies of one name apart, and versions with other actions; renaming keeps it.
        """
        if self.name in LABEL_SPACES:
            return LABEL_SPACES[self.name]
        digest = hashlib.sha256(json.dumps([self.origin, [action.id for action in self.actions]]).encode())
        return LabelSpace(
            f"{self.name}@{digest.hexdigest()[:8]}",
            tuple(action.id for action in self.actions),
            {action.id: action.name for action in self.actions},
            {
                action.id: action.counterparts[MICROG_50.name]
                for action in self.actions
                if MICROG_50.name in action.counterparts
            },
            {action.id: action.group for action in self.actions if action.group},
        )

    @cached_property
    def replaced(self) -> dict[int, tuple[int, ...]]:
        """For each id that is no longer in use, the ids in use that stand for it: one after a merge.

        After a split several do, and which one is a decision that people take.
        """
        result: dict[int, tuple[int, ...]] = {}
        for trace in self.history:
            if trace.change not in ("merge", "split"):
                continue
            for old, new in result.items():
                if set(new) & set(trace.before):
                    result[old] = tuple(
                        dict.fromkeys(i for n in new for i in (trace.after if n in trace.before else (n,)))
                    )
            result |= {old: trace.after for old in trace.before if old not in trace.after}
        return result

    def in_use(self, action_id: int) -> int | None:
        """Return the id in use that a label given at any time means, None where people have to decide it.

        Raises:
            DatasetError: It never was an action of this vocabulary.
        """
        if action_id in self.by_id:
            return action_id
        after = self.replaced.get(action_id)
        if after is None:
            raise DatasetError(
                f"action id {action_id} is not in the vocabulary {self.name!r}",
                "'microg data vocabulary show' lists it",
            )
        return after[0] if len(after) == 1 else None

    def parse(self, text: str) -> int:
        """Return the id in use for what an annotator wrote: `12 stand`, `12` or `stand` in any case.

        A number may be one that an action had before it was merged into another.

        Raises:
            DatasetError: It is none of the actions, an action that was split, or number and name are of two actions.
        """
        plain = text.strip()
        first, _, rest = plain.partition(" ")
        by_name = {action.name.casefold(): action.id for action in self.actions}
        number = int(first) if first.isdecimal() and len(first) < 10 else 0
        if number in self.by_id or number in self.replaced:
            meant = self.in_use(number)
            if meant is None:
                after = ", ".join(self.by_id[each].label for each in self.replaced[number] if each in self.by_id)
                raise DatasetError(f"{plain!r} was split in vocabulary {self.name!r}", f"say which it is: {after}")
            if by_name.get(rest.strip().casefold(), meant) != meant:
                raise DatasetError(
                    f"{plain!r} has the number of {self.by_id[meant].label!r} in vocabulary {self.name!r}",
                    "was it labelled with another vocabulary?",
                )
            return meant
        if plain.casefold() in by_name:
            return by_name[plain.casefold()]
        example = self.actions[0]
        raise DatasetError(
            f"{plain!r} is not one of the {len(self.actions)} actions of vocabulary {self.name!r}",
            f"write it as {example.label!r} or '{example.id}'; 'microg data vocabulary show' lists them",
        )

    def chosen(self, source: str, time: str) -> Vocabulary:
        """Record that a dataset took it."""
        note = f"{len(self.actions)} actions, taken from {source}"
        return replace(self, history=(*self.history, Trace(change="set", before=(), after=(), note=note, time=time)))

    def renamed(self, action_id: int, name: str, time: str) -> Vocabulary:
        """Give an action another name."""
        action = self.action(action_id)
        changed = tuple(replace(each, name=name) if each.id == action_id else each for each in self.actions)
        note = f"{action.label} is now called {name}"
        return self._changed(
            changed, Trace(change="rename", before=(action_id,), after=(action_id,), note=note, time=time)
        )

    def merged(self, ids: Iterable[int], into: int, time: str) -> Vocabulary:
        """Let the action `into` stand for the actions `ids`."""
        gone = tuple(dict.fromkeys(action_id for action_id in ids if action_id != into))
        if not gone:
            raise DatasetError("nothing to merge", "name at least one other action")
        target = self.action(into)
        names = ", ".join(self.action(action_id).label for action_id in gone)
        kept = tuple(each for each in self.actions if each.id not in gone)
        note = f"{names}: now {target.label}"
        return self._changed(kept, Trace(change="merge", before=gone, after=(into,), note=note, time=time))

    def split(self, action_id: int, names: Iterable[str], time: str) -> Vocabulary:
        """Replace an action by several new ones of its group, with new ids; its labels wait for people's decision."""
        action = self.action(action_id)
        first = max([*(each.id for each in self.actions), *self.replaced]) + 1
        made = tuple(
            replace(action, id=first + number, name=name, definition="", note="") for number, name in enumerate(names)
        )
        if len(made) < 2:
            raise DatasetError(f"{action.label} is split into one action", "name two or more, or rename it")
        rest = tuple(each for each in self.actions if each.id != action_id)
        note = f"{action.label}: now one of {', '.join(each.label for each in made)}"
        after = tuple(each.id for each in made)
        trace = Trace(change="split", before=(action_id,), after=after, note=note, time=time)
        return self._changed((*rest, *made), trace)

    def mapped(self, action_id: int, space: str, other: int | None, time: str) -> Vocabulary:
        """Say which action of another set is the counterpart of one of ours; None says that there is none."""
        action = self.action(action_id)
        counterparts = {name: number for name, number in action.counterparts.items() if name != space}
        if other is not None:
            counterparts[space] = other
        changed = tuple(
            replace(each, counterparts=counterparts) if each.id == action_id else each for each in self.actions
        )
        known = COUNTERPARTS.get(space)
        name = "none" if other is None else known.names.get(other, other) if known else other
        note = f"{action.label}: its counterpart in {space} is {name}"
        return self._changed(
            changed, Trace(change="map", before=(action_id,), after=(action_id,), note=note, time=time)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values as `dataset.json` holds them."""
        return {
            "name": self.name,
            "origin": self.origin,
            "actions": [{key: value for key, value in asdict(action).items() if value} for action in self.actions],
            "history": [
                {**asdict(trace), "before": list(trace.before), "after": list(trace.after)} for trace in self.history
            ],
        }

    def action(self, action_id: int) -> OwnAction:
        """Return the action in use that has this id.

        Raises:
            DatasetError: None has.
        """
        if action_id not in self.by_id:
            raise DatasetError(
                f"action id {action_id} is not in use in the vocabulary {self.name!r}",
                "'microg data vocabulary show' lists its actions",
            )
        return self.by_id[action_id]

    def _changed(self, actions: tuple[OwnAction, ...], trace: Trace) -> Vocabulary:
        ordered = tuple(sorted(actions, key=lambda action: action.id))
        # what is changed is no longer the published set
        name = f"own-{self.name}" if self.name in LABEL_SPACES else self.name
        changed = replace(self, name=name, actions=ordered, history=(*self.history, trace))
        return read_vocabulary(changed.to_dict(), f"the vocabulary {self.name!r}")


def read_vocabulary(document: Any, where: str) -> Vocabulary:
    """Read a vocabulary from plain values: a mapping with `actions`, each with `id` and `name`.

    Args:
        document: What `dataset.json` holds, or a user's file.
        where: What to call it in errors.

    Raises:
        DatasetError: A key is missing, unknown or of another kind, or two actions share an id or a name.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("actions"), list):
        raise DatasetError(f"{where} is no vocabulary", "it needs a name and a list of actions, each with id and name")
    actions = tuple(_action(entry, f"{where}, action {number}") for number, entry in enumerate(document["actions"], 1))
    history = tuple(
        _trace(entry, f"{where}, change {number}") for number, entry in enumerate(document.get("history") or [], 1)
    )
    name = document.get("name", "own")
    ordered = tuple(sorted(actions, key=lambda action: action.id))
    origin = document.get("origin") or _digest(ordered)
    vocabulary = Vocabulary(_text(name, f"{where}, name"), ordered, history, _text(origin, f"{where}, origin"))
    _check(vocabulary, where)
    return vocabulary


def vocabulary_named(name: str, document: Any = None) -> Vocabulary:
    """Return the vocabulary whose label space has a name that was stored beside its `document`.

    Args:
        name: `microg50`, `ava80`, `jhmdb21`, or `name@digest` of a dataset's own actions.
        document: The vocabulary of that name; None for a published set.

    Raises:
        ConfigError: It is no published set, and nothing tells its actions.
        DatasetError: The document is no vocabulary, or that of other actions.
    """
    if document is None or name in LABEL_SPACES:
        return vocabulary_of(label_space(name))
    vocabulary = read_vocabulary(document, f"the vocabulary of {name}")
    if vocabulary.space.name != name:
        raise DatasetError(f"the vocabulary stored for {name} is that of {vocabulary.space.name}")
    return vocabulary


def _digest(actions: Iterable[OwnAction]) -> str:
    return hashlib.sha256(json.dumps([(each.id, each.name) for each in actions]).encode()).hexdigest()[:12]


def _action(entry: Any, where: str) -> OwnAction:
    known = ("id", "name", "group", "definition", "note", "counterparts")
    if not isinstance(entry, Mapping) or "id" not in entry or "name" not in entry:
        raise DatasetError(f"{where} has no id or no name")
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise DatasetError(f"{where} has an unknown key {unknown[0]!r}", f"keys are {', '.join(known)}")
    counterparts = entry.get("counterparts") or {}
    if not isinstance(counterparts, Mapping):
        raise DatasetError(f"{where}: counterparts is no mapping", "write it as {ava80: 12}")
    texts = {key: _text(entry.get(key) or "", f"{where}, {key}") for key in ("name", "group", "definition", "note")}
    numbers = {str(space): _number(number, f"{where}, {space}") for space, number in counterparts.items()}
    return OwnAction(id=_number(entry["id"], where), counterparts=numbers, **texts)


def _trace(entry: Any, where: str) -> Trace:
    try:
        if entry["change"] not in get_args(Change):
            raise DatasetError(
                f"{where}: {entry['change']!r} is no change", f"changes are {', '.join(get_args(Change))}"
            )
        ids = {key: tuple(_number(number, where) for number in entry[key]) for key in ("before", "after")}
        return Trace(change=entry["change"], note=str(entry["note"]), time=str(entry["time"]), **ids)
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{where} is no change of a vocabulary: {error}") from error


def _number(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_ID:
        raise DatasetError(f"{where}: {value!r} is no id", f"ids are whole numbers from 1 to {_MAX_ID}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or any(ord(letter) < 32 for letter in value):
        raise DatasetError(f"{where} is no text of one line", f"at most {_MAX_TEXT} characters, in quotes")
    return value.strip()


def _check(vocabulary: Vocabulary, where: str) -> None:
    actions = vocabulary.actions
    if not 1 <= len(actions) <= _MAX_ACTIONS:
        raise DatasetError(f"{where} has {len(actions)} actions", f"from 1 to {_MAX_ACTIONS} are possible")
    if not vocabulary.name or "@" in vocabulary.name:
        raise DatasetError(f"{where}: {vocabulary.name!r} is no name", "a name has no '@'")
    if vocabulary.name in LABEL_SPACES:
        raise DatasetError(f"{where}: {vocabulary.name} is the name of a published set of actions", "give it another")
    for what, of in (("id", lambda each: each.id), ("name", lambda each: each.name.casefold())):
        twice = _repeated(actions, of)
        if twice is not None:
            raise DatasetError(
                f"{where}: the {what} of {twice.label!r} is there twice", f"give each action its own {what}"
            )
    for action in actions:
        if not action.name:
            raise DatasetError(f"{where}: action {action.id} has no name")
        if action.id in vocabulary.replaced:
            raise DatasetError(f"{where}: id {action.id} was given up by a change", "new actions need new ids")
        for space, number in action.counterparts.items():
            if space not in COUNTERPARTS:
                raise DatasetError(
                    f"{where}, {action.label!r}: there is no set of actions {space!r}",
                    f"sets are {', '.join(COUNTERPARTS)}",
                )
            if number not in COUNTERPARTS[space].names:
                raise DatasetError(f"{where}, {action.label!r}: {space} has no action {number}")


def _repeated(actions: Iterable[OwnAction], of: Callable[[OwnAction], Any]) -> OwnAction | None:
    seen = set()
    for action in actions:
        if of(action) in seen:
            return action
        seen.add(of(action))
    return None


def _microg() -> Vocabulary:
    jhmdb = {name: number for number, name in JHMDB_21_SPACE.names.items()}
    actions = []
    for action_id, name in MICROG_50.names.items():
        counterparts = {MICROG_50.name: action_id}
        if (ava := TO_AVA_80[action_id]) is not None:
            counterparts[AVA_80_SPACE.name] = ava
        if action_id in TO_JHMDB_21:
            counterparts[JHMDB_21_SPACE.name] = jhmdb[TO_JHMDB_21[action_id]]
        differs = AVA_80.get(action_id, name) != name
        note = f"AVA's class of this id is '{AVA_80[action_id]}'" if differs else ""
        group = MICROG_50.groups[action_id]
        actions.append(OwnAction(id=action_id, name=name, group=group, note=note, counterparts=counterparts))
    return Vocabulary(MICROG_50.name, tuple(actions), (), MICROG_50.name)


MICROG_VOCABULARY = _microg()


def vocabulary_of(space: LabelSpace) -> Vocabulary:
    """Return the vocabulary of a published set of actions, to label people with it."""
    if space == MICROG_50:
        return MICROG_VOCABULARY
    actions = []
    for action_id, name in space.names.items():
        counterparts = {space.name: action_id}
        if action_id in space.counterparts:
            counterparts[MICROG_50.name] = space.counterparts[action_id]
        actions.append(
            OwnAction(id=action_id, name=name, group=space.group(action_id) or "", counterparts=counterparts)
        )
    return Vocabulary(space.name, tuple(actions), (), space.name)
