"""Statistics of a dataset: the tables of the MicroG-4M paper's appendix (6-10) and the numbers behind its Figure 2.

Table 6 is `split_sizes`, 7 `label_groups`, 8 `people_per_clip`, 9 `labels_per_action`, 10 `overview` and `qa_kinds`,
by the rules of the authors' statistics files; the others are what a reader needs beside them. Percentages are rounded
to two decimals as published.

Each function is pure: Arrow tables in, one small pandas table out, all rows there and zero when the input is empty.
Columns named `all`, `movie`, `real` count by the clip's origin; a clip of unknown origin counts in `all` only.
"""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportReturnType=false

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.normal_form import is_no_answer
from microg.data.qa_kinds import Labels, kind_of, qa_rules
from microg.data.schema import ORIGINS
from microg.data.taxonomy import group_name
from microg.data.vocabulary import MICROG_VOCABULARY, Vocabulary

_COLUMNS = ("all", *ORIGINS)
# The group of actions that have none.
NO_GROUP = "no group"


@dataclass(frozen=True)
class Tables:
    """The tables that statistics read, as pandas frames, with the clip's `origin` and `source_id` joined on.

    Annotations of clips that were rejected or failed are left out; `clips` and `decisions` keep every row.
    """

    clips: pd.DataFrame
    kept: pd.DataFrame
    sources: pd.DataFrame
    decisions: pd.DataFrame
    boxes: pd.DataFrame
    actions: pd.DataFrame
    captions: pd.DataFrame
    qa: pd.DataFrame
    splits: pd.DataFrame
    vocabulary: Vocabulary = MICROG_VOCABULARY

    @classmethod
    def load(cls, dataset: Dataset) -> Tables:
        """Read a dataset's tables and its actions."""
        return cls.of({name: dataset.table(name) for name in schema.TABLES}, dataset.vocabulary)

    @classmethod
    def of(cls, tables: dict[str, pa.Table], vocabulary: Vocabulary = MICROG_VOCABULARY) -> Tables:
        """Take Arrow tables of `schema.TABLES`, of which a missing one counts as empty, and what people may do."""
        clips = _frame(tables, "clips", list(schema.TABLES["clips"].names))
        kept = clips[clips["status"] == "ok"].drop_duplicates("clip_id")
        facts = kept[["clip_id", "source_id", "origin", "width", "height"]]

        def on_kept(name: str, columns: list[str]) -> pd.DataFrame:
            return _frame(tables, name, columns).merge(facts, on="clip_id", how="inner")

        return cls(
            clips=clips,
            kept=kept,
            sources=_frame(tables, "sources", schema.TABLES["sources"].names),
            decisions=_frame(tables, "decisions", schema.TABLES["decisions"].names),
            boxes=on_kept("boxes", ["clip_id", "person_id", "x1", "y1", "x2", "y2"]),
            **{name: on_kept(name, schema.TABLES[name].names) for name in ("actions", "captions", "qa", "splits")},
            vocabulary=vocabulary,
        )


def _frame(tables: dict[str, pa.Table], name: str, columns: list[str]) -> pd.DataFrame:
    return tables.get(name, schema.empty(name)).select(columns).to_pandas()


def _by_origin(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"all": frame, **{origin: frame[frame["origin"] == origin] for origin in ORIGINS}}


def _percent(part: pd.Series, total: float) -> pd.Series:
    return (100 * part / total if total else part * 0.0).astype(float).round(2)


def overview(tables: Tables) -> pd.DataFrame:
    """Return (statistic, all, movie, real): how much of everything the dataset holds.

    People are (clip, person id) pairs with a label; where nothing is labelled, pairs with a box.
    """
    people = tables.actions if len(tables.actions) else tables.boxes
    measures: dict[str, tuple[pd.DataFrame, Callable[[pd.DataFrame], float]]] = {
        "clips": (tables.kept, len),
        "minutes": (tables.kept, lambda frame: round(float(durations(frame).sum()) / 60, 2)),
        "sources": (tables.kept, lambda frame: frame["source_id"].nunique()),
        "clips with labels": (tables.actions, lambda frame: frame["clip_id"].nunique()),
        "people": (people, lambda frame: len(frame[["clip_id", "person_id"]].drop_duplicates())),
        "boxes": (tables.boxes, len),
        "action labels": (tables.actions, len),
        "actions used": (tables.actions, lambda frame: frame["action_id"].nunique()),
        "captions": (tables.captions, len),
        "question-answer pairs": (tables.qa, len),
    }
    result: dict[str, pd.Series] = {"statistic": pd.Series(list(measures))}
    for column in _COLUMNS:
        values = [measure(_by_origin(frame)[column]) for frame, measure in measures.values()]
        result[column] = pd.Series(values, dtype="object")  # counts stay whole numbers beside the minutes
    return pd.DataFrame(result)


