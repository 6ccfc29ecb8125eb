"""Statistics of captions, questions and answers: lengths, vocabulary, question types.

A word is a run of letters and digits, with inner apostrophes and hyphens, in lower case.
"""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportReturnType=false

from __future__ import annotations

import re

import pandas as pd

from microg.data.statistics import Tables

KINDS = ("caption", "question", "answer")
# The first word that says what kind of answer is asked for; "in which ...", "at what ..." count as which, what.
QUESTION_TYPES = ("what", "how", "who", "whose", "where", "why", "which", "when", "is/are", "does/do", "other")
# The published answer to a question that the clip cannot answer.
UNANSWERABLE = "not mentioned"

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

    `unanswerable` counts answers "Not mentioned.".
    """
    qa = tables.qa.assign(
        type=tables.qa["question"].map(question_type).astype("object"),
        answer_words=tables.qa["answer"].map(lambda text: float(len(words(text)))).astype("float64"),
        unanswerable=tables.qa["answer"].map(_is_unanswerable).astype("bool"),
    )
    result = pd.DataFrame({"type": QUESTION_TYPES})
    groups = [qa[qa["type"] == name] for name in QUESTION_TYPES]
    result["questions"] = [len(group) for group in groups]
    result["percent"] = (100 * result["questions"] / max(len(qa), 1)).round(2)
    result["answer_words_mean"] = pd.Series([group["answer_words"].mean() for group in groups]).round(2)
    result["unanswerable"] = [int(group["unanswerable"].sum()) for group in groups]
    return result


def _is_unanswerable(answer: str | None) -> bool:
    return (answer or "").strip().rstrip(".").lower() == UNANSWERABLE


def frequent_words(values: list[str], stop_words: frozenset[str] | set[str], limit: int = 100) -> pd.DataFrame:
    """Return (word, count), most frequent first, ties in alphabetical order, without stop words and single letters."""
    series = pd.Series([word for value in values for word in words(value)], dtype="object")
    series = series[~series.isin(stop_words) & (series.str.len() > 1)] if len(series) else series
    counts = series.value_counts().rename_axis("word").reset_index(name="count")
    return counts.sort_values(["count", "word"], ascending=[False, True], ignore_index=True).head(limit)
