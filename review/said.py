"""What people said, as it stands: the newest judgement of each annotator, edits of boxes, and what they differ in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from microg.annotations.accept import TABLE_OF, Acceptance, accept
from microg.annotations.rows import DATASET, KINDS, Annotation, Item, Kind
from microg.annotations.table import current
from microg.data import schema
from microg.data.vocabulary import Vocabulary

_EMPTY = {name: schema.empty(name) for name in (*TABLE_OF.values(), "clips")}
Said = Mapping[str, Annotation]


class Judgements:
    """Judgements that stand, of people and of the dataset before them.

    Args:
        vocabulary: The dataset's actions.
        rows: All judgements; models' do not count.
    """

    def __init__(self, vocabulary: Vocabulary, rows: Iterable[Annotation]) -> None:
        self._vocabulary = vocabulary
        self._before: dict[Item, Annotation] = {}
        self._boxes_before: dict[str, list[Annotation]] = {}
        self._said: dict[Item, dict[str, Annotation]] = {}
        self._settled: dict[Item, dict[str, Annotation]] = {}
        self._edits: dict[str, dict[str, Annotation]] = {}
        for each in current(row for row in rows if row.source != "model"):
            if each.annotator != DATASET:
                self.remember(each)
            elif each.kind == "box":
                self._boxes_before.setdefault(each.clip_id, []).append(each)
            else:
                self._before[each.about] = each

    def remember(self, annotation: Annotation) -> None:
        """Take in a judgement that is newer than all others, or takes one back."""
        if annotation.kind == "box":
            edits = self._edits.setdefault(annotation.clip_id, {})
            if annotation.withdrawn:
                edits.pop(annotation.supersedes or "", None)
            else:
                edits[annotation.annotation_id] = annotation
            return
        known, about = self._known(annotation.adjudicated), annotation.about
        if not annotation.withdrawn:
            known.setdefault(about, {})[annotation.annotator] = annotation
            return
        by = known.get(about, {})
        by.pop(annotation.annotator, None)
        if not by:
            known.pop(about, None)

    def of(self, item: Item) -> Said:
        """Return what each annotator said of an item."""
        return self._said.get(item, {})

    def settled(self, item: Item) -> Said:
        """Return what adjudicators decided of an item."""
        return self._settled.get(item, {})

    def by(self, item: Item, annotator: str, *, adjudicated: bool = False) -> Annotation | None:
        """Return what one annotator said, or decided."""
        return self._known(adjudicated).get(item, {}).get(annotator)

    def all(self) -> Iterator[tuple[Item, Said]]:
        """Yield all items that were judged, without edits of boxes."""
        yield from self._said.items()

    def all_settled(self) -> Mapping[Item, Said]:
        """Return what was adjudicated."""
        return self._settled

    def edits(self, clip_id: str | None = None) -> Iterator[Annotation]:
        """Yield the edits of boxes, of one clip or of all, oldest first within each."""
        for each in (self._edits.get(clip_id, {}),) if clip_id else self._edits.values():
            yield from each.values()

    def before(self, item: Item) -> Annotation | None:
        """Return what the dataset held before something was accepted of an item; None when nothing was."""
        return self._before.get(item)

    def boxes_before(self, clip_id: str) -> list[Annotation]:
        """Return a clip's boxes before something was accepted of them, as edits; none when nothing was."""
        return self._boxes_before.get(clip_id, [])

    def stands(self, annotation: Annotation) -> bool:
        """Tell whether a judgement was neither replaced nor taken back."""
        if annotation.kind == "box":
            return annotation.annotation_id in self._edits.get(annotation.clip_id, {})
        newest = self.by(annotation.about, annotation.annotator, adjudicated=annotation.adjudicated)
        return newest is not None and newest.annotation_id == annotation.annotation_id

    def differing(self, items: Iterable[Item] | None = None) -> list[Item]:
        """Return the items, of these or of all, of which two or more said different things and nobody decided.

        What is different is what the rule `adjudicated` leaves open.
        """
        votes: dict[Kind, list[Annotation]] = {kind: [] for kind in KINDS}
        for item in list(self._said) if items is None else items:
            if len(self.of(item)) > 1 and item not in self._settled:
                votes[item.kind].extend(self.of(item).values())
        how, found = Acceptance(rule="adjudicated"), []
        for kind, rows in votes.items():
            if rows:
                found += [each.about for each in accept(_EMPTY, rows, self._vocabulary, how, (kind,)).open]
        return found

    def _known(self, adjudicated: bool) -> dict[Item, dict[str, Annotation]]:
        return self._settled if adjudicated else self._said