def durations(clips: pd.DataFrame) -> pd.Series:
    """Return the seconds of each clip."""
    return clips["duration_s"].fillna(clips["num_frames"] / clips["fps"])


def label_groups(tables: Tables) -> pd.DataFrame:
    """Return (group, all, movie, real, all_percent, ...): labels in each group of actions (the paper's Table 7).

    The published table has its movie and real columns swapped between rows; this one does not.
    """
    of_action = {action.id: action.group for action in tables.vocabulary.actions}
    groups = tables.actions.assign(group=tables.actions["action_id"].map(of_action.get))
    names = tables.vocabulary.groups
    result = pd.DataFrame({"group": [group_name(group) or NO_GROUP for group in names]})
    for column, part in _by_origin(groups).items():
        counts = part["group"].value_counts()
        result[column] = [int(counts.get(group, 0)) for group in names]
    return _with_percentages(result)


def labels_per_action(tables: Tables) -> pd.DataFrame:
    """Return (action_id, action, group, all, movie, real, all_percent, ...) for all actions of the dataset.

    The most frequent come first.
    """
    actions = tables.vocabulary.actions
    result = pd.DataFrame(
        [{"action_id": each.id, "action": each.name, "group": each.group_name or NO_GROUP} for each in actions]
    )
    for column, part in _by_origin(tables.actions).items():
        counts = part["action_id"].value_counts()
        result[column] = [int(counts.get(action.id, 0)) for action in actions]
    result = _with_percentages(result)
    return result.sort_values(["all", "action_id"], ascending=[False, True], ignore_index=True)


def people_per_clip(tables: Tables) -> pd.DataFrame:
    """Return (people, all, movie, real, all_percent, ...): clips by number of different people in them.

    The published rule: different person ids among a clip's labels, clips without labels not counted. Where nothing
    is labelled, person ids among its boxes, and clips without boxes count as 0 people.
    """
    labelled = len(tables.actions) > 0
    frame = tables.actions if labelled else tables.boxes
    people = frame.groupby("clip_id")["person_id"].nunique()
    clips = tables.kept[["clip_id", "origin"]].assign(people=tables.kept["clip_id"].map(people).fillna(0).astype(int))
    if labelled:
        clips = clips[clips["people"] > 0]
    return _counted(clips, "people")


def labels_per_person(tables: Tables) -> pd.DataFrame:
    """Return (labels, all, movie, real, all_percent, ...): labelled people by number of different actions."""
    counts = tables.actions.groupby(["clip_id", "person_id", "origin"], dropna=False)["action_id"].nunique()
    return _counted(counts.rename("labels").reset_index(), "labels")


def _counted(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    values = sorted(int(value) for value in frame[by].unique())
    result = pd.DataFrame({by: pd.Series(values, dtype="int64")})
    for column, part in _by_origin(frame).items():
        counts = part[by].value_counts()
        result[column] = pd.Series([int(counts.get(value, 0)) for value in values], dtype="int64")
    return _with_percentages(result)


def _with_percentages(result: pd.DataFrame) -> pd.DataFrame:
    for column in _COLUMNS:
        result[f"{column}_percent"] = _percent(result[column], float(result[column].sum()))
    return result


def sources(tables: Tables) -> pd.DataFrame:
    """Return (source_id, origin, clips, kept, rejected, failed, people, labels), one row a source, most clips first."""
    clips = tables.clips
    result = clips.groupby("source_id", dropna=False).agg(
        origin=("origin", "first"),
        clips=("clip_id", "size"),
        kept=("status", lambda status: int((status == "ok").sum())),
        rejected=("status", lambda status: int((status == "rejected").sum())),
        failed=("status", lambda status: int((status == "error").sum())),
    )
    people = tables.boxes[["source_id", "clip_id", "person_id"]].drop_duplicates().groupby("source_id").size()
    result["people"] = people.reindex(result.index, fill_value=0).astype(int)
    result["labels"] = tables.actions.groupby("source_id").size().reindex(result.index, fill_value=0).astype(int)
    result = result.reset_index()
    return result.sort_values(["clips", "source_id"], ascending=[False, True], ignore_index=True)


def decisions(tables: Tables) -> pd.DataFrame:
    """Return (stage, clips, threshold, lowest_score, highest_score, example): clips turned down at each stage.

    A clip that two stages turn down counts in both. `example` is the reason given for the first of them.
    """
    rejected = tables.decisions[tables.decisions["keep"] == False]  # noqa: E712 (a nullable column)
    result = rejected.groupby("stage", dropna=False).agg(
        clips=("clip_id", "nunique"),
        threshold=("threshold", "first"),
        lowest_score=("score", "min"),
        highest_score=("score", "max"),
        example=("reason", "first"),
    )
    return result.reset_index().sort_values(["clips", "stage"], ascending=[False, True], ignore_index=True)


def split_sizes(tables: Tables) -> pd.DataFrame:
    """Return (scheme, split, clips, sources, labels, actions) of every split."""
    labels = tables.actions.groupby("clip_id").size()
    actions = tables.actions[["clip_id", "action_id"]]
    rows = []
    order = {split: rank for rank, split in enumerate(schema.SPLITS)}
    for (scheme, split), part in tables.splits.groupby(["scheme", "split"]):
        inside = actions[actions["clip_id"].isin(part["clip_id"])]
        rows.append(
            {
                "scheme": scheme,
                "split": split,
                "clips": part["clip_id"].nunique(),
                "sources": part["source_id"].nunique(),
                "labels": int(part["clip_id"].drop_duplicates().map(labels).fillna(0).sum()),
                "actions": inside["action_id"].nunique(),
            }
        )
    rows.sort(key=lambda row: (row["scheme"], order.get(row["split"], len(order))))
    return pd.DataFrame(rows, columns=["scheme", "split", "clips", "sources", "labels", "actions"])


KINDS = ("caption", "question", "answer")
# The first word that says what kind of answer is asked for; "in which ...", "at what ..." count as which, what.
QUESTION_TYPES = ("what", "how", "who", "whose", "where", "why", "which", "when", "is/are", "does/do", "other")


_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_WH = {word: word for word in QUESTION_TYPES[:8]} | {"whom": "who"}
_CLOSED = {
    **dict.fromkeys(("is", "are", "was", "were"), "is/are"),
    **dict.fromkeys(("does", "do", "did", "can", "could", "has", "have", "will", "would", "should"), "does/do"),
}


def words(text: str | None) -> list[str]:
    """Return the words of a text in lower case.

    >>> words("The bag's 3-D straps drift.")
    ['the', "bag's", '3-d', 'straps', 'drift']
    """
    return _WORD.findall((text or "").lower())


def question_type(question: str | None) -> str:
    """Return which of `QUESTION_TYPES` a question is.

    >>> question_type("In which module is she?"), question_type("Are the lights on?")
    ('which', 'is/are')
    """
    tokens = words(question)
    if tokens and tokens[0] in _CLOSED:
        return _CLOSED[tokens[0]]
    for token in tokens:
        stem = re.split("['’]", token)[0]  # "what's"
        if stem in _WH:
            return _WH[stem]
    return "other"


def texts(tables: Tables) -> dict[str, list[str]]:
    """Return kind (caption, question, answer) -> all its texts that are not null, in table order."""
    return {
        "caption": tables.captions["caption"].dropna().tolist(),
        "question": tables.qa["question"].dropna().tolist(),
        "answer": tables.qa["answer"].dropna().tolist(),
    }


def text_lengths(tables: Tables) -> pd.DataFrame:
    """Return one row a kind of text: number, words (mean, sd, min, median, max), characters, sentences, vocabulary.

    `sd` is the sample standard deviation; `vocabulary` counts different words, `once` those used a single time.
    """
    rows = []
    for kind, values in texts(tables).items():
        tokens = [words(value) for value in values]
        lengths = pd.Series([len(item) for item in tokens], dtype="float64")
        vocabulary = pd.Series([word for item in tokens for word in item], dtype="object").value_counts()
        sentences = pd.Series([max(len(_SENTENCE_END.findall(value.strip())), 1) for value in values], dtype="float64")
        rows.append(
            {
                "text": kind,
                "number": len(values),
                "different": len(set(values)),
                "words_mean": lengths.mean(),
                "words_sd": lengths.std(),
                "words_min": lengths.min(),
                "words_median": lengths.median(),
                "words_max": lengths.max(),
                "characters_mean": pd.Series([len(value) for value in values], dtype="float64").mean(),
                "sentences_mean": sentences.mean(),
                "vocabulary": len(vocabulary),
                "once": int((vocabulary == 1).sum()),
            }
        )
    return pd.DataFrame(rows).round(2)


def question_types(tables: Tables) -> pd.DataFrame:
    """Return (type, questions, percent, answer_words_mean, unanswerable): the kinds of question asked.

    `unanswerable` counts answers that say that there is none, such as "Not mentioned.".
    """
    qa = tables.qa.assign(
        type=tables.qa["question"].map(question_type).astype("object"),
        answer_words=tables.qa["answer"].map(lambda text: float(len(words(text)))).astype("float64"),
        unanswerable=tables.qa["answer"].map(lambda answer: is_no_answer(answer or "")).astype("bool"),
    )
    result = pd.DataFrame({"type": QUESTION_TYPES})
    groups = [qa[qa["type"] == name] for name in QUESTION_TYPES]
    result["questions"] = [len(group) for group in groups]
    result["percent"] = (100 * result["questions"] / max(len(qa), 1)).round(2)
    result["answer_words_mean"] = pd.Series([group["answer_words"].mean() for group in groups]).round(2)
    result["unanswerable"] = [int(group["unanswerable"].sum()) for group in groups]
    return result


def qa_kinds(tables: Tables, labels: Labels | None = None) -> pd.DataFrame:
    """Return (kind, questions, percent, answer_words_mean): what questions ask for, in the paper's seven kinds.

    By `labels`, and where these have none by the rules of `microg.data.qa_kinds`.
    """
    rows = tables.qa[["clip_id", "qa_index", "question", "answer"]].itertuples(index=False, name=None)
    given = labels or {}
    kinds = [kind_of(question or "", answer, given.get((clip, index))) for clip, index, question, answer in rows]
    lengths = tables.qa["answer"].map(lambda text: float(len(words(text)))).astype("float64").tolist()
    names = list(qa_rules().kinds)
    by_kind = {name: [length for kind, length in zip(kinds, lengths, strict=True) if kind == name] for name in names}
    result = pd.DataFrame({"kind": names, "questions": [len(by_kind[name]) for name in names]})
    result["percent"] = _percent(result["questions"], len(kinds))
    result["answer_words_mean"] = [pd.Series(by_kind[name], dtype="float64").mean() for name in names]
    return result.round(2)


def frequent_words(values: list[str], stop_words: frozenset[str] | set[str], limit: int = 100) -> pd.DataFrame:
    """Return (word, count), most frequent first, ties in alphabetical order, without stop words and single letters."""
    series = pd.Series([word for value in values for word in words(value)], dtype="object")
    series = series[~series.isin(stop_words) & (series.str.len() > 1)] if len(series) else series
    counts = series.value_counts().rename_axis("word").reset_index(name="count")
    return counts.sort_values(["count", "word"], ascending=[False, True], ignore_index=True).head(limit)


def all_tables(tables: Tables, labels: Labels | None = None) -> dict[str, pd.DataFrame]:
    """Return every table of the dataset by file name, in reading order; `labels` are kinds of questions."""
    return {
        "overview": overview(tables),
        "action_groups": label_groups(tables),
        "people_per_clip": people_per_clip(tables),
        "labels_per_person": labels_per_person(tables),
        "labels_per_action": labels_per_action(tables),
        "text_lengths": text_lengths(tables),
        "question_types": question_types(tables),
        "qa_kinds": qa_kinds(tables, labels),
        "splits": split_sizes(tables),
        "sources": sources(tables),
        "decisions": decisions(tables),
    }


def missing(tables: Tables) -> list[str]:
    """Say which annotations the dataset lacks, and what is left out for that reason."""
    lacks = {
        "kept clips": (tables.kept, "nothing can be counted"),
        "boxes": (tables.boxes, "people are counted by labels only"),
        "action labels": (tables.actions, "no action tables; people are counted by boxes"),
        "captions": (tables.captions, "no caption lengths and words"),
        "questions": (tables.qa, "no question types, lengths and words"),
        "splits": (tables.splits, "no split sizes"),
    }
    return [f"no {what}: {consequence}" for what, (frame, consequence) in lacks.items() if frame.empty]


def cell_text(value: Any) -> str:
    """Return a table's value as people read it: `-` for nothing, `1,234`, `12.50`."""
    if value is None or value != value:  # NaN
        return "-"
    if isinstance(value, (str, bool)):
        return str(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.2f}"
